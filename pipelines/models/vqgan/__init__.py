"""The tiny pack's VQGAN."""
