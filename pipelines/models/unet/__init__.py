"""The tiny pack's diffusion model."""
