"""DALLE-pytorch's DALL·E and its dVAE."""
