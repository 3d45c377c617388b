"""Rectified flows: folders of diffusers."""
