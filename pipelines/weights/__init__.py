"""The models that can be had: what there is, how it is fetched, read and converted."""
