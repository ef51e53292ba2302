"""Downloads from a real HTTP server through a proxy that drops connections."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from tqdm import tqdm

from bassl_fast import cli
from shard_tools.errors import ConfigError, RemoteError
from shard_tools.storage.download import File, download
from tests.films import small_disk
from tests.servers import Proxy, http_server

pytestmark = pytest.mark.slow

DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("http")
    with http_server(folder) as port:
        yield folder, port


@pytest.fixture
def proxy(served) -> Iterator[Proxy]:
    (served[0] / "film.zip").write_bytes(DATA)
    requests: list[bytes] = []
    proxy = Proxy(served[1], lambda request: requests.append(request) is None)
    proxy.requests = requests
    yield proxy
    proxy.close()


def file(proxy: Proxy, name: str = "film.zip", data: bytes | None = DATA) -> File:
    digest = "" if data is None else hashlib.sha256(data).hexdigest()
    return File(f"http://127.0.0.1:{proxy.port}/{name}", f"data/{name}", digest)


def test_a_file_comes_whole_and_is_not_fetched_twice(proxy, tmp_path):
    seen = []
    proxy.faults.extend(["none"] * 9)
    path = download(file(proxy), tmp_path, progress=seen.append, announce=seen.append)
    assert path.read_bytes() == DATA
    assert seen[:2] == [len(DATA), 0]
    assert sum(seen[2:]) == len(DATA)
    seen.clear()
    assert download(file(proxy), tmp_path, progress=seen.append, announce=seen.append) == path
    assert seen == [len(DATA), len(DATA)]
    assert len(proxy.requests) == 1
    assert [p.name for p in path.parent.iterdir()] == ["film.zip"]


def test_dropped_connections_resume_by_byte_range_and_the_bar_ends_at_all_bytes(proxy, tmp_path):
    proxy.faults.extend(["cut", "refuse", "cut", "busy", "cut", "none", "none"])
    with tqdm(file=io.StringIO()) as bar:
        assert download(file(proxy), tmp_path, progress=bar.update, announce=bar.reset).read_bytes() == DATA
        assert (bar.n, bar.total) == (len(DATA), len(DATA))
    ranges = [line for r in proxy.requests for line in r.split(b"\r\n") if line.lower().startswith(b"range:")]
    starts = [int(line.split(b"=")[1].rstrip(b"-")) for line in ranges]
    assert starts == sorted(starts)
    assert starts[0] == len(DATA) // 2
    assert starts[-1] == len(DATA) * 7 // 8


def test_a_stopped_download_resumes_in_another_run(proxy, tmp_path):
    proxy.faults.extend(["cut"] + ["refuse"] * 100)
    with pytest.raises(RemoteError, match=r"no data for 0 s .*run the same command to resume"):
        download(file(proxy), tmp_path, wait=0.3)
    assert (tmp_path / "data" / "film.zip.part").stat().st_size == len(DATA) // 2
    assert not (tmp_path / "data" / "film.zip").exists()
    proxy.faults.clear()
    assert download(file(proxy), tmp_path).read_bytes() == DATA


def test_parts_of_two_versions_are_not_joined(proxy, served, tmp_path):
    proxy.faults.extend(["cut"] + ["refuse"] * 100)
    with pytest.raises(RemoteError):
        download(file(proxy), tmp_path, wait=0.3)
    proxy.faults.clear()
    other, later = DATA[::-1], time.time() + 2  # HTTP dates are whole seconds
    (served[0] / "film.zip").write_bytes(other)
    os.utime(served[0] / "film.zip", (later, later))
    assert download(file(proxy, data=None), tmp_path).read_bytes() == other


def test_a_server_that_stalls_is_given_up_on_in_time(proxy, served, tmp_path):
    (served[0] / "short.zip").write_bytes(DATA[:8])  # each try gets half of the rest
    proxy.faults.extend(["stall"] * 100)
    started = time.monotonic()
    with pytest.raises(RemoteError, match="no data for 1 s"):
        download(file(proxy, "short.zip", data=None), tmp_path, wait=1, timeout=0.3)
    assert time.monotonic() - started < 20


def test_a_full_disk_is_reported_and_with_more_room_the_download_resumes(proxy, tmp_path):
    with small_disk(tmp_path / "disk", "200k") as disk:
        with pytest.raises(
            RemoteError,
            match=r"film\.zip\.part: No space left on device; make room or choose another disk, then run the same",
        ):
            download(file(proxy), disk)
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        assert download(file(proxy), disk).read_bytes() == DATA


def test_another_checksum_and_a_missing_file(proxy, tmp_path):
    for _ in range(2):
        with pytest.raises(RemoteError, match=r"expected 0{64}; kept as .*film\.zip\.wrong"):
            download(File(file(proxy).url, "film.zip", "0" * 64), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.zip.wrong", "film.zip.wrong2"]
    assert (tmp_path / "film.zip.wrong").read_bytes() == DATA
    with pytest.raises(RemoteError, match=r"404 .*; check whether the file moved"):
        download(file(proxy, "nothing.zip"), tmp_path)


@pytest.mark.parametrize(
    ("url", "name", "said"),
    [
        ("", "film.zip", "not an http"),
        ("file:///etc/passwd", "x", "not an http"),
        ("http://h/x", "../x", "outside the destination"),
        ("http://h/x", "/x", "outside the destination"),
        ("http://h/x", "", "outside the destination"),
    ],
)
def test_a_bad_address_or_name_is_refused(url, name, said):
    with pytest.raises(ConfigError, match=said):
        File(url, name)


def test_the_verb_reads_a_config(proxy, tmp_path, capsys):
    config = tmp_path / "download.yaml"
    config.write_text(f"out: {tmp_path / 'out'}\nfiles:\n  - name: film.zip\n    url: {file(proxy).url}\n")
    assert cli.main(["download", "--config", str(config)]) == 0
    assert (tmp_path / "out" / "film.zip").read_bytes() == DATA
    config.write_text("files:\n  - nme: film.zip\n    url: http://h/x\n")
    assert cli.main(["download", "--config", str(config)]) == 1
    assert "nme" in capsys.readouterr().err


@pytest.mark.parametrize("change", [str.upper, lambda digest: f" {digest[:32]} {digest[32:]}\n", str.title])
def test_a_checksum_in_capitals_or_with_blanks_is_the_same(proxy, tmp_path, change):
    digest = change(hashlib.sha256(DATA).hexdigest())
    assert download(File(file(proxy).url, "film.zip", digest), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "x" * 64, "sha256"])
def test_what_is_not_a_checksum_is_refused_before_anything_is_fetched(digest):
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        File("http://h/x", "x", digest)


@pytest.mark.parametrize("digest", [True, False])
def test_half_a_file_under_its_final_name_is_not_believed(proxy, tmp_path, digest):
    wanted = file(proxy, data=DATA if digest else None)
    path = tmp_path / wanted.name
    path.parent.mkdir()
    path.write_bytes(DATA[:100_000])
    assert download(wanted, tmp_path).read_bytes() == DATA
    assert path.with_name("film.zip.wrong").read_bytes() == DATA[:100_000]
    assert download(wanted, tmp_path) == path
    assert len(list(path.parent.iterdir())) == 2


class Answer(BaseHTTPRequestHandler):
    """/204 has no content, /login is a web page, /page.html is one that is wanted."""

    def do_GET(self) -> None:
        status = 204 if self.path == "/204" else 200
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if status == 200 else "application/zip")
        self.send_header("Content-Length", "9" if status == 200 else "0")
        self.end_headers()
        if status == 200:
            self.wfile.write(b"<p>hi</p>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("204", "the server answers 204 No Content instead of the file"),
        ("login", "sends a web page instead of the file"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_an_answer_that_is_not_a_file(tmp_path, address, said, there):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        if there:
            (tmp_path / "film.zip").write_bytes(b"x")
        with pytest.raises(RemoteError, match=said):
            download(File(f"http://127.0.0.1:{server.server_port}/{address}", "film.zip"), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["film.zip"] * there
        page = download(File(f"http://127.0.0.1:{server.server_port}/login", "page.html"), tmp_path)
        assert page.read_bytes() == b"<p>hi</p>"
    finally:
        server.shutdown()
        server.server_close()
