"""A page in the browser on which models segment an image by sentences, side by side."""
