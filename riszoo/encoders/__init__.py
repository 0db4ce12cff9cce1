"""Vision and text encoders: language-free image features, and word states."""
