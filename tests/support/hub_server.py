"""A server on this machine with the parts of the Hugging Face Hub's interface that models are shared by."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Files = dict[str, bytes]


class HubServer(ThreadingHTTPServer):
    """`files` by repository, and the requests so far as `METHOD path`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Files] = {}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        """A file of a repository: /user/name/resolve/revision/file."""
        self.server.requests.append(f"{self.command} {self.path}")
        user, name, _, _, *file = self.path.lstrip("/").split("/")
        content = self.server.files.get(f"{user}/{name}", {}).get("/".join(file))
        if content is None:
            reason = "EntryNotFound" if f"{user}/{name}" in self.server.files else "RepoNotFound"
            self.reply(404, b"", **{"X-Error-Code": reason})
            return
        self.reply(200, content, **{"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.partition("?")[0].lstrip("/").split("/")
        if parts[-1] == "create":
            answer = self.created(json.loads(body))
        elif "preupload" in parts:
            answer = {"files": [upload_mode(file["path"]) for file in json.loads(body)["files"]]}
        elif "commit" in parts:
            answer = self.committed("/".join(parts[2:4]), body)
        else:  # the check of a model card
            answer = {"warnings": [], "errors": []}
        self.reply(200, json.dumps(answer).encode(), **{"Content-Type": "application/json"})

    def created(self, sent: dict[str, Any]) -> dict[str, Any]:
        return {"url": f"{self.server.url}/{sent.get('organization', 'user')}/{sent['name']}"}

    def committed(self, repository: str, body: bytes) -> dict[str, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        self.server.files[repository] = {file["path"]: base64.b64decode(file["content"]) for file in files}
        return {"commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def upload_mode(path: str) -> dict[str, Any]:
    """Every file is sent inside the commit."""
    return {"path": path, "uploadMode": "regular", "shouldIgnore": False}


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """The server, which answers until the block ends."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
