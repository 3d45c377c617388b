"""Networks only: what they are made of and how they are stored."""
