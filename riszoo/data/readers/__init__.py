"""Readers of published annotation files, and the validation of their bytes."""
