"""`riszoo convert FILE`: a checkpoint, published or riszoo's own, as weights with the model's options."""

from __future__ import annotations

from pathlib import Path

from riszoo.cli.parser import CommandParser
from riszoo.errors import UserError
from riszoo.training import runs


def parser() -> CommandParser:
    parser = CommandParser(prog="riszoo convert", description=__doc__)
    parser.add_argument("file", help="a checkpoint of riszoo, or one that a model's authors have published")
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors or .ckpt file")
    return parser


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    source = runs.existing(args.file)
    if args.out.suffix not in (".safetensors", ".ckpt"):
        raise UserError(f"--out {args.out} has an unknown format: give a .safetensors or .ckpt file")
    if args.out.exists():
        raise UserError(f"{args.out} exists already: choose another --out")
    from riszoo.training.checkpoints import read_checkpoint, recorded_files
    from riszoo.training.exchange import write_weights

    checkpoint = read_checkpoint(source)
    if recorded := recorded_files(checkpoint):
        files = ", ".join(entry["file"] for entry in recorded.values())
        raise UserError(f"{source} leaves out the weights of {files}: convert a checkpoint that contains all weights")
    write_weights(checkpoint, args.out)
    print(f"{args.out}: {len(checkpoint['state_dict'])} tensors of {checkpoint['riszoo']['class_path']}")
    return 0
