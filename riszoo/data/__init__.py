"""Readers of each data set, the embedded set, and the data module they share."""
