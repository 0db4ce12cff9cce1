"""A headless Chromium without network, controlled through its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

CHROMIUM = os.environ.get("CHROME") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
         "--remote-debugging-pipe")  # fmt: skip
SHELL = 'exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null'
"""Chromium reads commands from the file descriptor 3 and writes answers to 4."""
LONGEST = 60.0  # seconds for one command
VIRTUAL_KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}


class Node(NamedTuple):
    """What a screen reader announces of one element."""

    role: str
    name: str
    focusable: bool


class Tab:
    """One page. Its errors and requests are collected from `open` on."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        command = ["sh", "-c", SHELL, "sh", CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.received, self.number, self.session = b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "Performance"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    # -- the protocol -------------------------------------------------------------------------------------------------

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        """The next message; events are recorded on the way."""
        assert self.process.stdout is not None
        file, until = self.process.stdout.fileno(), time.monotonic() + LONGEST
        while b"\0" not in self.received:
            ready, _, _ = select.select([file], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"chromium did not answer within {LONGEST:.0f} s"
            chunk = os.read(file, 1 << 20)
            assert chunk, "chromium has ended"
            self.received += chunk
        first, self.received = self.received.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        self._record(message.get("method", ""), message.get("params", {}))
        return message

    def _record(self, event: str, content: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = content["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description") or details["text"]))
        elif event == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(value.get("value", "")) for value in content["args"]))
        elif event == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.errors.append(content["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])

    # -- what a person does -------------------------------------------------------------------------------------------

    def open(
        self,
        page: Path,
        state: dict[str, Any] | None = None,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
    ) -> None:
        """Loads the page with this state in its address, in a window of this width."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                  mobile=width < 500)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url="about:blank")
        self._loaded("about:blank")
        self.errors.clear()
        self.requests.clear()
        address = f"{page.as_uri()}#{urlencode(state or {})}"
        self.send("Page.navigate", url=address)
        self._loaded(page.as_uri())

    def visit(self, address: str, width: int = 1280) -> None:
        """Goes to the page of a server on this machine."""
        self.resize(width)
        self.send("Page.navigate", url=address)
        self._loaded(address)

    def resize(self, width: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                  mobile=width < 500)  # fmt: skip

    def wait_for(self, script: str) -> None:
        """Waits until a JavaScript expression is true."""
        until = time.monotonic() + LONGEST
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < until, f"{script} stays false: {self.text('body')}"
            select.select([], [], [], 0.2)

    def choose_file(self, selector: str, file: Path) -> None:
        """Gives a file to an input, as a person does in the file dialogue."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(file.absolute())], nodeId=node)

    def fill(self, selector: str, text: str) -> None:
        """Replaces the text of a field by typing."""
        self.run(f"(field => {{ field.focus(); field.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.send("Input.insertText", text=text)

    def _loaded(self, address: str) -> None:
        state = f"location.href.startsWith({json.dumps(address)}) && document.readyState"
        until = time.monotonic() + LONGEST
        while self.run(state) != "complete":
            assert time.monotonic() < until, f"{address} was not loaded within {LONGEST:.0f} s"

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """The text that an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """The texts of all visible elements that match."""
        found: list[str] = self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility())"
            ".map(e => e.innerText)"
        )
        return found

    def click(self, selector: str) -> None:
        """A click with the mouse in the middle of an element."""
        x, y = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center', inline: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Presses keys, one after the other."""
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = VIRTUAL_KEYS.get(key, ord(key[0].upper()))
            shared = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **shared)
            self.send("Input.dispatchKeyEvent", type="keyUp", **shared)

    def choose(self, selector: str, value: str) -> None:
        """Chooses an option of a `select`."""
        self.run(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change', {{bubbles: true}})); }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    def announced(self) -> list[Node]:
        """The accessibility tree without ignored nodes, in reading order."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [_announced(node) for node in nodes if not node["ignored"]]

    def rests(self, frames: int = 10, attempts: int = 20) -> bool:
        """Whether the page stops changing its layout: within some attempts, one without a layout in these frames."""
        return any(self._layouts(frames) == 0 for _ in range(attempts))

    def _layouts(self, frames: int) -> int:
        before = self._layout_count()
        self.run(f"(async () => {{ for (let i = 0; i < {frames}; i++) await new Promise(requestAnimationFrame); }})()")
        return self._layout_count() - before

    def _layout_count(self) -> int:
        found = {each["name"]: each["value"] for each in self.send("Performance.getMetrics")["metrics"]}
        return int(found["LayoutCount"])

    def screenshot(self, file: Path, full: bool = True) -> None:
        """A PNG of the whole page, or of the window."""
        image = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        file.write_bytes(base64.b64decode(image["data"]))


def _announced(node: dict[str, Any]) -> Node:
    properties = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
    return Node(node["role"].get("value", ""), node.get("name", {}).get("value", ""), bool(properties.get("focusable")))
