"""Models named after the hub: from its cache without a network, and never downloaded without being asked."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from bassl_fast.encoders.hub import OF_TEXT, open_model
from bassl_fast.encoders.text import _tokenizer
from shard_tools.errors import ConfigError, MissingDependency

NAME = "lab/tiny"
FILES = {
    "config.json": 700,
    "preprocessor_config.json": 300,
    "model.safetensors": 346_000_000,
    "model.bin": 7,
    "README.md": 9,
    "tokenizer.json": 2_000_000,
    "1_Pooling/config.json": 190,
}


class _Api(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        there = self.path.startswith(f"/api/models/{NAME}")
        files = [{"rfilename": name, "size": size} for name, size in FILES.items()]
        body = json.dumps({"id": NAME, "siblings": files} if there else {"error": "none"}).encode()
        self.send_response(200 if there else 404)
        if not there:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that is not there."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that says what it has; the requests it got."""
    _Api.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield _Api.asked
        server.shutdown()


def fill(cache: Path, *names: str) -> Path:
    """The files of a model, as the hub's client stores them."""
    root = cache / f"models--{NAME.replace('/', '--')}"
    folder = root / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def test_a_model_in_the_cache_needs_no_network(cache: Path):
    folder = fill(cache, "config.json", "model.safetensors")
    assert open_model(NAME).weights == folder / "model.safetensors"


def test_what_it_would_fetch_is_said(hub: list[str], cache: Path):
    command = "`hf download lab/tiny config.json preprocessor_config.json model.safetensors` fetches 346 MB"
    with pytest.raises(ConfigError) as said:
        open_model(NAME)
    assert str(said.value) == f"lab/tiny: neither a folder nor in the hub's cache; {command}"
    with pytest.raises(
        ConfigError, match=r"config.json tokenizer.json 1_Pooling/config.json model.safetensors` .* 348 MB"
    ):
        open_model(NAME, OF_TEXT)
    fill(cache, "config.json")
    with pytest.raises(ConfigError) as said:
        open_model(NAME)
    assert str(said.value) == f"lab/tiny: has config.json but no weights (model.safetensors); {command}"
    assert hub.count("/api/models/lab/tiny?blobs=true") == 3
    assert not list(cache.rglob("*.safetensors"))


def test_what_a_model_of_the_cache_lacks_would_be_fetched(hub: list[str], cache: Path):
    fill(cache, "config.json", "model.safetensors")  # as of an image model
    with pytest.raises(
        ConfigError, match=r"lab/tiny: no tokenizer in it, .*; `hf download lab/tiny .* tokenizer.json "
    ):
        _tokenizer(open_model(NAME, OF_TEXT))


def test_a_model_that_the_hub_has_not(hub: list[str]):
    with pytest.raises(ConfigError, match=r"lab/none: .*; the hub has no model of that name for you; check it"):
        open_model("lab/none")


def test_no_network_is_said(cache: Path):
    with pytest.raises(ConfigError, match=r"`hf download lab/tiny` fetches it \(its size is unknown: "):
        open_model(NAME)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match=r"lab/tiny: no such folder; .* pip install 'bassl-fast\[hf\]'"):
        open_model(NAME)


def test_the_files_of_weights_in_parts(tmp_path: Path):
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    names = ["config.json", "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"]
    assert [path.name for path in open_model(str(tmp_path)).files] == names
