"""Rows of parquet files, read as untrusted: chosen columns, within limits, in small batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from riszoo.data.readers.validation import CAP
from riszoo.errors import UserError

MOST_ROWS = 1_000_000
BATCH = 16


def rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file as plain values."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path.name} is a parquet file: install pyarrow (pip install 'riszoo[parquet]')") from None
    try:
        with ParquetFile(path) as file:
            _check(file, columns, path)
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as parquet ({type(error).__name__}): get the file again") from error


def _check(file: Any, columns: Sequence[str], path: Path) -> None:
    """Raise UserError for a file without the columns, or one that expands beyond the limits."""
    names = file.schema_arrow.names
    if missing := [name for name in columns if name not in names]:
        raise UserError(f"{path} has no column '{missing[0]}': get the file from its publisher")
    metadata = file.metadata
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if metadata.num_rows > MOST_ROWS or size > CAP:
        raise UserError(f"{path} is refused: it expands to {metadata.num_rows:,} rows and {size:,} bytes; get it again")
