"""ReferIt as text_objseg files it: queries by `<image>_<region>`, one MATLAB mask a region."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riszoo.data.readers import validation
from riszoo.data.readers.base import Counts, Reader, Report, lower_tokens
from riszoo.data.readers.mask_files import MaskFile
from riszoo.data.readers.validation import RecordError
from riszoo.data.record import Record, Sentence, Target
from riszoo.errors import UserError


class ReferIt(Reader):
    """The Berkeley partition, which ReferIt's tables use."""

    name = dataset = "referit"
    by = "berkeley"
    publisher = "Ronghang Hu's text_objseg project (its ReferIt annotations and masks)"
    images_from = "ImageCLEF (SAIAPR TC-12)"
    folders = ("referit/images", "images/saiapr_tc-12", "saiapr_tc-12", "images/referit", "images/saiaprtc12")
    published = {  # noqa: RUF012 - read only
        "train": Counts(44_649, 54_134, 8_995),
        "val": Counts(4_866, 5_842, 1_000),
        "trainval": Counts(49_515, 59_976, 9_995),
        "test": Counts(49_730, 60_105, 9_994),
    }

    def units(self, split: str) -> tuple[str, ...]:
        return ("train", "val") if split == "trainval" else (split,)

    def choices(self, root: Path, unit: str) -> list[list[Path]]:
        folder = root / "referit"
        names = (f"referit_query_{unit}.json", "referit_imsize.json")
        return [[folder / name, folder / "annotations" / name, folder / "data" / name] for name in names]

    def check_split(self, split: str) -> None:
        if split not in self.published:
            raise UserError(
                f"referit has no split '{split}': choose among {', '.join(self.published)} "
                "(testA, testB and testC belong to --data refclef)"
            )

    def masks_folder(self, files: list[Path]) -> Path:
        folder = files[0].parent
        return folder.parent if folder.name in ("annotations", "data") else folder

    def records(self, files: list[Path], unit: str, report: Report) -> Iterator[Record]:
        queries, sizes = validation.load_json(files[0]), validation.load_json(files[1])
        if not isinstance(queries, dict) or not isinstance(sizes, dict):
            raise UserError(f"{files[0]} or {files[1]} is not a JSON object: get the files again")
        root = self.masks_folder(files)
        masks = next((name for name in ("mask", "masks") if (root / name).is_dir()), "mask")
        for region, expressions in queries.items():
            try:
                yield _record(region, expressions, sizes, unit, masks)
            except (RecordError, LookupError, TypeError, ValueError) as error:
                report(region, validation.reason(error))


def _record(region: str, expressions: Any, sizes: dict[str, Any], unit: str, masks: str) -> Record:
    image, separator, part = region.partition("_")
    if not (separator and image.isdecimal() and part.isdecimal()):
        raise RecordError("its name is not <image>_<region>")
    file = f"{image}.jpg"
    filed = sizes.get(file, sizes.get(image))
    if filed is None:
        raise RecordError(f"the size of {file} is missing")
    width, height = filed
    if not isinstance(expressions, list) or not expressions:
        raise RecordError("it has no sentence")
    size = validation.size(height, width)
    sentences = tuple(
        Sentence(f"{region}.{n}", text, sent=lower_tokens(text))
        for n, text in enumerate(map(validation.text, expressions))
    )
    target = Target(region, MaskFile(size, Path(masks, f"{region}.mat")), sentences)
    return Record(image, size, (target,), file=file, key=f"saiapr:{image}", split=unit)
