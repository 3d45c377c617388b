"""Trainings that are started from the page: one at a time, each a process of its own that outlives the studio."""
