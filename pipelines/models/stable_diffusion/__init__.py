"""Stable Diffusion: folders of diffusers."""
