"""Downloads from a real HTTP server through a proxy that drops connections."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bassl_fast import cli
from shard_tools.errors import ConfigError, RemoteError
from shard_tools.storage.download import File, download
from tests.films import small_disk
from tests.servers import Proxy, http_server

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
    path = download(file(proxy), tmp_path, progress=lambda *done: seen.append(done))
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert download(file(proxy), tmp_path) == path
    assert len(proxy.requests) == 1
    assert [p.name for p in path.parent.iterdir()] == ["film.zip"]


def test_dropped_connections_go_on_by_byte_range(proxy, tmp_path):
    proxy.faults.extend(["cut", "refuse", "cut", "busy", "cut", "none", "none"])
    assert download(file(proxy), tmp_path).read_bytes() == DATA
    ranges = [line for r in proxy.requests for line in r.split(b"\r\n") if line.lower().startswith(b"range:")]
    starts = [int(line.split(b"=")[1].rstrip(b"-")) for line in ranges]
    assert starts == sorted(starts)
    assert starts[0] == len(DATA) // 2
    assert starts[-1] == len(DATA) * 7 // 8


def test_a_stopped_download_goes_on_in_another_run(proxy, tmp_path):
    proxy.faults.extend(["cut"] + ["refuse"] * 100)
    with pytest.raises(RemoteError, match=r"nothing came for 0 s .*run the same command to go on"):
        download(file(proxy), tmp_path, wait=0.3)
    assert (tmp_path / "data" / "film.zip.part").stat().st_size == len(DATA) // 2
    assert not (tmp_path / "data" / "film.zip").exists()
    proxy.faults.clear()
    assert download(file(proxy), tmp_path).read_bytes() == DATA


def test_a_file_that_changed_meanwhile_is_not_glued_together(proxy, served, tmp_path):
    proxy.faults.extend(["cut"] + ["refuse"] * 100)
    with pytest.raises(RemoteError):
        download(file(proxy), tmp_path, wait=0.3)
    proxy.faults.clear()
    time.sleep(1.1)  # HTTP dates are whole seconds
    other = DATA[::-1]
    (served[0] / "film.zip").write_bytes(other)
    assert download(file(proxy, data=None), tmp_path).read_bytes() == other


def test_a_server_that_stalls_is_given_up_in_time(proxy, tmp_path):
    proxy.faults.extend(["stall"] * 100)
    started = time.monotonic()
    with pytest.raises(RemoteError, match="nothing came for 1 s"):
        download(file(proxy, data=None), tmp_path, wait=1, timeout=0.3)
    assert time.monotonic() - started < 20


def test_a_full_disk_is_said_and_with_more_room_it_goes_on(proxy, tmp_path):
    with small_disk(tmp_path / "disk", "200k") as disk:
        with pytest.raises(RemoteError, match=r"film\.zip\.part: No space left on device; mend this and run the same"):
            download(file(proxy), disk)
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        assert download(file(proxy), disk).read_bytes() == DATA


def test_another_checksum_and_a_missing_file(proxy, tmp_path):
    with pytest.raises(RemoteError, match=r"expected 0{64}; it was deleted"):
        download(File(file(proxy).url, "film.zip", "0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RemoteError, match=r"404 .*; look whether the file has moved"):
        download(file(proxy, "nothing.zip"), tmp_path)


@pytest.mark.parametrize(
    ("url", "name", "said"),
    [
        ("", "film.zip", "no http"),
        ("file:///etc/passwd", "x", "no http"),
        ("http://h/x", "../x", "would leave"),
        ("http://h/x", "/x", "would leave"),
        ("http://h/x", "", "would leave"),
    ],
)
def test_what_is_no_address_or_no_name_is_refused(url, name, said):
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
