"""What CLIP is used for: ranking, losses, cutouts."""
