"""How well masks answer sentences: protocols, exact counts, intervals, comparisons and the files that carry them."""
