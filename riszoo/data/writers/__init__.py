"""Data sets written as files in the layouts that other projects read."""
