"""The tiny pack's matting network."""
