"""The records of an offline run of wandb: its file is a log of protocol buffers in blocks, as LevelDB's."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, FILE_HEAD = 32768, 7
PIECE = struct.Struct("<IHB")  # checksum, length, kind of a piece
WHOLE, LAST = 1, 4
"""Kinds of pieces that end a record."""


def records(path: Path) -> list[Any]:
    """Every record of the file, in order."""
    found, record = [], b""
    for kind, piece in _pieces(path.read_bytes()):
        record += piece
        if kind in (WHOLE, LAST):
            found.append(wandb_internal_pb2.Record.FromString(record))
            record = b""
    return found


def _pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = FILE_HEAD
    while at + PIECE.size <= len(content):
        if BLOCK - at % BLOCK < PIECE.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = PIECE.unpack_from(content, at)
        at += PIECE.size
        yield kind, content[at : at + length]
        at += length


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, one dictionary for each call."""
    rows = [record.history.item for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [{_name(item): json.loads(item.value_json) for item in row} for row in rows]


def config(path: Path) -> dict[str, Any]:
    """The run's configuration; nested names are joined by `/`."""
    found: dict[str, Any] = {}
    for record in records(path):
        part = record.run.config if record.WhichOneof("record_type") == "run" else record.config
        found |= {_name(item): json.loads(item.value_json) for item in part.update}
    return found


def _name(item: Any) -> str:
    return str(item.key or "/".join(item.nested_key))
