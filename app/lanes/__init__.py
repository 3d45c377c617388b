"""Several devices: a process for each, which holds its models and does one thing at a time."""
