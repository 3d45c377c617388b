"""Generate: a DALL·E draws candidates, CLIP ranks them."""
