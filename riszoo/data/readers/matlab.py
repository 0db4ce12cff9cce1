"""One matrix of a MATLAB 5 file.

Written here because scipy.io.loadmat crashes the process (a segmentation fault, not an exception) when the type code of
a matrix's data is damaged, and masks are files from unknown sources.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MATRIX, COMPRESSED = 14, 15  # element types
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


def read_matrix(content: bytes, name: str, limit: int) -> NDArray[np.generic]:
    """The real matrix of that name, of at most `limit` bytes; ValueError where there is none or it is damaged."""
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB 5 file")
    order = "<" if content[126:128] == b"IM" else ">"
    for kind, element in _elements(content[128:], order):
        if kind == COMPRESSED:
            kind, element = next(_elements(_decompress(element, limit), order), (0, b""))
        if kind == MATRIX:
            found, matrix = _matrix(element, order)
            if found == name:
                return matrix
    raise ValueError(f"it contains no matrix '{name}'")


def _decompress(element: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(element, limit)
    except zlib.error as error:
        raise ValueError(f"its compressed data is damaged ({error})") from error
    if stream.unconsumed_tail:
        raise ValueError(f"a matrix decompresses to more than {limit:,} bytes")
    return content


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of each element; up to four bytes of content may lie in the tag itself."""
    start = 0
    while start + 8 <= len(content):
        kind, length = struct.unpack_from(f"{order}II", content, start)
        if kind >> 16:  # the short form
            kind, length, first, start = kind & 0xFFFF, kind >> 16, start + 4, start + 8
        else:
            first = start + 8
            start = first + length + (-length % 8 if kind != COMPRESSED else 0)
        if first + length > len(content):
            raise ValueError("it is truncated")
        yield kind, content[first : first + length]


def _matrix(element: bytes, order: str) -> tuple[str, NDArray[np.generic]]:
    """Name and values of a matrix element; anything but a real numeric matrix has no name."""
    flags, dims, name, real, *_ = [*_elements(element, order), *[(0, b"")] * 4]
    if flags[0] != 6 or real[0] not in NUMBERS:
        return "", np.zeros(0)
    shape = np.frombuffer(dims[1], f"{order}i4")
    values = np.frombuffer(real[1], order + NUMBERS[real[0]])
    return name[1].decode("latin-1"), values.reshape(shape, order="F")
