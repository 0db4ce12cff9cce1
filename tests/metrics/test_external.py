"""Masks that any other code produced: read, checked and scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from riszoo.cli.score import main as score_verb
from riszoo.data.record import Split
from riszoo.errors import UserError
from riszoo.metrics.external import read_predictions, score
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.resample import foreground
from riszoo.metrics.results import Evaluation, read_evaluation, report
from riszoo.metrics.rle import RunLengths, decode
from tests.support.fake_batches import Blobs, BlobSplit, evaluated


@pytest.fixture(scope="module")
def blobs() -> Blobs:
    return Blobs()


def masks_of(blobs: Blobs) -> dict[str, np.ndarray]:
    """What `predict` writes: each sentence's mask at its image's size, under the default protocol."""
    (original,) = get_protocols("original")
    made = {}
    for sample, logits in zip(blobs.samples, blobs.logits, strict=True):
        geometry = blobs.geometry[int(sample.image_id[1:])]
        made[sample.sentence_id] = foreground(logits, [geometry], [geometry.original], original)[0].numpy()
    return made


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
    assert np.array_equal(scored.evaluation.rows.values, evaluated(blobs, "original").rows.values)
    assert report(scored.evaluation) == report(evaluated(blobs, "original"))


def test_the_verb_scores_a_set_by_name_and_leaves_the_files_of_a_result(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = {}

    class Opened:
        def split(self, name: str) -> Split:
            asked["split"] = name
            return BlobSplit(blobs)

    def opened(name: str, root: str | None = None) -> Opened:
        asked.update(name=name, root=root)
        return Opened()

    monkeypatch.setattr("riszoo.cli.score.load_data", opened)
    masks = masks_of(blobs)
    del masks["s3"]
    folder = as_pngs(masks, tmp_path / "masks")
    line = [str(folder), "--data", "refcoco", "--root", "there", "--split", "testA", "--out", str(tmp_path / "out")]
    assert score_verb([*line, "--protocol", "original,lavt480"]) == 0
    assert asked == {"name": "refcoco", "root": "there", "split": "testA"}
    said = capsys.readouterr().out
    assert "1 sentences have no prediction and count as IoU 0: s3" in said
    assert "lavt480: LAVT" in said
    assert read_evaluation(tmp_path / "out", "val").asked() == blobs.samples
    stated = json.loads((tmp_path / "out" / "run.json").read_text())
    assert stated["missing"] == 1
    assert stated["predictions"] == str(folder)


def test_a_perfect_mask_is_perfect_in_a_square_frame_too(blobs: Blobs, tmp_path: Path):
    masks = {s.sentence_id: blobs.masks[s.index] for s in blobs.samples}
    scored = score(read_predictions(as_pngs(masks, tmp_path)), BlobSplit(blobs), get_protocols("lavt480,original"))
    values = report(scored.evaluation)["protocols"]
    assert values["lavt480"]["values"]["oIoU"] == 100
    assert values["original"]["values"]["gIoU"] == 100


def test_missing_misfit_and_extra_predictions_are_counted_and_named(blobs: Blobs, tmp_path: Path):
    masks = masks_of(blobs)
    nothing_meant = next(s.sentence_id for s in blobs.samples if s.no_target)
    for name in ("s0", nothing_meant):
        del masks[name]
    masks["s1"] = masks["s1"][:-1]
    masks["stranger"] = masks["s2"]
    folder = as_pngs(masks, tmp_path)
    (folder / "s3.png").write_bytes(b"not an image")
    scored = score(read_predictions(folder), BlobSplit(blobs), get_protocols("original,refzom,lisa"))
    assert (scored.missing, scored.unusable, scored.unexpected) == (["s0", nothing_meant], ["s1", "s3"], ["stranger"])
    assert scored.warnings()[0] == f"2 sentences have no prediction and count as IoU 0: s0, {nothing_meant}"
    assert report(scored.evaluation)["unanswered_sentences"] == 4
    rows = scored.evaluation.rows
    lost = rows.take(np.isin(rows.index, [0, 1, 3, int(nothing_meant[1:])]))
    for protocol in report(Evaluation(lost, blobs.samples))["protocols"].values():
        assert protocol["values"].get("gIoU", 0) == 0
        assert protocol["values"].get("acc", 0) == 0


def test_a_file_may_say_that_nothing_is_meant(blobs: Blobs, tmp_path: Path):
    path = as_json(masks_of(blobs), tmp_path / "masks.json", "list")
    content = json.loads(path.read_text())
    path.write_text(json.dumps([{**entry, "no_target": entry["id"] == "s4"} for entry in content]))
    rows = score(read_predictions(path), BlobSplit(blobs), get_protocols("rela")).evaluation.rows
    assert rows.values[:, 2].tolist() == [int(i == 4) for i in range(21)]


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (40, 33)])
def test_run_lengths_decode_as_the_mask_api_does(shape: tuple[int, int]):
    rng = np.random.default_rng(3)
    for density in (0.0, 0.02, 0.5, 1.0):
        mask = rng.uniform(size=shape) < density
        filed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        text = RunLengths.read({"size": filed["size"], "counts": filed["counts"].decode()}, "here")
        assert np.array_equal(decode(text, shape), mask)


@pytest.mark.parametrize(
    "counts", ["", "P" * 50, "o" * 10**5, "0", [4, -1, 3], [3, 4], [10**12, 1], [], "11111"], ids=lambda c: str(c)[:12]
)
def test_run_lengths_that_do_not_fill_the_image_are_refused(counts: object):
    assert decode(RunLengths.read({"size": [2, 3], "counts": counts}, "here"), (2, 3)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "not valid JSON"),
        ("3", "neither a list nor a dict"),
        ('[{"segmentation": {}}]', "prediction 0 of .* has no 'id'"),
        ('{"s0": 5}', "must be an RLE"),
        ('{"s0": {"size": [2], "counts": "a"}}', r"size is \[2\]"),
        ('{"s0": {"size": [2, 2], "counts": "\\u00e9"}}', "neither COCO's compressed text"),
        ('{"s0": {"size": [2, 2], "counts": [1.5]}}', "neither COCO's compressed text"),
        ('[{"id": 1, "segmentation": {"size": [1, 1], "counts": [1]}, "no_target": 2}]', "'no_target' is 2"),
        ('[{"id": 1, "segmentation": {"size": [1, 1], "counts": [1]}}, {"id": "1", "segmentation": {"size": [1, 1],'
         ' "counts": [1]}}]', "two predictions for sentence '1'"),
    ],
)  # fmt: skip
def test_a_wrong_file_of_predictions_is_explained(content: str, message: str, tmp_path: Path):
    path = tmp_path / "predictions.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_predictions(path)


def test_a_place_without_predictions_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(tmp_path / "nowhere")
