"""Readers by name, and the published sizes."""

from __future__ import annotations

import pytest

from riszoo.data.readers.catalogue import READERS, get_reader
from riszoo.errors import UserError


def test_a_name_nearly_right_is_answered_with_the_right_one():
    with pytest.raises(UserError, match="did you mean 'phrasecut'"):
        get_reader("phrasecuts")
    with pytest.raises(UserError, match="umd, google"):
        get_reader("refcocog", "unc")
    assert get_reader("refcocog", "google") is READERS["refcocog-google"]


def test_published_columns_add_up():
    def total(name: str, place: int) -> int:
        return sum(counts[place] for counts in READERS[name].published.values())

    assert (total("refcoco", 0), total("refcoco", 1), total("refcoco", 2)) == (50_000, 142_210, 19_994)
    assert (total("refcoco+", 0), total("refcoco+", 1), total("refcoco+", 2)) == (49_856, 141_564, 19_992)
    assert (total("refcocog", 0), total("refcocog", 1), total("refcocog", 2)) == (49_822, 95_010, 25_799)
    assert total("refcocog-google", 2) == 25_799 + 3_549
    assert (total("phrasecut", 1), total("phrasecut", 2)) == (345_486, 77_262)
