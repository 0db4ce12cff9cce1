"""The options of a constructor, read from source files: nothing is imported, so a wrong one is reported at once."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

Definition = tuple[str, ast.ClassDef]
"""A class and the module that defines it."""


def options_of(section: str, class_path: str) -> list[str] | None:
    """Every option of a class and its bases, with the fields of option groups; None where the sources do not tell."""
    found = find_class(*_split(class_path))
    options: list[str] = []
    while found is not None:
        module, definition = found
        constructor = _constructor(definition)
        if constructor is not None:
            for argument in (*constructor.args[1:], *constructor.kwonlyargs):
                name = f"--{section}.{argument.arg}"
                options += [name, *(f"{name}.{field}" for field in _group_fields(module, argument.annotation))]
            if constructor.kwarg is None:
                return options
        found = next(_bases(module, definition), None)
    return None


def run_options() -> list[str]:
    """The options of a run, in the section `run`."""
    found = find_class("riszoo.training.lightning_cli", "RunOptions")
    return [f"--run.{field}" for field in _fields(*found)] if found else []


@cache
def trainer_options() -> list[str] | None:
    """The options of Lightning's Trainer; None where its file is not found or takes other ones too."""
    package = PathFinder.find_spec("lightning")
    for folder in package.submodule_search_locations or () if package else ():
        tree = _parsed(Path(folder, "pytorch", "trainer", "trainer.py"))
        for node in tree.body if tree else ():
            constructor = _constructor(node) if isinstance(node, ast.ClassDef) and node.name == "Trainer" else None
            if constructor is not None and constructor.kwarg is None:
                return [f"--trainer.{argument.arg}" for argument in (*constructor.args[1:], *constructor.kwonlyargs)]
    return None


def is_known(name: str, options: list[str]) -> bool:
    """Whether an option exists, or is a key of one that takes a mapping."""
    parts = name.split(".")
    prefixes = [".".join(parts[:end]) for end in range(2, len(parts))]
    taken = [prefix for prefix in prefixes if prefix in options]
    return name in options or any(not any(o.startswith(f"{prefix}.") for o in options) for prefix in taken)


def find_class(module: str, name: str) -> Definition | None:
    """The definition of a class that a module defines or imports from a module of its package or of riszoo."""
    tree = _source(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            original = next((alias.name for alias in node.names if name == (alias.asname or alias.name)), None)
            if original and _package(node.module) in ("riszoo", _package(module)):
                return find_class(node.module, original)
    return None


@cache
def _source(module: str) -> ast.Module | None:
    """The parsed source of a module; None if it is not a Python file."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return _parsed(Path(spec.origin))


def _parsed(path: Path) -> ast.Module | None:
    """The parsed source of a file; None if it cannot be read."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def _split(path: str) -> tuple[str, str]:
    module, _, name = path.rpartition(".")
    return module, name


def _package(module: str) -> str:
    return module.partition(".")[0]


def _constructor(definition: ast.ClassDef) -> ast.arguments | None:
    functions = (node for node in definition.body if isinstance(node, ast.FunctionDef))
    return next((function.args for function in functions if function.name == "__init__"), None)


def _bases(module: str, definition: ast.ClassDef) -> Iterator[Definition]:
    """The bases of a class that can be found."""
    for base in definition.bases:
        found = find_class(module, base.id) if isinstance(base, ast.Name) else None
        if found is not None:
            yield found


def _group_fields(module: str, annotation: ast.expr | None) -> Iterator[str]:
    """The fields of the dataclass that an annotation names, if it names one."""
    for node in ast.walk(annotation) if annotation else ():
        found = find_class(module, node.id) if isinstance(node, ast.Name) else None
        if found is not None and any("dataclass" in ast.unparse(decorator) for decorator in found[1].decorator_list):
            yield from _fields(*found)


def _fields(module: str, definition: ast.ClassDef) -> Iterator[str]:
    for base in _bases(module, definition):
        yield from _fields(*base)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
