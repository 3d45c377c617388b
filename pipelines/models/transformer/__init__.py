"""The second stage of a VQGAN: a Transformer over its codes."""
