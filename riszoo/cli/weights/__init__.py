"""Verbs about files of weights."""
