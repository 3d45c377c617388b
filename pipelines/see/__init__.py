"""See: what CLIP sees in a picture: its name, why it fits a text, what it was taught, and scores by the folder."""
