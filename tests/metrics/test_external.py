"""Masks that any other code predicted: read, validated and scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from riszoo.cli.score import main as score_command
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.metrics.external import read_predictions, score
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.resample import foreground
from riszoo.metrics.results import Evaluation, read_evaluation, report
from tests.support.fake_batches import Blobs, BlobSplit, evaluated


def masks_of(blobs: Blobs) -> dict[str, np.ndarray]:
    """The masks that `predict` writes: at image size, under the default protocol."""
    (original,) = get_protocols("original")
    masks = {}
    for sample, logits in zip(blobs.samples, blobs.logits, strict=True):
        geometry = blobs.geometry[int(sample.image_id[1:])]
        masks[sample.sentence_id] = foreground(logits, [geometry], [geometry.original], original)[0].numpy()
    return masks


def as_pngs(masks: dict[str, np.ndarray], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, mask in masks.items():
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def as_json(masks: dict[str, np.ndarray], path: Path, shape: str) -> Path:
    rles = {name: coco.encode(np.asfortranarray(mask.astype(np.uint8))) for name, mask in masks.items()}
    plain = {name: {"size": r["size"], "counts": r["counts"].decode()} for name, r in rles.items()}
    listed = [{"id": name, "segmentation": rle} for name, rle in plain.items()]
    path.write_text(json.dumps(plain if shape == "dict" else listed))
    return path


@pytest.mark.parametrize("shape", ["png", "list", "dict"])
def test_predicted_then_scored_equals_tested(shape: str, blobs: Blobs, tmp_path: Path):
    masks = masks_of(blobs)
    path = as_pngs(masks, tmp_path / "masks") if shape == "png" else as_json(masks, tmp_path / "masks.json", shape)
    scored = score(read_predictions(path), BlobSplit(blobs), get_protocols("original"))
    assert not scored.warnings()
    assert np.array_equal(scored.evaluation.table.values, evaluated(blobs, "original").table.values)
    assert report(scored.evaluation) == report(evaluated(blobs, "original"))


def test_the_command_scores_a_data_set_by_name_and_writes_a_result(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    requested = {}

    class Opened:
        def split(self, name: str) -> Split:
            requested["split"] = name
            return BlobSplit(blobs)

    def opened(name: str, root: str | None = None) -> Opened:
        requested.update(name=name, root=root)
        return Opened()

    monkeypatch.setattr("riszoo.cli.score.load_data", opened)
    masks = masks_of(blobs)
    del masks["s3"]
    folder = as_pngs(masks, tmp_path / "masks")
    line = [str(folder), "--data", "refcoco", "--root", "folder", "--split", "testA", "--out", str(tmp_path / "out")]
    assert score_command([*line, "--protocol", "original,lavt480"]) == 0
    assert requested == {"name": "refcoco", "root": "folder", "split": "testA"}
    printed = capsys.readouterr().out
    assert "1 sentences have no prediction and count as IoU 0: s3" in printed
    assert "lavt480: LAVT" in printed
    assert read_evaluation(tmp_path / "out", "val").row_samples() == blobs.samples
    circumstances = json.loads((tmp_path / "out" / "run.json").read_text())
    assert circumstances["missing"] == 1
    assert circumstances["predictions"] == str(folder)
    assert (circumstances["data"], circumstances["root"]) == ("refcoco", str(Path("folder").resolve()))
    assert circumstances["command"].startswith(f"riszoo score {folder} --data refcoco")


def test_perfect_masks_score_100_in_a_square_frame_too(blobs: Blobs, tmp_path: Path):
    masks = {s.sentence_id: blobs.masks[s.index] for s in blobs.samples}
    scored = score(read_predictions(as_pngs(masks, tmp_path)), BlobSplit(blobs), get_protocols("lavt480,original"))
    values = report(scored.evaluation)["protocols"]
    assert values["lavt480"]["values"]["oIoU"] == 100
    assert values["original"]["values"]["gIoU"] == 100


def test_missing_unusable_and_unexpected_predictions_are_counted_and_named(blobs: Blobs, tmp_path: Path):
    masks = masks_of(blobs)
    no_target = next(s.sentence_id for s in blobs.samples if s.no_target)
    for name in ("s0", no_target):
        del masks[name]
    masks["s1"] = masks["s1"][:-1]
    masks["unknown"] = masks["s2"]
    folder = as_pngs(masks, tmp_path)
    (folder / "s3.png").write_bytes(b"not an image")
    scored = score(read_predictions(folder), BlobSplit(blobs), get_protocols("original,refzom,lisa"))
    assert (scored.missing, list(scored.unusable), scored.unexpected) == (["s0", no_target], ["s1", "s3"], ["unknown"])
    assert scored.warnings()[0] == f"2 sentences have no prediction and count as IoU 0: s0, {no_target}"
    assert report(scored.evaluation)["missing_predictions"] == 4
    table = scored.evaluation.table
    without_mask = table.take(np.isin(table.index, [0, 1, 3, int(no_target[1:])]))
    for protocol in report(Evaluation(without_mask, blobs.samples))["protocols"].values():
        assert protocol["values"].get("gIoU", 0) == 0
        assert protocol["values"].get("acc", 0) == 0


def test_a_file_may_contain_the_prediction_of_a_no_target_head(blobs: Blobs, tmp_path: Path):
    path = as_json(masks_of(blobs), tmp_path / "masks.json", "list")
    content = json.loads(path.read_text())
    path.write_text(json.dumps([{**entry, "no_target": entry["id"] == "s4"} for entry in content]))
    table = score(read_predictions(path), BlobSplit(blobs), get_protocols("rela")).evaluation.table
    assert table.head.tolist() == [int(i == 4) for i in range(21)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "not valid JSON"),
        ("3", "neither a list nor a dict"),
        ("[]", "contains no predictions"),
        ("{}", "contains no predictions"),
        ('[{"segmentation": {}}]', "prediction 0 of .* has no 'id'"),
        ('{"s0": 5}', "prediction 0 of .* lacks 'size' or 'counts'"),
        ('{"s0": {"size": [2], "counts": "a"}}', r"size of an RLE is \[2\]"),
        ('{"s0": {"size": [2, 2], "counts": "a b"}}', "characters outside COCO's alphabet"),
        ('{"s0": {"size": [2, 2], "counts": [1.5]}}', "not a list of whole numbers"),
        ('{"s0": {"size": [2, 2], "counts": [3]}}', "do not add up"),
        ('[{"id": 1, "segmentation": {"size": [1, 1], "counts": [1]}, "no_target": 2}]', "'no_target' is 2"),
        ('{"a": {"size": [1, 1], "counts": [1]}, "a": {"size": [1, 1], "counts": [0, 1]}}', "'a' twice in one object"),
        ('[{"id": 1, "segmentation": {"size": [1, 1], "size": [1, 1], "counts": [1]}}]', "'size' twice in one object"),
        ('[{"id": 1, "segmentation": {"size": [1, 1], "counts": [1]}}, {"id": "1", "segmentation": {"size": [1, 1],'
         ' "counts": [1]}}]', "two predictions for sentence '1'"),
    ],
)  # fmt: skip
def test_an_invalid_file_of_predictions_is_an_error(content: str, message: str, tmp_path: Path):
    path = tmp_path / "predictions.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_predictions(path)


def test_a_path_without_predictions_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="contains no predictions"):
        read_predictions(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(tmp_path / "missing")
