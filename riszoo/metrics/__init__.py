"""Evaluation: published protocols, exact counts, confidence intervals, comparisons and the files of a result."""
