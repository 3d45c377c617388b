"""SigLIP 2."""
