"""The table of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from riszoo.errors import UserError
from riszoo.metrics.protocols import PROTOCOLS
from riszoo.metrics.sentence_table import SentenceTable, width


def test_a_sentence_evaluated_twice_is_an_error():
    protocol = PROTOCOLS["original"]
    values = np.zeros((3, width([protocol])), np.int64)
    values[:, 0] = [4, 2, 4]
    with pytest.raises(UserError, match="sentence 4 of the split was evaluated twice"):
        SentenceTable.sort([protocol], values)
