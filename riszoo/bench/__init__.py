"""The benchmark: what is to be measured (plan), processes that measure it (run), and the files of numbers (rows)."""
