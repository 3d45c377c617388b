"""Reading and writing files: atomic writes, pictures, masks, films, tensors."""
