"""The layout rules hold, and the pages about the code name what exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.pages import ROOT, inline

ABOUT_THE_CODE = [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"]
INVENTED = {"riszoo/models/mine.py", "configs/models/mine.yaml"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "riszoo").rglob("*.py")
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(module: str) -> set[str]:
    """The modules of the package that a module imports, anywhere but for type checking."""
    nodes, found = [tree(MODULES[module])], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= full or {node.module} & MODULES.keys()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & MODULES.keys()
        nodes += list(ast.iter_child_nodes(node))
    return found


def reachable(module: str) -> set[str]:
    seen: set[str] = set()
    todo = list(imports(module))
    while todo:
        found = todo.pop()
        if found not in seen:
            seen.add(found)
            todo += imports(found)
    return seen


def test_no_module_imports_itself_in_a_circle() -> None:
    assert [module for module in MODULES if module in reachable(module)] == []


def test_no_folder_has_more_than_fourteen_modules() -> None:
    folders = {path.parent for path in MODULES.values()}
    counts = {folder: len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > 14} == {}


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES.values()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_two_modules_differ_by_number_or_tense_only() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        names = [path.stem for path in folder.glob("*.py")]
        stems = [re.sub(r"(ing|ed|es|s|e)$", "", name) for name in names]
        assert [name for name, stem in zip(names, stems, strict=True) if stems.count(stem) > 1] == []


def top(module: str) -> str:
    """The folder of a module, or `` for the modules at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "riszoo" / parts[1]).is_dir() else ""


def test_folders_import_what_the_architecture_page_says() -> None:
    rows = re.findall(r"^\| `riszoo/(\w+)/` \|.*\| ([^|]*) \|$", ABOUT_THE_CODE[0].read_text(), re.MULTILINE)
    drawn = {folder: set(re.findall(r"`(\w+)`", named)) for folder, named in rows}
    real: dict[str, set[str]] = {folder: set() for folder in drawn}
    for module in MODULES:
        if top(module):
            real[top(module)] |= {top(found) for found in imports(module)} - {"", top(module)}
    assert drawn == real


@pytest.mark.parametrize("page", ABOUT_THE_CODE, ids=lambda page: page.name)
def test_a_file_that_a_page_names_exists(page: Path) -> None:
    spans = [span for span, _ in inline(page.read_text())]
    paths = [span for span in spans if re.fullmatch(r"(riszoo|configs|tests|docs|benchmarks)/[\w./+-]*", span)]
    assert [path for path in paths if path not in INVENTED and not (ROOT / path).exists()] == []


@cache
def definitions(path: Path) -> set[str]:
    """Functions, classes, `Class.method` and assigned names of a module."""
    found = set()
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


@pytest.mark.parametrize("page", ABOUT_THE_CODE, ids=lambda page: page.name)
def test_a_function_that_a_page_places_in_a_file_is_there(page: Path) -> None:
    pairs = re.findall(r"`(riszoo/[\w/]+\.py)`,\s+`([\w.]+)`", page.read_text())
    assert [(path, name) for path, name in pairs if name not in definitions(ROOT / path)] == []


@pytest.mark.parametrize("page", ABOUT_THE_CODE, ids=lambda page: page.name)
def test_a_class_that_a_page_names_exists(page: Path) -> None:
    spans = {span for span, _ in inline(page.read_text())}
    classes = {span for span in spans if re.fullmatch(r"([A-Z][a-z]+|[A-Z]+)+[a-z]\w*(\.\w+)?", span)}
    known = set().union(*map(definitions, MODULES.values()))
    assert classes - known == set()
