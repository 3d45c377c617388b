"""The project's own figures, on a style never trained on, and on samples."""
