"""What the documentation shows: its commands, options, code blocks and links, read from the Markdown files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
PAGES += sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "notebooks")  # outputs

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4,}\S.*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)*)`")
OPTIONAL = re.compile(r"\[(--[^\]]*)\]")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A `riszoo` command: the words after the program's name.

    where   page and line
    whole   whether it can be run as written; in running text the required options may be missing
    """

    where: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.where} riszoo {shlex.join(self.words)}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[Block]:
    """Fenced blocks, then blocks that are indented by four spaces."""
    fenced = [Block(m[2], m[3], text.count("\n", 0, m.start(3)) + 1) for m in FENCE.finditer(text)]
    indented = [Block("", m[0], text.count("\n", 0, m.start()) + 1) for m in INDENTED.finditer(prose(text))]
    return fenced + indented


def prose(text: str) -> str:
    """The text with its fenced blocks emptied; line numbers stay."""
    return FENCE.sub(lambda m: "\n" * m[0].count("\n"), text)


def inline(text: str) -> Iterator[tuple[str, int]]:
    """The spans in backticks of the running text, on one line each, and the lines where they begin."""
    running = INDENTED.sub(lambda m: "\n" * m[0].count("\n"), prose(text))
    for match in INLINE.finditer(running):
        yield " ".join(match[1].split()), running.count("\n", 0, match.start()) + 1


def commands(page: Path) -> list[Command]:
    """Every `riszoo` command of a page."""
    text, found = page.read_text(), []
    for block in blocks(text):
        for number, line in joined_lines(block):
            found.append((number, command_words(line), True))
    found += [(number, command_words(span), False) for span, number in inline(text)]
    return [Command(f"{name_of(page)}:{number}", words, whole) for number, words, whole in found if words]


def joined_lines(block: Block) -> Iterator[tuple[int, str]]:
    """The lines of a block with their numbers; a line that ends in a backslash goes on in the next."""
    number = block.line
    for line in re.sub(r"\\\n *", "\0", block.text).splitlines():
        yield number, line.replace("\0", " ")
        number += 1 + line.count("\0")


def command_words(line: str) -> tuple[str, ...]:
    """The words after `riszoo` of a command line; none for another program's line.

    `[--option value]` counts as given and `a|b` as `a`; two spaces, a redirection or a `#` end the command.
    """
    start = re.match(r"\s*(?:\$ )?(?:\.venv/bin/|[\w .-]* -m )?riszoo +(?=[a-z])", line)
    if start is None:
        return ()
    command, *_remark = re.split(r" {2,}| [<>] ", line[start.end() :].strip())
    words = shlex.split(OPTIONAL.sub(r"\1", command), comments=True)
    return tuple(word.split("|")[0] for word in words if word != "...")


def options(page: Path) -> list[tuple[str, str]]:
    """(where, option) for every `--option` that a page shows in backticks, or at the start of a line in a block."""
    text = page.read_text()
    shown = list(inline(text)) + [(line, number) for block in blocks(text) for number, line in joined_lines(block)]
    return [
        (f"{name_of(page)}:{number}", option)
        for shown_text, number in shown
        if shown_text.lstrip().startswith("--")
        for option in option_names(shown_text)
    ]


def option_names(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)


def links(page: Path) -> list[str]:
    """The files that a page links to, relative to its folder."""
    targets = re.findall(r"\]\(([^)#\s]+)", prose(page.read_text()))
    return [target for target in targets if "://" not in target]
