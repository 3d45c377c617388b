"""The tiny pack's latent prior."""
