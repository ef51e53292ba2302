"""A stand-in for the Hugging Face Hub: data sets in folders, through the part of its interface that reading needs."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0" * 40
Spoils = Callable[[str], int]  # path of a request -> a status to answer with, 0 for the real answer


class _Hub(BaseHTTPRequestHandler):
    folder: Path
    spoils: Spoils

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if status := type(self).spoils(path):
            self._answer(status, b"{}")
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            facts = {"id": match[1], "sha": COMMIT, "private": False, "siblings": [], "tags": []}
            self._json(facts) if (self.folder / match[1]).is_dir() else self._missing("RepoNotFound")
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
            root, part = self.folder / match[1], self.folder / match[1] / match[2]
            self._json([_facts(root, path) for path in sorted(part.iterdir())]) if part.is_dir() else self._missing()
        elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._send(self.folder / match[1] / match[2])
        else:
            self._missing()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        match = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/[^/]+", urlsplit(self.path).path)
        assert match
        root, paths = self.folder / match[1], json.loads(body)["paths"] if body[0] == "{" else parse_qs(body)["paths"]
        self._json([_facts(root, root / path) for path in paths if (root / path).exists()])

    def _send(self, path: Path) -> None:
        if not path.is_file():
            return self._missing()
        data = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return self._answer(200, data, ETag='"1"')
        first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        self._answer(206, data[first : last + 1], **{"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, tree: object) -> None:
        self._answer(200, json.dumps(tree).encode())

    def _missing(self, code: str = "EntryNotFound") -> None:
        self._answer(404, b"{}", **{"X-Error-Code": code})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub(folder: Path, spoils: Spoils = lambda path: 0) -> Iterator[str]:
    """Serve the data sets `folder/<owner>/<name>`; yields the address for HF_ENDPOINT."""
    handler = type("Hub", (_Hub,), {"folder": folder, "spoils": staticmethod(spoils)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _facts(root: Path, path: Path) -> dict[str, object]:
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": f"{path.stat().st_size:040d}"}
