"""The demo's page and server, in gradio: no telemetry, no public link, no files from other servers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

FILES = tempfile.TemporaryDirectory(prefix="riszoo-demo-")
"""Uploads and answers, which are removed when the process ends."""
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": FILES.name}

import gradio as gr  # noqa: E402 - it reads the environment

from riszoo.errors import UserError  # noqa: E402
from riszoo.inference.demo.service import (  # noqa: E402
    HIGHEST,
    LOWEST,
    MOST_BYTES,
    MOST_SENTENCES,
    Service,
    example_images,
)

QUEUE = 16
"""Requests that wait, by default; further ones are refused."""
KEPT = 600
"""Seconds that uploads and answers are kept."""
FONT = ["system-ui", "sans-serif"]
TITLE = "Referring image segmentation"
STYLE = """
/* captions are below their images, which are shown whole; two columns on a phone */
footer { display: none !important; }
.results .grid-wrap { max-height: none; padding-top: 2.4rem; }
#evidence .grid-wrap { max-height: 36rem; }
.results .grid-container { grid-template-rows: auto; grid-auto-rows: auto; }
.results .thumbnail-item { display: flex; flex-direction: column; aspect-ratio: auto; height: auto; }
.results .thumbnail-item img { height: auto; }
.results .thumbnail-item .caption-label { position: static; max-width: 100%; border: 0; }
.results .thumbnail-item .caption-label { white-space: normal; overflow-wrap: anywhere; }
@media (max-width: 640px) { .results .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""


def page(service: Service) -> Any:
    """The page over a service, as gradio's Blocks."""
    names = list(service.models)
    examples = [(str(path), text) for path, text in example_images(Path(FILES.name))]
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as blocks:
        gr.Markdown(f"# {TITLE}\nThe masks of what a sentence refers to, by each model.")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                image = gr.Image(
                    examples[0][0], label="Image", sources=["upload", "clipboard"], elem_id="image",
                    type="filepath", image_mode=None,  # the file itself: its size is checked before it is decoded
                )  # fmt: skip
                image.preprocess = _file_of  # gradio would decode it, without these limits and sentences
                text = gr.Textbox(
                    examples[0][1], lines=3, max_lines=MOST_SENTENCES, label="Sentences, one a line", elem_id="text"
                )
                models = gr.CheckboxGroup(names, value=names, label="Models", elem_id="models")
                threshold = gr.Slider(LOWEST, HIGHEST, 0.5, step=0.05, label="Threshold of the probability")
                evidence = gr.Checkbox(True, label="Evidence of each word")
                button = gr.Button("Segment", variant="primary", elem_id="segment")
            with gr.Column(scale=2, min_width=300):
                masks = _gallery("Masks", max(2, len(names)), "masks")
                notes = gr.Markdown(elem_id="notes")
                maps = _gallery("Evidence", 4, "evidence")
        gr.Examples([list(example) for example in examples], [image, text], label="Images of the embedded data set")
        inputs, outputs = [image, text, models, threshold, evidence], [masks, maps, notes]

        def segment(*given: Any) -> tuple[Any, Any, str]:
            return _answer(service, *given)

        button.click(segment, inputs, outputs, api_name="segment")
        threshold.release(segment, inputs, outputs, api_visibility="private", show_progress="hidden")
    return blocks


def _file_of(uploaded: Any) -> str | None:
    """The path of an uploaded file, unopened. A program can name any file: gradio accepts one without its own mark."""
    if uploaded is None:
        return None
    try:
        path = Path(str(uploaded.path)).resolve()
        own = path.is_relative_to(Path(FILES.name).resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        own = False
    if not own:
        raise gr.Error("the image was not uploaded: upload it first", print_exception=False)
    return str(path)


def _gallery(label: str, columns: int, name: str) -> Any:
    return gr.Gallery(
        label=label, columns=columns, object_fit="contain", height="auto", elem_id=name, elem_classes="results",
        format="png", buttons=[],
    )  # fmt: skip


def _answer(
    service: Service, image: str | None, text: str, names: list[str], threshold: float, evidence: bool
) -> tuple[Any, Any, str]:
    """The values of the page's outputs; a wrong request is shown as its sentence."""
    try:
        answer = service.answer(image, text or "", names, threshold, evidence=evidence)
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
    return answer.masks, answer.evidence, "\n".join(f"- {note}" for note in answer.notes)


def start(blocks: Any, host: str = "127.0.0.1", port: int | None = None, queue: int = QUEUE) -> str:
    """Serve the page from a thread and return its address.

    One request is answered at a time, `queue` wait, and further ones are refused.
    """
    blocks.queue(max_size=queue, api_open=False, default_concurrency_limit=1)
    try:
        _, address, _ = blocks.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
            max_file_size=MOST_BYTES, enable_monitoring=False, mcp_server=False, pwa=False, footer_links=[],
            theme=gr.themes.Default(font=FONT, font_mono=["monospace"]), css=STYLE,
        )  # fmt: skip
    except OSError:
        raise UserError(f"port {port or 7860} of {host} cannot be used: choose another --port or --host") from None
    return str(address)
