"""Pickles of untrusted files: an unpickler that takes no more memory than its pickle accounts for."""

from __future__ import annotations

import io
import pickle
import pickletools

ARGUMENTS = {ord(op.code): op.arg.n if op.arg else 0 for op in pickletools.opcodes}
"""The number of bytes that follow each opcode; a negative one says how they end, as pickletools defines it."""
WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Arguments that begin with their own size, in so many bytes."""
TWO_LINES = b"ci"
"""Opcodes that are followed by a module and a name, each on its line."""
PUT, LONG_BINPUT, STOP = b"pr."


class Unpickler(pickle.Unpickler):
    """An unpickler whose subclass decides which classes it gives; `pickle.Unpickler` sizes its memo by any index."""

    def __init__(self, content: bytes | bytearray, encoding: str = "ASCII") -> None:
        _check_memo(content)
        super().__init__(io.BytesIO(content), encoding=encoding)


def _check_memo(content: bytes | bytearray) -> None:
    """Raise UnpicklingError where an object is stored in the memo at an index that no pickle of this size reaches.

    The arguments are skipped, not decoded: pickletools.genops refuses text of Python 2 that is not ASCII.
    """
    position, size = 0, len(content)
    while position < size:
        code = content[position]
        if code == STOP:  # what follows is never read
            return
        start, length = position + 1, ARGUMENTS.get(code)
        if length is None:
            raise pickle.UnpicklingError(f"an unknown opcode {code}")
        if length in WIDTHS:
            width = WIDTHS[length]
            end = start + width + int.from_bytes(content[start : start + width], "little")
        elif length < 0:
            end = _after_lines(content, start, 2 if code in TWO_LINES else 1)
        else:
            end = start + length
        if code in (PUT, LONG_BINPUT) and _index(code, content[start:end]) > size:
            raise pickle.UnpicklingError("a memo that is larger than the pickle")
        position = end


def _index(code: int, argument: bytes | bytearray) -> int:
    return int(argument) if code == PUT else int.from_bytes(argument, "little")


def _after_lines(content: bytes | bytearray, start: int, lines: int) -> int:
    for _ in range(lines):
        start = content.find(b"\n", start) + 1
        if not start:
            raise pickle.UnpicklingError("a line without an end")
    return start
