"""The cache of remote shards: bounded, shared, checked, and never waiting without end."""

from __future__ import annotations

import errno
import fcntl
import http.server
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shard_tools.errors import ConfigError, RemoteError, ShardError
from shard_tools.packing.pack import pack
from shard_tools.packing.verify import verify
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.cache import Cache, local_file
from tests.films import digests, small_disk, write_set
from tests.servers import BUCKET, Proxy, s3_server, use_s3

FILMS = {"a": 3, "b c": 4, "d": 5}
URI = f"s3://{BUCKET}/shards"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> tuple[Path, int]:
    source = write_set(tmp_path_factory.mktemp("source"), FILMS)
    folder = tmp_path_factory.mktemp("s3")
    pack(source, folder / BUCKET / "shards")
    with s3_server(folder) as port:
        yield folder / BUCKET / "shards", port


@pytest.fixture
def shards(served, monkeypatch, tmp_path) -> Path:
    use_s3(monkeypatch, served[1])
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    return served[0]


@pytest.fixture
def proxy(served, shards, monkeypatch) -> Proxy:
    proxy = Proxy(served[1], lambda request: b".tar" in request.split(b"\r\n")[0] and request.startswith(b"GET"))
    use_s3(monkeypatch, proxy.port)
    monkeypatch.setattr("shard_tools.storage.remote._STALL", 1)
    yield proxy
    proxy.close()


def held(cache: Cache) -> set[str]:
    return {path.name for path in (cache.folder / "shards").iterdir()}


def sizes(index: ShardIndex) -> list[int]:
    return [shard["bytes"] for shard in index.shards]


def test_a_remote_set_opens_as_a_local_one(shards, tmp_path):
    remote, local = ShardIndex.open(URI, Cache(tmp_path / "cache")), ShardIndex.open(shards)
    for name in ("frames", "sequences", "shots"):
        np.testing.assert_array_equal(getattr(remote, name), getattr(local, name))
    assert remote.shards == local.shards
    for facts in remote.shards:
        opened = remote.cache.open(URI, facts)
        assert bytes(opened.data) == (shards / facts["name"]).read_bytes()
        opened.close()
    assert remote.locate(0)[0] == f"{URI}/a.tar"


def test_a_set_on_a_web_server_without_index_pages(shards, tmp_path):
    class Plain(http.server.SimpleHTTPRequestHandler):
        def list_directory(self, path):
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=shards))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        remote = ShardIndex.open(f"http://127.0.0.1:{server.server_address[1]}", Cache(tmp_path / "cache", wait=5))
        opened = remote.cache.open(remote.address, remote.shards[1])
        assert bytes(opened.data) == (shards / "b c.tar").read_bytes()
        assert verify(remote.address) == []
        with pytest.raises(ShardError, match=r"gone\.tar: missing"):
            remote.cache.open(remote.address, {**remote.shards[0], "name": "gone.tar", "sha256": "0" * 64})
    finally:
        server.shutdown()
        server.server_close()


def test_a_set_that_is_not_there_or_not_finished(shards):
    with pytest.raises(ShardError, match="not a finished set of shards"):
        ShardIndex.open(f"s3://{BUCKET}/nothing")
    with pytest.raises(ShardError, match="not a finished set of shards"):
        ShardIndex.open("s3://no-such-bucket/shards")


def test_a_limit_below_the_largest_shard_is_refused_at_once(shards, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="the largest shard of s3://films/shards has"):
        ShardIndex.open(URI, Cache(tmp_path / "cache", limit=1000))


@pytest.mark.parametrize("gib", ["many", "", "nan", "inf", "-inf", "-1", "0", "1e999"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch, gib):
    monkeypatch.setenv("BASSL_FAST_CACHE_GIB", gib)
    with pytest.raises(ConfigError, match=f"^BASSL_FAST_CACHE_GIB '{gib}': must be a positive number of GiB"):
        Cache()


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, found in (("~/c d", tmp_path / "c d"), ("", tmp_path / ".cache/bassl-fast"), ("/a~b", Path("/a~b"))):
        monkeypatch.setenv("BASSL_FAST_CACHE", given)
        assert Cache().folder == found
    for given, why in (("~nobody-of-that-name/c", "no such home folder"), ("s3://films/c", "an address")):
        monkeypatch.setenv("BASSL_FAST_CACHE", given)
        with pytest.raises(ConfigError, match=f"^BASSL_FAST_CACHE {given}: {why}; give "):
            Cache()


def test_the_least_recently_used_is_deleted_first_and_never_a_shard_in_use(shards, tmp_path):
    index = ShardIndex.open(URI)
    a, b, d = index.shards
    cache = Cache(tmp_path / "cache", limit=sum(sizes(index)) - 1, wait=0.3)
    cache.open(URI, a).close()
    cache.open(URI, b).close()
    cache.open(URI, a).close()  # now b is the one not used for longest
    in_use = cache.open(URI, d)
    assert held(cache) == {f"{a['sha256']}.tar", f"{d['sha256']}.tar"}
    cache.open(URI, b).close()
    assert held(cache) == {f"{b['sha256']}.tar", f"{d['sha256']}.tar"}
    also = cache.open(URI, b)
    started = time.monotonic()
    with pytest.raises(RemoteError, match="are in use; set BASSL_FAST_CACHE_GIB higher"):
        cache.open(URI, a)
    assert time.monotonic() - started < 3
    assert bytes(in_use.data) == (shards / d["name"]).read_bytes()
    assert bytes(also.data) == (shards / b["name"]).read_bytes()


def test_the_caller_may_make_room_itself(shards, tmp_path):
    index = ShardIndex.open(URI)
    cache = Cache(tmp_path / "cache", limit=max(sizes(index)), wait=0.3)
    mine = [cache.open(URI, index.shards[0])]
    taken = cache.open(URI, index.shards[2], release=lambda: bool(mine) and mine.pop().close() is None)
    assert len(taken.data) == sizes(index)[2]
    assert len(held(cache)) == 1


def test_a_shard_deleted_from_the_cache_stays_readable_and_is_fetched_again(shards, tmp_path):
    index = ShardIndex.open(URI)
    opened = index.cache.open(URI, index.shards[1])
    shutil.rmtree(index.cache.folder)
    expected = (shards / "b c.tar").read_bytes()
    assert bytes(opened.data) == expected
    assert bytes(index.cache.open(URI, index.shards[1]).data) == expected


def test_a_set_replaced_remotely_is_another_set(shards, tmp_path):
    copy = shards.parent / "replaced"
    shutil.copytree(shards, copy)
    uri = f"s3://{BUCKET}/replaced"
    index = ShardIndex.open(uri)
    index.cache.open(uri, index.shards[0]).close()
    other = write_set(tmp_path / "other", {"a": 3, "b c": 4, "d": 5}, size=(64, 32))
    pack(other, tmp_path / "packed")
    shutil.rmtree(copy)
    shutil.copytree(tmp_path / "packed", copy)
    with pytest.raises(ShardError, match="differs from its manifest, replaced or damaged"):
        index.cache.open(uri, index.shards[1])
    assert not [name for name in held(index.cache) if name.endswith(".tmp")]
    again = ShardIndex.open(uri)
    assert bytes(again.cache.open(uri, again.shards[0]).data) == (copy / "a.tar").read_bytes()
    (copy / "d.tar").unlink()
    with pytest.raises(ShardError, match=r"d\.tar: missing"):
        again.cache.open(uri, again.shards[2])
    with pytest.raises(ShardError, match="shard missing"):
        ShardIndex.open(uri)
    shutil.rmtree(copy)


@pytest.mark.parametrize("fault", ["refuse", "cut", "stall", "busy", "wrong"])
def test_a_passing_fault_only_costs_time(proxy, shards, fault):
    index = ShardIndex.open(URI)
    proxy.faults.append(fault)
    opened = index.cache.open(URI, index.shards[1])
    assert proxy.spoilt == 1
    assert bytes(opened.data) == (shards / "b c.tar").read_bytes()
    assert held(index.cache) == {f"{index.shards[1]['sha256']}.tar"}


@pytest.mark.parametrize("fault", ["refuse", "cut", "stall", "busy", "wrong"])
def test_a_fault_that_stays_ends_in_one_line_and_in_time(proxy, tmp_path, monkeypatch, fault):
    index, cache = ShardIndex.open(URI), Cache(tmp_path / "impatient", wait=0.3)
    monkeypatch.setattr("shard_tools.storage.remote._STALL", 0.3)
    proxy.faults.extend([fault] * 1000)
    started = time.monotonic()
    with pytest.raises((RemoteError, ShardError), match=r"b c\.tar: (given up after 0 s|differs from)") as error:
        cache.open(URI, index.shards[1])
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value)
    assert held(cache) == set()


def test_a_server_that_is_gone_ends_in_one_line(served, monkeypatch, tmp_path):
    proxy = Proxy(1)
    proxy.close()
    use_s3(monkeypatch, proxy.port)
    with pytest.raises(RemoteError, match="given up after 0 s"):
        Cache(tmp_path / "cache", wait=0.3).index(URI, fmt.MANIFEST, (fmt.FRAMES,))


def _read_all(uri: str, folder: str, limit: int, rounds: int, seed: int, expected: dict[str, bytes]) -> None:
    index = ShardIndex.open(uri, Cache(folder, limit, wait=30))
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        facts = index.shards[int(rng.integers(len(index.shards)))]
        opened = index.cache.open(uri, facts)
        assert bytes(opened.data) == expected[facts["name"]]
        opened.close()


def test_two_processes_share_a_cache_too_small_for_all(shards, tmp_path):
    index = ShardIndex.open(shards)
    limit = sizes(index)[1] + sizes(index)[2]
    expected = {name: (shards / name).read_bytes() for name in ("a.tar", "b c.tar", "d.tar")}
    context = multiprocessing.get_context("spawn")
    readers = [
        context.Process(target=_read_all, args=(URI, str(tmp_path / "cache"), limit, 20, seed, expected))
        for seed in range(2)
    ]
    for reader in readers:
        reader.start()
    most = 0
    while any(reader.is_alive() for reader in readers):
        folder = tmp_path / "cache" / "shards"
        taken = 0
        for path in folder.glob("*.tar"):
            with suppress(FileNotFoundError):  # went meanwhile
                taken += path.stat().st_size
        most = max(most, taken)
        time.sleep(0.02)
    for reader in readers:
        reader.join(60)
        assert reader.exitcode == 0
    assert 0 < most <= limit


def test_processes_that_want_the_same_shard_fetch_it_once(proxy, shards, monkeypatch):
    monkeypatch.setattr("shard_tools.storage.remote._STALL", 20)  # or a slow machine fetches twice
    index = ShardIndex.open(URI)
    fetched = []
    proxy.spoils = lambda request: bool(fetched.append(request) if b".tar" in request.split(b"\r\n")[0] else None)
    proxy.faults.append("none")
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(index.cache.open(URI, index.shards[2]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {bytes(one.data) for one in opened} == {(shards / "d.tar").read_bytes()}
    assert len(opened) == 6
    assert len([request for request in fetched if request.startswith(b"GET")]) == 1


KILLED = """
import sys
from shard_tools.shards.index import ShardIndex
index = ShardIndex.open(sys.argv[1])
index.cache.open(sys.argv[1], index.shards[1])
"""


def test_the_download_of_a_killed_process_is_taken_over(proxy, shards):
    proxy.faults.extend(["stall"] * 50)
    reader = subprocess.Popen([sys.executable, "-c", KILLED, URI])
    folder = Path(os.environ["BASSL_FAST_CACHE"]) / "shards"
    for _ in range(600):
        if folder.is_dir() and any(path.suffix == ".tmp" for path in folder.iterdir()):
            break
        time.sleep(0.05)
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    assert [path.suffix for path in folder.iterdir()] == [".tmp"]
    proxy.faults.clear()
    index = ShardIndex.open(URI)
    index.cache.open(URI, index.shards[2]).close()  # making room looks at every file
    assert held(index.cache) == {f"{index.shards[2]['sha256']}.tar"}
    assert bytes(index.cache.open(URI, index.shards[1]).data) == (shards / "b c.tar").read_bytes()


@pytest.mark.parametrize("name", ["lock", "shards/{sha256}.tar", "shards/{sha256}.{bytes}.tmp"])
def test_a_stuck_process_that_holds_a_lock_is_waited_for_only_so_long(shards, tmp_path, name):
    cache = Cache(tmp_path / "cache", wait=0.3)
    index = ShardIndex.open(URI, cache)
    path = cache.folder / name.format(**index.shards[0])
    path.parent.mkdir(exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        started = time.monotonic()
        with pytest.raises(RemoteError, match="made no progress for 0 s; stop it"):
            cache.open(URI, index.shards[0])
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("now", [0, 4e9])
def test_wrong_clocks_do_no_harm(shards, tmp_path, monkeypatch, now):
    """Neither the clock of this machine, which may jump, nor those of the server and of others that share the cache."""
    copy = shutil.copytree(shards, shards.parent / f"skewed{now:.0f}")
    for path in copy.iterdir():
        os.utime(path, (now, now))
    uri = f"s3://{BUCKET}/{copy.name}"
    index = ShardIndex.open(uri)
    cache = Cache(tmp_path / "small", limit=max(sizes(index)))
    for seconds in (now, 2e9 - now / 3, 1e9):
        monkeypatch.setattr(time, "time_ns", lambda seconds=seconds: int(seconds * 1e9))
        for facts in index.shards:
            opened = cache.open(uri, facts)
            assert bytes(opened.data) == (copy / facts["name"]).read_bytes()
            opened.close()
            assert held(cache) == {f"{facts['sha256']}.tar"}
    shutil.rmtree(copy)


def test_a_full_disk_is_reported_at_once(shards, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as folder:
        index = ShardIndex.open(URI, Cache(folder / "cache"))
        (folder / "ballast").write_bytes(bytes(40 << 10))
        started = time.monotonic()
        with pytest.raises(ShardError, match="No space left on device; make room there"):
            for facts in index.shards:
                index.cache.open(URI, facts)
        assert time.monotonic() - started < 5
        assert not [name for name in held(index.cache) if name.endswith(".tmp")]


def test_damaged_index_arrays_in_the_cache_are_fetched_again(shards):
    index = ShardIndex.open(URI)
    path = index.root / fmt.SHOTS
    path.write_bytes(path.read_bytes()[:-1])
    assert digests(ShardIndex.open(URI).root)[fmt.SHOTS] == digests(shards)[fmt.SHOTS]


def flip(path: Path) -> None:
    """Change the middle byte of a file, and nothing else about it that `ls` shows."""
    facts, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize("size", [0, 1, 511, -1])
def test_a_cut_shard_in_the_cache_is_fetched_again(shards, caplog, size):
    index = ShardIndex.open(URI)
    facts = index.shards[1]
    index.cache.open(URI, facts).close()
    (path,) = (index.cache.folder / "shards").iterdir()
    path.write_bytes(path.read_bytes()[:size])
    assert bytes(index.cache.open(URI, facts).data) == (shards / "b c.tar").read_bytes()
    assert f"{path}: altered since it arrived; fetching it again" in caplog.text
    assert held(index.cache) == {path.name}


def test_dropping_a_shard_leaves_others_theirs_and_takes_none_that_replaced_it(shards):
    """Two readers find the same fault: the second must not delete what the first has fetched."""
    index = ShardIndex.open(URI)
    facts = index.shards[1]
    index.cache.open(URI, facts).close()
    (path,) = (index.cache.folder / "shards").iterdir()
    flip(path)
    first, second = index.cache.open(URI, facts), index.cache.open(URI, facts)
    index.cache.drop(first)
    assert held(index.cache) == set()
    fresh = index.cache.open(URI, facts)
    index.cache.drop(second)
    assert held(index.cache) == {path.name}
    whole = (shards / "b c.tar").read_bytes()
    assert bytes(fresh.data) == whole
    assert bytes(second.data) != whole  # readable still


@pytest.mark.parametrize("name", [fmt.FRAMES, fmt.SEQUENCES, fmt.SHOTS, fmt.MANIFEST])
@pytest.mark.parametrize("spoil", [flip, lambda path: path.write_bytes(b"")])
def test_an_altered_index_in_the_cache_is_fetched_again(shards, name, spoil):
    root = ShardIndex.open(URI).root
    spoil(root / name)
    assert digests(ShardIndex.open(URI).root)[name] == digests(shards)[name]


@pytest.mark.parametrize("spoil", [flip, lambda path: path.write_bytes(b"")])
def test_another_altered_file_in_the_cache_is_fetched_again(shards, spoil, caplog):
    found = local_file(f"{URI}/a.idx")
    assert local_file(f"{URI}/a.idx") == found
    assert not caplog.records
    spoil(found)
    assert local_file(f"{URI}/a.idx").read_bytes() == (shards / "a.idx").read_bytes()
    assert f"{found}: altered since it arrived" in caplog.text


def test_the_longest_name_of_a_file(shards):
    name = "Æ" * 120 + ".ckpt"  # 245 bytes
    (shards / name).write_bytes(b"weights")
    found = local_file(f"{URI}/{name}")
    (shards / name).unlink()
    assert found.read_bytes() == b"weights"
    assert found.suffix == ".ckpt"


def test_files_are_flushed_to_disk_before_they_have_their_name(shards, monkeypatch):
    flushed, fsync, replace = [], os.fsync, os.replace

    def flush(file):
        flushed.append(os.fstat(file).st_ino)
        fsync(file)

    def rename(old, new):
        assert os.stat(old).st_ino in flushed, new
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    index = ShardIndex.open(URI)
    index.cache.open(URI, index.shards[0])
    local_file(f"{URI}/a.idx")
    assert len(flushed) == 6  # manifest, three arrays, a shard, a file


@pytest.mark.parametrize("why", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_named(shards, monkeypatch, why):
    """As a call of the kernel fails there: no such file system can be mounted here."""

    def no_locks(file, kind):
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for use in (lambda: ShardIndex.open(URI), lambda: local_file(f"{URI}/a.idx")):
        with pytest.raises(ConfigError, match="this file system has no locks") as error:
            use()
        assert str(error.value).endswith("set BASSL_FAST_CACHE to a folder on a local disk")


def test_a_file_in_the_place_of_the_cache(shards, tmp_path):
    (tmp_path / "cache").write_bytes(b"")
    for use in (lambda: ShardIndex.open(URI), lambda: local_file(f"{URI}/a.idx")):
        with pytest.raises(ShardError, match="a file is in the place of a folder; set BASSL_FAST_CACHE to another"):
            use()


def test_a_full_disk_leaves_no_part_of_a_file(shards, tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", "64k") as folder:
        monkeypatch.setenv("BASSL_FAST_CACHE", str(folder / "cache"))
        (shards / "large.bin").write_bytes(bytes(100 << 10))
        with pytest.raises(ShardError, match="No space left on device; make room there, or set BASSL_FAST_CACHE"):
            local_file(f"{URI}/large.bin")
        (shards / "large.bin").unlink()
        assert not [path for path in (folder / "cache").rglob("*") if path.suffix == ".tmp"]


def test_what_is_not_there_is_not_blamed_on_the_disk(shards):
    with pytest.raises(FileNotFoundError):
        local_file(f"{URI}/none.ckpt")
