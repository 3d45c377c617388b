"""Chinese CLIP."""
