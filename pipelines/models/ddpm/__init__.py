"""Pixel diffusion models: DDPM and ADM."""
