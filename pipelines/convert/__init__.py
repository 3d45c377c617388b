"""From the files in which the field publishes its weights to ours: one module a family, one function `convert` each."""
