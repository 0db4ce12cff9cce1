"""Vision and text encoders: language-free picture features, and word states."""
