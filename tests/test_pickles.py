"""The unpickler of untrusted files: the memory that it takes, and that it reads what Python writes."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import pytest

from riszoo.pickles import Unpickler

VALUE: Any = {
    "text": ["a\nb", "\u00e4 " * 200, b"raw\n"],
    "numbers": (1, -70_000, 1 << 80, 2.5, True, None),
    "set": {3},
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(protocol: int) -> None:
    value = [VALUE, VALUE, list(range(1000)), [str(number) for number in range(1000)]]
    content = pickle.dumps(value, protocol)
    assert Unpickler(content).load() == value
    assert Unpickler(content + b"r\xff\xff\xff\xff").load() == value, "what follows the end is not read"


def test_text_of_python_2_is_read() -> None:
    content = b"(lp1\nS'caf\\xe9'\np2\na."
    assert Unpickler(content, encoding="latin-1").load() == ["caf\u00e9"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\x00\x00\x00\x7f.",
        b"]p99999999\n.",
        b"X\x01\x00\x00\x00a0cos\nname\n0]r\x00\x00\x00\x7f.",
        b"\xff]r\x00\x00\x00\x7f.",
        b"cos",
    ],
    ids=["binary", "text", "after a class", "unknown opcode", "cut"],
)
def test_a_memo_larger_than_the_pickle_is_refused(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(pickle.UnpicklingError, match=r"larger than the pickle|unknown opcode|without an end"):
            Unpickler(content).load()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
