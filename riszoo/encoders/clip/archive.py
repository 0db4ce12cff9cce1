"""OpenAI's CLIP archives, read as data.

They are TorchScript files: a zip of a pickled tree of objects, raw tensors, and code. The code is never read. The
pickle may name only what describes tensors; an object of any other class becomes a `Node`, a set of attributes.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riszoo.errors import UserError
from riszoo.files import Unpickler

State = dict[str, Tensor]
ARCHIVES = {
    f"{name}.pt": f"https://openaipublic.azureedge.net/clip/models/{digest}/{name}.pt"
    for name, digest in {
        "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        "ViT-B-16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    }.items()
}
"""Where OpenAI publishes its files; the long part of an address is the file's SHA-256."""
STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Half": torch.float16,
        "Float": torch.float32,
        "Double": torch.float64,
        "Long": torch.int64,
        "Int": torch.int32,
        "Bool": torch.bool,
    }.items()
}
DEEPEST = 32
"""Levels of modules within modules."""


class Node:
    """An object of the archive: its parameters, buffers, modules and plain attributes, by name."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict) and all(isinstance(name, str) for name in state):
            self.attributes = state


class ForbiddenError(pickle.UnpicklingError):
    """The pickle names something that does not describe a tensor."""


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    folder = names[0].partition("/")[0] if names else ""
    return f"{folder}/constants.pkl" in names and any(name.startswith(f"{folder}/code/") for name in names)


def read_archive(path: Path) -> State:
    """The named tensors of an archive, floating-point ones as float32."""
    try:
        with zipfile.ZipFile(path) as file:
            root = _Reader(file, path).load()
        state = dict(_named_tensors(root))
    except ForbiddenError as error:
        raise UserError(
            f"{path} contains {error!s:.100}, which is never loaded: give an archive that OpenAI has published"
        ) from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(
            f"{path} is a damaged TorchScript archive ({type(error).__name__}): download it again"
        ) from None
    if not state:
        raise UserError(f"{path} is a TorchScript archive without named tensors: give one of OpenAI's CLIP archives")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


class _Reader(Unpickler):
    """Unpickles the tree of objects of an archive without importing or calling anything that it names."""

    def __init__(self, file: zipfile.ZipFile, path: Path) -> None:
        members = file.infolist()
        if sum(member.compress_size for member in members) > path.stat().st_size:
            raise ValueError("members that overlap")
        self.file, self.folder = file, members[0].filename.partition("/")[0]
        self.storages: State = {}
        super().__init__(self._content("data.pkl"))

    def _content(self, name: str) -> bytearray:
        """A member of the archive; only code is compressed, so no member expands to more than is in the file."""
        member = self.file.getinfo(f"{self.folder}/{name}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError("a compressed member")
        return bytearray(self.file.read(member))

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return Node
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # lists and dictionaries of plain values, with their types
            return _first
        raise ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage as a vector of its elements."""
        kind, dtype, name, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(name, str):
            raise ValueError("an unknown kind of storage")
        if name not in self.storages:
            content = self._content(f"data/{name}")
            self.storages[name] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        storage = self.storages[name]
        if storage.dtype != dtype or len(storage) != count:
            raise ValueError("a storage of another size")
        return storage


def _first(value: object, *_: object) -> object:
    return value


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """The tensor that these numbers describe, which must lie within its storage."""
    if not isinstance(storage, Tensor) or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise ValueError("an invalid tensor")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    count = torch.Size(size).numel()
    if count > len(storage) or (count and last >= len(storage)):
        raise ValueError("a tensor beyond its storage")
    return storage.as_strided(size, stride, offset)


def _named_tensors(root: object) -> Iterator[tuple[str, Tensor]]:
    """The tensors below an object, with dotted names."""
    visited: set[int] = set()
    todo: list[tuple[str, object, int]] = [("", root, 0)]
    while todo:
        name, value, depth = todo.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Node) and id(value) not in visited:
            if depth > DEEPEST:
                raise ValueError("modules that are nested too deeply")
            visited.add(id(value))
            prefix = f"{name}." if name else ""
            todo += [(prefix + key, inner, depth + 1) for key, inner in reversed(value.attributes.items())]
