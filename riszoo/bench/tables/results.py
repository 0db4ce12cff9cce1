"""Everything that the tables show, read from the CSV files and footnotes of one folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from riszoo import recipes
from riszoo.bench.rows import ACCURACY, SPEED, TYPES, Row
from riszoo.bench.tables.entries import Entry, read_entries
from riszoo.bench.tables.image_sums import ImageSums, read_sums


@dataclass
class Results:
    """The content of a folder's CSV files and footnotes."""

    entries: list[Entry] = field(default_factory=list)
    accuracy: list[Row] = field(default_factory=list)
    types: list[Row] = field(default_factory=list)
    speed: list[Row] = field(default_factory=list)
    sums: dict[tuple[str, ...], ImageSums] = field(default_factory=dict)
    method_notes: dict[str, str] = field(default_factory=dict)
    source_notes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Results:
        file = folder / "footnotes.yaml"
        notes = recipes.read_yaml(file) if file.is_file() else {}
        return cls(
            read_entries(folder),
            ACCURACY.read(folder),
            TYPES.read(folder),
            SPEED.read(folder),
            read_sums(folder),
            notes.get("methods") or {},
            notes.get("sources") or {},
        )
