"""The demo: its answers and limits, its server with a bounded queue, and its page in a browser."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import riszoo
from riszoo.cli.main import main
from riszoo.errors import UserError
from riszoo.inference.demo import service as demo
from riszoo.inference.demo.service import Answer, Service
from riszoo.inference.predictor import Predictor
from riszoo.training import runs
from tests.support.devtools import Tab, browser
from tests.support.small_run import scene, small_run
from tests.support.visitors import visits

SENTENCES = "the red star\n\n  the box \n"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return riszoo.load("lts", runs.checkpoint(small_run(tmp_path_factory.mktemp("runs"))))


@pytest.fixture(scope="module")
def service(predictor: Predictor) -> Service:
    return Service({"lts": predictor, "lts again": predictor})


def answer(service: Service, image: str | None = "a.png", text: str = SENTENCES, **options: Any) -> Answer:
    scene().save("a.png")
    given = {"names": ["lts", "lts again"], "threshold": 0.5, "evidence": True, **options}
    return service.answer(image, text, given["names"], given["threshold"], evidence=given["evidence"])


# -- answers ----------------------------------------------------------------------------------------------------------


def test_each_sentence_has_the_masks_of_all_models(service: Service) -> None:
    found = answer(service)
    assert [caption.split(",")[0] for _, caption in found.masks] == [
        f"{text} · {model}" for text in ("the red star", "the box") for model in ("lts", "lts again")
    ]
    assert {image.size for image, _ in found.masks} == {(90, 60)}
    assert found.evidence
    assert answer(service, evidence=False).evidence == []
    assert len(answer(service, names=["lts"]).masks) == 2


def test_the_threshold_is_the_probability_that_a_mask_exceeds(predictor: Predictor) -> None:
    found = [predictor.at_threshold(p).segment(scene(), "the star")[0] for p in (0.05, 0.5, 0.95)]
    sizes, scores = [each.mask.sum() for each in found], [each.score for each in found]
    assert sizes[0] >= sizes[1] >= sizes[2]
    assert sizes[0] > sizes[2]
    assert scores[0] < scores[1], "the mean over the cells of the mask"
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(UserError, match="give a probability above 0 and below 1"):
            predictor.at_threshold(wrong)
    same = predictor.at_threshold(0.5).segment(scene(), "the star")[0]
    assert np.array_equal(same.mask, predictor.segment(scene(), "the star")[0].mask)
    assert predictor.at_threshold(0.3).model is predictor.model


def test_large_images_are_reduced_and_many_maps_cut(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SIDE", 48)
    monkeypatch.setattr(demo, "MOST_MAPS", 1)
    found = answer(service)
    assert {image.size for image, _ in found.masks} == {(48, 32)}
    assert len(found.evidence) == 1
    assert "the first 1 of" in found.notes[-1]


def test_words_that_a_model_does_not_know_are_named(service: Service) -> None:
    notes = answer(service, text="the zebra", names=["lts"]).notes
    assert notes == ["lts was trained without the words: zebra"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None}, "the image is missing"),
        ({"image": "absent.png"}, "is not an image that can be read"),
        ({"image": "text.png"}, "is not an image that can be read"),
        ({"image": "cut.png"}, "the image is damaged"),
        ({"image": "large.png"}, "the image has 6000 x 5000 pixels: give at most 24 million"),
        ({"image": "heavy.png"}, "the file has 17 MiB: give at most 16 MiB"),
        ({"text": " \n"}, "the sentence is missing"),
        ({"text": "a\n" * 9}, "9 sentences: give at most 8"),
        ({"text": "a" * 301}, "a sentence of 301 characters"),
        ({"names": []}, "no model is chosen"),
        ({"names": ["lst"]}, "did you mean 'lts'"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"threshold": 1.0}, "threshold 1: give a probability"),
    ],
)
def test_a_request_outside_the_limits_is_one_sentence(options: dict[str, Any], message: str, service: Service) -> None:
    scene().save("whole.png")
    make = {
        "text.png": lambda: Path("text.png").write_text("no image"),
        "cut.png": lambda: Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:900]),
        "large.png": lambda: Image.new("1", (6000, 5000)).save("large.png"),
        "heavy.png": lambda: Path("heavy.png").write_bytes(bytes(17 << 20)),
    }
    make.get(options.get("image", ""), lambda: None)()
    with pytest.raises(UserError, match=message) as caught:
        answer(service, **options)
    assert "/" not in str(caught.value), "no path of the server"


# -- the verb ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "ltz"], "did you mean 'lts'"),
        (["--model", "lts", "--data", "refcoco"], "no run of 'lts' on 'refcoco'"),
        (["--port", "0"], "--port 0: give a number"),
        (["--queue", "0"], "--queue 0: give at least 1"),
        (["--model", "vipa", "--ckpt_path", "absent.ckpt"], "absent.ckpt is not a file"),
    ],
)
def test_a_wrong_option_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_gradio_the_command_that_installs_it_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "riszoo: the demo needs gradio: pip install 'riszoo[demo]'\n"


# -- the server -------------------------------------------------------------------------------------------------------


@dataclass
class Gate:
    """A service whose answers wait while the gate is closed."""

    service: Service
    open: threading.Event
    entered: threading.Event

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)

    def answer(self, *given: Any, **options: Any) -> Answer:
        self.entered.set()
        assert self.open.wait(120)
        return self.service.answer(*given, **options)


@pytest.fixture(scope="module")
def gate(service: Service) -> Gate:
    gate = Gate(service, threading.Event(), threading.Event())
    gate.open.set()
    return gate


@pytest.fixture(scope="module")
def address(gate: Gate) -> Iterator[str]:
    """A server whose queue has room for two requests."""
    from riszoo.inference.demo.page import page, start

    blocks = page(gate)  # type: ignore[arg-type]
    yield start(blocks, queue=2)
    blocks.close(verbose=False)


def test_clients_wait_in_a_bounded_queue_and_are_refused_beyond_it(address: str, gate: Gate) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.utils import QueueError

    client = Client(address, verbose=False, analytics_enabled=False)

    def submit(number: int) -> Any:
        """An image of its own: gradio writes equal files to one place, also while it sends the one that is there."""
        image = scene()
        image.putpixel((0, 0), (number, 0, 0))
        image.save(f"{number}.png")
        return client.submit(handle_file(f"{number}.png"), "the star", ["lts"], 0.5, False, api_name="/segment")

    gate.open.clear()
    gate.entered.clear()
    running = submit(0)
    assert gate.entered.wait(120)
    jobs = [submit(number) for number in range(1, 7)]
    refused = list(islice(as_completed([job.future for job in jobs], 120), 4))
    assert all(isinstance(job.exception(), QueueError) for job in refused), "while the gate is closed"
    gate.open.set()
    errors = [job.exception(timeout=120) for job in [running, *jobs]]
    assert sum(error is None for error in errors) == 3, "one is answered and two wait"
    masks, evidence, _ = running.result()
    assert len(masks) == 1
    assert evidence == []


def test_many_visitors_are_answered_or_refused(address: str) -> None:
    counts = visits(address, "lts", clients=12, seconds=1)
    assert counts["answered"] > 0
    assert counts["failed"] == 0
    assert visits(address, "lts", clients=1, seconds=0) == {"answered": 1}, "the server still answers"


def test_a_file_beyond_the_limit_is_refused_while_it_is_uploaded(address: str) -> None:
    done = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.png", bytes(17 << 20))}, trust_env=False)
    assert done.status_code == 413
    assert "exceeded maximum allowed size" in done.text


@pytest.mark.parametrize("name", ["private.png", "../private.png", "pipe.png", "a\0.png"])
def test_a_file_of_the_server_is_not_an_upload(name: str, address: str, tmp_path: Path) -> None:
    """A program writes any path where gradio's client would write that of its upload."""
    scene().save(tmp_path / "private.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / name if name.startswith("..") else tmp_path / name
    answer = joined(address, {"path": str(path)})
    assert not answer["success"]
    assert answer["output"]["error"] == "the image was not uploaded: upload it first"


def joined(address: str, image: dict[str, str]) -> Any:
    """The last message of the queue for a request without gradio's client."""
    session = f"test-{image['path'][-12:]!r}"
    functions = httpx.get(f"{address}config", trust_env=False).json()["dependencies"]
    number = next(each["id"] for each in functions if each["api_name"] == "segment")
    given = {"data": [image, "the star", ["lts"], 0.5, False], "fn_index": number, "session_hash": session}
    httpx.post(f"{address}gradio_api/queue/join", json=given, trust_env=False).raise_for_status()
    with httpx.stream(
        "GET", f"{address}gradio_api/queue/data", params={"session_hash": session}, trust_env=False, timeout=60
    ) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line else {}
            if message.get("msg") == "process_completed":
                return message
    raise AssertionError("no answer")


def test_a_file_that_is_not_an_image_is_one_sentence_to_a_program(address: str) -> None:
    """A browser's own check is not the only one."""
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    Path("notes.png").write_text("no image")
    client = Client(address, verbose=False, analytics_enabled=False)
    with pytest.raises(AppError, match="the file is not an image that can be read"):
        client.predict(handle_file("notes.png"), "the star", ["lts"], 0.5, False, api_name="/segment")


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """The page in a browser, as a new visitor sees it."""
    tab = Tab(tmp_path_factory.mktemp("browser") / "profile")
    tab.visit(address, 1440)
    tab.wait_for("document.querySelector('#image img') && document.querySelector('#segment')")
    yield tab
    tab.close()


def upload(tab: Tab, file: str) -> None:
    """Replace the image of the page, as a visitor does."""
    tab.click("#image .top-panel button:last-of-type")
    tab.wait_for("document.querySelector('#image input[type=file]')")
    tab.choose_file("#image input[type=file]", Path(file))


@browser
def test_a_visitor_uploads_an_image_writes_sentences_and_sees_masks(tab: Tab) -> None:
    scene(2).save("mine.png")
    upload(tab, "mine.png")
    tab.wait_for("document.querySelector('#image img')")
    tab.fill("#text textarea", "the red star\nthe zebra")
    tab.click("#segment")
    tab.wait_for("document.querySelectorAll('#masks .thumbnail-item img').length == 4")
    assert "the zebra · lts again" in tab.text("#masks")
    assert "without the words: zebra" in tab.text("#notes")
    assert tab.run("document.querySelectorAll('#evidence .thumbnail-item img').length") >= 4


@browser
def test_a_visitor_without_a_sentence_is_told_so(tab: Tab) -> None:
    tab.fill("#text textarea", " ")
    tab.click("#segment")
    tab.wait_for("document.body.innerText.includes('the sentence is missing')")


@browser
def test_a_page_fits_a_phone_and_loads_nothing_from_other_servers(tab: Tab, address: str) -> None:
    tab.resize(390)
    assert tab.rests()
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert [each for each in tab.requests if each.startswith("http") and not each.startswith(address)] == []
    assert set(tab.errors) <= {"Method not implemented."}, "gradio's own, at the end of each answer"
