"""The models: one paper a file, or a folder where it has parts."""
