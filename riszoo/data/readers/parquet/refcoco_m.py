"""RefCOCO-M: RefCOCO's validation split with corrected masks, as parquet files that contain their images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riszoo.data.masks import Rles, Size
from riszoo.data.readers import validation
from riszoo.data.readers.base import COCO_FOLDERS, Counts, Reader, Report, lower_tokens
from riszoo.data.readers.parquet.tables import rows
from riszoo.data.readers.validation import RecordError
from riszoo.data.record import Record, Sentence, Target
from riszoo.errors import UserError
from riszoo.files import new_folder, write_atomically

FILES = "validation-*.parquet"
EXPECTED = "validation-00000-of-00002.parquet"
LARGEST_IMAGE = 64 << 20


class RefCOCOM(Reader):
    """The annotations of the parquet files. Images are COCO's, or those that `extract` writes."""

    name = dataset = "refcoco-m"
    by = "unc"
    publisher = "moondream on the Hugging Face hub (datasets/moondream/refcoco-m, MIT)"
    images_from = "`riszoo data prepare refcoco-m`, which extracts them, or the COCO project (train2014)"
    folders = ("refcoco-m/images", *COCO_FOLDERS)
    published = {"val": Counts(2_080, 5_598, 1_190)}  # noqa: RUF012 - read only

    def units(self, split: str) -> tuple[str, ...]:
        return (self.by,)

    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        folder = root / self.dataset
        found = sorted(path for place in (folder, folder / "data") for path in place.glob(FILES))
        return [[path] for path in found] or [[folder / EXPECTED]]

    def records(self, files: list[Path], unit: str, report: Report) -> Iterator[Record]:
        for path in files:
            for index, row in enumerate(rows(path, ("image_id", "samples"))):
                yield from self._records(row, f"{path.stem}#{index}", report)

    def _records(self, row: dict[str, Any], name: str, report: Report) -> Iterator[Record]:
        """A record for each valid sample of an image."""
        try:
            image, samples = validation.number(row["image_id"]), row["samples"]
            if not isinstance(samples, list):
                raise RecordError("it has no samples")
        except (RecordError, OverflowError) as error:
            report(name, validation.reason(error))
            return
        size: Size | None = None
        for number, sample in enumerate(samples):
            try:
                record = _record(sample, image)
                size = size or record.size
                if record.size != size:
                    raise RecordError(f"its mask is of another size than that of the first sample, (h, w) = {size}")
                yield record
            except (RecordError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                report(f"{image}#{number}", validation.reason(error))

    def extract(self, root: Path) -> Path | None:
        """Write the images to the first of the folders, unless one of the others has COCO's."""
        if any((root / name).is_dir() for name in self.folders):
            return None
        folder = root / self.folders[0]
        with new_folder(folder) as part:
            for path in self.files(root, self.by):
                for row in rows(path, ("image_id", "image")):
                    blob = (row["image"] or {}).get("bytes") or b""
                    if not 0 < len(blob) <= LARGEST_IMAGE:
                        raise UserError(f"{path} has an image of {len(blob):,} bytes: get the file again")
                    write_atomically(part / image_file(validation.number(row["image_id"])), blob)
        return folder


def image_file(number: int) -> str:
    """The name of an image in COCO's train2014."""
    return f"COCO_train2014_{number:012d}.jpg"


def _record(sample: dict[str, Any], image: int) -> Record:
    size = validation.size(*_two(sample["mask"]["size"]))
    name = str(validation.number(sample["id"]))
    sentences = tuple(
        Sentence(f"{name}-{index}", validation.text(text), sent=lower_tokens(validation.text(text)))
        for index, text in enumerate(sample["sentences"])
    )
    if not sentences:
        raise RecordError("it has no sentence")
    target = Target(name, Rles(size, (validation.read_rle(sample["mask"], size),)), sentences)
    return Record(str(image), size, (target,), file=image_file(image), key=f"coco:{image}", split="val")


def _two(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise RecordError("its mask has no size")
    return value[0], value[1]
