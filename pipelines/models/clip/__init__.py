"""The tiny pack's CLIP and critic, and the vocabulary of its texts."""
