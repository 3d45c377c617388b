"""The published VQGANs."""
