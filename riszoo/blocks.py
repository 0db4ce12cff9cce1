"""The repeated blocks of a model, which are compiled one by one.

A block is a module with children of which a list contains two or more of one class, such as a layer of a transformer or
a residual block. Of nested ones the innermost count, so that equal blocks share one compiled graph.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import nn

from riszoo.errors import UserError

if TYPE_CHECKING:
    from riszoo.model import RISModule

BACKEND = "inductor"
"""Of torch.compile."""

VARIANTS = 64
"""How many shapes and modes of one function are compiled before torch falls back to eager: stages differ in width."""


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks inside a module, in its order."""
    kinds = Counter(type(child) for child in module.children() if isinstance(module, nn.ModuleList | nn.Sequential))
    blocks: dict[nn.Module, None] = {}  # a dict rather than a list: a module that occurs twice counts once
    for child in module.children():
        inner = repeated_blocks(child)
        repeated = kinds[type(child)] > 1 and any(True for _ in child.children())
        blocks.update(dict.fromkeys(inner or ([child] if repeated else [])))
    return list(blocks)


def compile_blocks(model: RISModule, device: str) -> None:
    """Compile each repeated block when it is first called; what is between the blocks stays eager.

    Names of parameters stay as they are. Sentences are padded to the encoder's length, so that shapes do not change.
    """
    if BACKEND == "inductor":
        check_compiler(device)
    model.text.fixed_length = True
    torch._dynamo.config.recompile_limit = VARIANTS
    for block in repeated_blocks(model):
        block.compile(backend=BACKEND)


def check_compiler(device: str) -> None:
    """Raise UserError where torch.compile lacks what it writes its kernels with: C++, and Triton on GPUs."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"--compile needs a C++ compiler and {compiler} is not installed: install it, or set CXX")
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("--compile needs Triton on a GPU: install it (pip install triton), or leave --compile out")
