"""Comparisons of the field, done again at the size of this project."""
