"""OpenAI's dVAE."""
