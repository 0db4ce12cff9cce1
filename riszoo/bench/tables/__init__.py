"""Tables of claimed and measured results."""
