"""Help, shell completion, checks of the installation, and templates."""
