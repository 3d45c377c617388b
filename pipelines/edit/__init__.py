"""Edit: a picture is changed from one text to another (DiffusionCLIP)."""
