"""Diffuse: latent diffusion draws candidates, CLIP ranks them."""
