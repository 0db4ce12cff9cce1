"""`riszoo data prepare`: read the annotations once and keep them as flat arrays that every process maps."""

from __future__ import annotations

import warnings
from pathlib import Path

from riszoo.cli.parser import CommandParser
from riszoo.data.readers.base import Reader
from riszoo.data.readers.catalogue import source
from riszoo.data.readers.opening import Options, build_index, load_prepared, stamp
from riszoo.errors import UserError


def run(argv: list[str]) -> int:
    """Nothing is downloaded; an index that is already of the files at hand is left as it is."""
    parser = CommandParser(prog="riszoo data prepare", description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="SET", help="refcoco, refcocog-google, phrasecut, folder, ...")
    parser.add_argument("--root", help="the folder of data sets (default: RISZOO_DATA, then ./data)")
    parser.add_argument("--prepared", help="where the indices go (default: beside the annotations)")
    given = parser.parse_args(argv)
    options = Options(root=given.root, prepared=given.prepared)
    for one in map(source, given.sets):
        for path in prepare(one, options):
            print(f"{one.name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def prepare(one: Reader, options: Options) -> list[Path]:
    """The index of every unit whose files are there; none there is an error that says what is needed."""
    root, errors, made = options.folder(), [], []
    for unit in one.all_units(root):
        try:
            files = one.files(root, unit)
        except UserError as error:
            errors.append(error)
            continue
        made.append(_prepared(one, unit, root, files, options.prepared_folder()))
    if not made:
        raise errors[0]
    return made


def _prepared(one: Reader, unit: str, root: Path, files: list[Path], folder: Path | None) -> Path:
    path = one.index_file(root, unit, folder)
    with warnings.catch_warnings():  # an index that no longer serves is about to be replaced
        warnings.simplefilter("ignore")
        current = load_prepared(path, files)
    if current:
        return path
    index = build_index(one, files, unit)
    index.about["files"] = [stamp(file) for file in files]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        index.save(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another folder with --prepared") from error
    return path
