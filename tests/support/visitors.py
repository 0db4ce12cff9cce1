"""Visitors who use a demo at the same time, and what became of their requests.

riszoo demo --model vipa --port 7900
python -m tests.support.visitors http://127.0.0.1:7900/ vipa 50 60     # clients, seconds
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
import uuid
from collections import Counter

import httpx

from tests.support.small_run import scene

PAUSE = 0.5
"""Seconds until a visitor who was refused tries again."""


def visits(address: str, model: str, clients: int, seconds: float) -> Counter[str]:
    """How many requests were `answered`, `refused` because the queue was full, and `failed`."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=_visit, args=(address, model, end, counts)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def _visit(address: str, model: str, end: float, counts: Counter[str]) -> None:
    """Upload an image, and ask about it until the time is over."""
    file = io.BytesIO()
    scene().save(file, "PNG")
    with httpx.Client(base_url=address, timeout=300, trust_env=False) as client:
        (path,) = client.post("gradio_api/upload", files={"files": ("a.png", file.getvalue())}).json()
        (function,) = [
            each["id"] for each in client.get("config").json()["dependencies"] if each["api_name"] == "segment"
        ]
        image = {"path": path, "meta": {"_type": "gradio.FileData"}}
        while True:
            counts[_ask(client, function, [image, "the red star", [model], 0.5, False])] += 1
            if time.monotonic() > end:
                return


def _ask(client: httpx.Client, function: int, data: list[object]) -> str:
    session = uuid.uuid4().hex
    joined = client.post("gradio_api/queue/join", json={"data": data, "fn_index": function, "session_hash": session})
    if joined.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        time.sleep(PAUSE)
        return "refused"
    with client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as events:
        for line in events.iter_lines():
            event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if event.get("msg") == "process_completed":
                return "answered" if event["success"] else "failed"
    return "failed"


if __name__ == "__main__":
    print(dict(visits(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
