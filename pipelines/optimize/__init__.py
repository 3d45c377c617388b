"""Optimize: CLIP's gradient grows one picture (VQGAN-CLIP)."""
