"""Readers of data sets that are published as parquet files; they need pyarrow, the extra riszoo[parquet]."""
