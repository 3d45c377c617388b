"""OpenAI's CLIP, and LAION's and DataComp's."""
