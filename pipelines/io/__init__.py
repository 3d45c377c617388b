"""Files in and out: whole ones or none, pictures, films."""
