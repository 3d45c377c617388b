"""The judge: a network for figures alone."""
