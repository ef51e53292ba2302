"""`bassl-fast cache`: what is in it, whether it is as it arrived, and what `clear` leaves."""

from __future__ import annotations

import fcntl
import hashlib
import json
from pathlib import Path

import pytest

from bassl_fast import cli
from shard_tools.storage.locks import open_locked
from tests.refused import refused


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ARRAY = b"rows" * 10
MANIFEST = json.dumps({"index": {"frames.npy": {"sha256": sha256(ARRAY)}}}).encode()
INDEX = f"index/{sha256(MANIFEST)}"
FILE = f"files/{'0' * 64}/{'1' * 16}-{sha256(b'weights')}-last-1.ckpt"
SHARDS = [f"shards/{sha256(data)}.tar" for data in (b"one", b"other")]
PART = f"shards/{'2' * 64}.100.tmp"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of two shards, an index, a file and a part of a download, as `Cache` writes them."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BASSL_FAST_CACHE", str(folder))
    files = {f"{INDEX}/manifest.json": MANIFEST, f"{INDEX}/frames.npy": ARRAY, f"{INDEX}/lock": b"", "lock": b""}
    for name, data in (
        files | dict(zip(SHARDS, (b"one", b"other"), strict=True)) | {FILE: b"weights", PART: b"ha"}
    ).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def said(capsys: pytest.CaptureFixture, do: str) -> list[str]:
    capsys.readouterr()
    assert cli.main(["cache", do]) == 0
    return capsys.readouterr().out.splitlines()


def test_info(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BASSL_FAST_CACHE_GIB", "1.5")
    assert said(capsys, "info") == [
        f"folder      {folder}",
        "limit       1.5 GiB of shards",
        "shards      2 files, 8 bytes",
        f"index       2 files, {len(MANIFEST) + len(ARRAY)} bytes",
        "files       1 file, 7 bytes",
        "unfinished  1 file, 2 bytes",
    ]


def test_a_cache_that_was_never_used(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "none"))
    assert said(capsys, "info")[2] == "shards      0 files, 0 bytes"
    assert said(capsys, "verify") == [f"{tmp_path / 'none'}: whole"]
    assert said(capsys, "clear")[2] == "shards      0 files, 0 bytes"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", [*SHARDS, FILE, f"{INDEX}/frames.npy", f"{INDEX}/manifest.json"])
def test_verify_drops_what_was_altered_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture, name: str):
    assert said(capsys, "verify") == [f"{folder}: whole"]
    before = {path for path in folder.rglob("*") if path.is_file()}
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with open_locked(folder / name, fcntl.LOCK_SH):  # as a process that has it open
        lines = said(capsys, "verify")
    assert f"{folder / name}: altered, so it was deleted; it is fetched again when it is needed" in lines
    gone = before - {path for path in folder.rglob("*") if path.is_file()}
    # Without its manifest, nothing says what an array should be.
    assert gone == {folder / name} | ({folder / INDEX / "frames.npy"} if name.endswith("json") else set())


def test_a_name_without_a_checksum_is_not_believed(folder: Path, capsys: pytest.CaptureFixture):
    old = folder / "files" / ("0" * 64) / f"{'1' * 16}-last.ckpt"
    old.write_bytes(b"weights")
    assert len(said(capsys, "verify")) == 1
    assert not old.exists()


def test_clear_leaves_what_a_process_holds(folder: Path, capsys: pytest.CaptureFixture):
    with (
        open_locked(folder / SHARDS[0], fcntl.LOCK_SH),
        open_locked(folder / INDEX / "lock", fcntl.LOCK_SH),
        open_locked(folder / PART),
    ):
        assert said(capsys, "clear")[2:] == [
            "shards      1 file, 3 bytes",
            f"index       2 files, {len(MANIFEST) + len(ARRAY)} bytes",
            "files       0 files, 0 bytes",
            "unfinished  1 file, 2 bytes",
        ]
        assert (folder / SHARDS[0]).exists()
    assert [line[12:] for line in said(capsys, "clear")[2:]] == ["0 files, 0 bytes"] * 4


def test_a_disk_without_locks_is_named(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def no_locks(file, kind):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert "this file system has no locks (No locks available); set BASSL_FAST_CACHE" in refused(
        capsys, "cache", "clear"
    )


def test_a_mistake(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BASSL_FAST_CACHE_GIB", "nan")
    assert "BASSL_FAST_CACHE_GIB 'nan': must be a positive number of GiB" in refused(capsys, "cache", "info")
    assert "info" in refused(capsys, "cache", "empty")
