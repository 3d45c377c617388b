"""A DALL·E that draws semantic tokens before the picture's, under the text of CLIP."""
