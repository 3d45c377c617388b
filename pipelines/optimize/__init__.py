"""Optimize: CLIP's gradient changes the latents of one picture (VQGAN-CLIP)."""
