"""ruDALL-E."""
