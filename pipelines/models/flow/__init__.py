"""Rectified flows under a language model's reading of the prompt: folders of diffusers."""
