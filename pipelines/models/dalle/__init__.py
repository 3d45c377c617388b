"""The tiny pack's DALL·E."""
