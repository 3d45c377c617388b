"""The verbs of See: classify, explain, probe, score."""
