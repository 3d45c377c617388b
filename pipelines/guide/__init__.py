"""Guide: CLIP's gradient guides a diffusion model down the noise (Disco Diffusion)."""
