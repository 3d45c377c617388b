"""How the networks learn: data, one fit loop, one file per network."""
