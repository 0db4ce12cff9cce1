"""The files of `riszoo segment` beside those of other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from riszoo.cli.inference.files import Results
from riszoo.inference.predictions import Prediction


def test_entries_of_another_form_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "predictions.json"
    (tmp_path / "old-1.png").touch()
    file.write_text(json.dumps([{"id": [1]}, {"id": "a" * 5000}, {"id": "a\0"}, {"id": "../x"}, 3, {"id": "old-1"}]))
    results = Results(tmp_path, as_json=True, explain=False)
    results.add("a.png", np.zeros((4, 6, 3), np.uint8), Prediction("a-1", "it", np.ones((4, 6), bool), 0.5, None))
    results.close()
    assert [entry["id"] for entry in json.loads(file.read_text())] == ["old-1", "a-1"]
