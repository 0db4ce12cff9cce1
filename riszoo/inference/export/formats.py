"""The formats of an exported graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from riszoo.errors import UserError
from riszoo.inference.export.graphs import Graph

Write = Callable[[Graph, list[str], Path], None]
OPSET = 20


class Format(NamedTuple):
    """How a graph is written, and the suffix of its file."""

    suffix: str
    write: Write


@contextmanager
def without_log() -> Iterator[None]:
    """Silence the log of converters, which warn of constants they do not fold; the results are checked afterwards."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def write_onnx(graph: Graph, outputs: list[str], path: Path) -> None:
    """An ONNX file; the weights are beside it where they are above 2 GB."""
    try:
        with without_log():
            written = torch.onnx.export(
                graph.program,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                input_names=graph.input_names(),
                output_names=outputs,
            )
    except Exception as error:  # the converter raises nearly anything
        reason = " ".join(str(error).split())[-200:]
        raise UserError(f"{path.name} cannot be converted to ONNX: {reason}; use --format torch_export") from error
    assert written is not None
    written.save(path)


def write_torch(graph: Graph, _outputs: list[str], path: Path) -> None:
    """A file of torch.export, whose outputs have no names."""
    torch.export.save(graph.program, path)


FORMATS = {"onnx": Format(".onnx", write_onnx), "torch_export": Format(".pt2", write_torch)}
