"""A thousand broken and hostile files; `python -m tests.fuzz --inputs 100000` reads more."""

from __future__ import annotations

import json

import pytest

from shard_tools.errors import ShardError
from tests.fuzz import Fuzz, Watch, bounded, fuzz
from tests.fuzz_readers import READERS, Reader

pytestmark = pytest.mark.slow


def test_readers_end_in_errors_of_ours_whatever_they_are_given(tmp_path):
    found = fuzz(1000, tmp_path, first_seed=1)
    assert not found.faults, "\n".join(fault["fault"] for fault in found.faults)
    for name in READERS.keys() - {"note"}:  # of which a damaged one is as good as none
        assert found.counts[name]["read"] < sum(found.counts[name].values()), f"{name} refused nothing"


@pytest.mark.parametrize(
    ("fault", "said"),
    {
        "error": "KeyError: 'dim'",
        "hang": "more than 0.2 s",
        "open": "opened /etc/hostname",
        "memory": "MiB",
        "memory that malloc kept": "MiB",  # as it does under `make test`, see MALLOC_TRIM_THRESHOLD_ there
        "lines": "more than one line",
    }.items(),
)
def test_a_reader_at_fault_is_found(fault, said, tmp_path, monkeypatch):
    if fault == "hang":
        monkeypatch.setattr("tests.fuzz.SECONDS", 0.2)
    monkeypatch.setattr("tests.fuzz.MEMORY", 1 << 24)
    first = True
    if fault == "memory that malloc kept":
        freed = bytearray(b"x") * (1 << 29)
        del freed

    def read(folder) -> None:
        nonlocal first
        if first:  # valid inputs are read before
            first = False
            return
        if fault == "error":
            raise KeyError("dim")
        while fault == "hang":
            pass
        if fault == "open":
            open("/etc/hostname").close()
        if fault.startswith("memory"):
            bytearray(1 << 28)[::4096] = bytes((1 << 28) // 4096)
        if fault == "lines":
            raise Lines

    class Lines(ShardError):
        def __str__(self) -> str:
            return "two\nlines"

    fuzzing = Fuzz(tmp_path)
    with bounded(tmp_path):
        fuzzing.run("x", Reader(lambda: [{"a": json.dumps({"a": 1}).encode()}], read), 1)
    assert [said in found["fault"] for found in fuzzing.faults] == [True]


def test_the_watch_sees_what_is_opened(tmp_path):
    watch = Watch()
    (tmp_path / "a").write_bytes(b"")
    with watch(tmp_path) as seen:
        open(tmp_path / "a").close()
        open("/etc/hostname").close()
    assert seen == ["opened /etc/hostname"]
