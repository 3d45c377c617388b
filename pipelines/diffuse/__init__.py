"""Diffuse: Stable Diffusion draws candidates, CLIP ranks them."""
