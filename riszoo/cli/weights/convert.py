"""`riszoo convert RUN`: the model of a run or a checkpoint, published or riszoo's own, as weights with its options.

With --half, matrices are stored in half precision, as in the weights that riszoo ships.
"""

from __future__ import annotations

from pathlib import Path

from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.training import runs


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo convert", description=__doc__)
    parser.add_argument("run", help="a run's folder, or a checkpoint of riszoo or of a model's authors")
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors or .ckpt file")
    parser.add_argument("--half", action="store_true", help="store matrices in half precision")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    best = runs.checkpoint(Path(args.run))
    source = best if best.is_file() else runs.existing(args.run, None)
    if args.out.suffix not in (".safetensors", ".ckpt"):
        raise UserError(f"--out {args.out} has an unknown format: give a .safetensors or .ckpt file")
    if args.out.exists():
        raise UserError(f"{args.out} exists already: choose another --out")
    from riszoo.training.checkpoints import read_checkpoint, recorded_files
    from riszoo.training.exchange import halved, with_origin, write_weights

    checkpoint = with_origin(read_checkpoint(source), source)
    if recorded := recorded_files(checkpoint):
        files = ", ".join(entry["file"] for entry in recorded.values())
        raise UserError(f"{source} leaves out the weights of {files}: convert a checkpoint that contains all weights")
    write_weights(halved(checkpoint) if args.half else checkpoint, args.out)
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: {len(checkpoint['state_dict'])} tensors of {checkpoint['riszoo']['class_path']}, {size:.2f} MB")
    return 0
