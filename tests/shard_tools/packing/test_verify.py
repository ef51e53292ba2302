"""Verify finds any change to any byte and says where; repair packs again only what is broken."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shard_tools.errors import ConfigError, ShardError
from shard_tools.packing.pack import pack
from shard_tools.packing.repair import repair
from shard_tools.packing.verify import verify
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from tests.films import digests, picture, small_disk, write_set
from tests.servers import BUCKET, Proxy, s3_server, use_s3

FILMS = {"a b": 2, "c": (0, 2), "Æ": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("source"), FILMS, {"c": "test"})


@pytest.fixture(scope="module")
def packed(tmp_path_factory, source) -> Path:
    dst = tmp_path_factory.mktemp("packed") / "shards"
    pack(source, dst)
    return dst


@pytest.fixture
def shards(packed, tmp_path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def test_a_whole_set_has_no_fault_and_every_byte_was_read(shards):
    read = []
    assert verify(shards, "all", progress=read.append) == []
    assert sum(read) == sum(path.stat().st_size for path in shards.glob("*.tar")) + os.path.getsize(shards / fmt.FRAMES)


def files() -> list[str]:
    return [f"{film}.{kind}" for film in FILMS for kind in ("tar", "idx")] + [
        *(fmt.MANIFEST, fmt.FRAMES, fmt.SEQUENCES, fmt.SHOTS)
    ]


@pytest.mark.parametrize("name", files())
def test_a_cut_at_any_byte_is_found(shards, name):
    path = shards / name
    whole = path.read_bytes()
    step = max(1, len(whole) // 24)
    for cut in {*range(0, len(whole), step), *range(max(0, len(whole) - 3), len(whole))}:
        path.write_bytes(whole[:cut])
        if name == fmt.MANIFEST and json_whole(whole[:cut]):
            continue  # the newline at its end
        faults = verify(shards, "none")
        assert faults, cut
        assert all(name in fault or name.replace(".idx", ".tar") in fault for fault in faults[:1]), faults


def json_whole(data: bytes) -> bool:
    try:
        return bool(json.loads(data))
    except ValueError:
        return False


@pytest.mark.parametrize("name", files())
def test_a_flipped_bit_anywhere_is_found(shards, name):
    path = shards / name
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(len(whole))
    for at in {0, len(whole) - 1, *rng.integers(0, len(whole), 32).tolist()}:
        bit = 1 << int(rng.integers(8))
        whole[at] ^= bit
        path.write_bytes(whole)
        assert verify(shards, "none"), (at, bit)
        whole[at] ^= bit


def test_faults_name_film_shot_and_offset(shards):
    index = ShardIndex.open(shards)
    _, member, offset = index.locate(4)
    tar = shards / "a b.tar"
    data = bytearray(tar.read_bytes())
    data[offset + 100] ^= 4
    tar.write_bytes(data)
    where = f"{tar}: a b/shot_0001.1.jpg at byte {offset}: "
    assert member == "a b/shot_0001.1.jpg"
    assert verify(shards) == [f"{where}bytes differ from the index (crc32); copy the shard again or repair"]
    data[offset + 100] ^= 4
    data[offset - 300] ^= 1
    tar.write_bytes(data)
    assert verify(shards) == [f"{where}its tar header differs; copy the shard again or repair"]
    tar.write_bytes(tar.read_bytes()[: offset + 10])
    faults = verify(shards)
    assert f"{offset + 10} bytes, the manifest says" in faults[0]
    assert f"{where}cut off, the shard ends at byte {offset + 10}" in faults[1]


def test_missing_and_foreign_files_are_all_named(shards):
    (shards / "c.tar").unlink()
    (shards / "a b.idx").unlink()
    (shards / "stranger.tar").write_bytes(b"x")
    faults = verify(shards)
    assert [next(name for name in ("c.tar", "a b.idx", "stranger.tar") if f"/{name}" in fault) for fault in faults] == [
        "c.tar",
        "stranger.tar",
        "a b.idx",
    ]


def test_two_swapped_shards(shards):
    (shards / "a b.tar").rename(shards / "x")
    (shards / "c.tar").rename(shards / "a b.tar")
    (shards / "x").rename(shards / "c.tar")
    assert {Path(fault.split(": ")[0]).name for fault in verify(shards, "none")} == {"a b.tar", "c.tar"}


def test_the_index_of_another_pack(shards, source, tmp_path):
    other = write_set(tmp_path / "other", FILMS, {"c": "test"}, size=(64, 32))
    pack(other, tmp_path / "others")
    for name in (fmt.FRAMES, fmt.SEQUENCES, fmt.SHOTS, fmt.MANIFEST):
        shutil.copy(tmp_path / "others" / name, shards / name)
    faults = verify(shards)
    assert {Path(fault.split(": ")[0]).name for fault in faults} >= {"a b.tar", "c.tar", "Æ.tar"}


def test_decoding_finds_what_was_packed_broken(tmp_path):
    source = write_set(tmp_path / "source", {"f": 3})
    broken = bytearray(picture(7))
    broken[broken.index(b"\xff\xda") + 4] ^= 0xFF
    (source / "240P_frames" / "f" / "shot_0001_img_1.jpg").write_bytes(broken)
    pack(source, tmp_path / "shards")
    assert verify(tmp_path / "shards", "none") == []
    (fault,) = verify(tmp_path / "shards", "all")
    assert "f/shot_0001.1.jpg at byte" in fault
    assert "cannot be decoded" in fault


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


def spoil(shards: Path, name: str) -> None:
    (shards / name).write_bytes(flipped((shards / name).read_bytes()))


@pytest.mark.parametrize(
    ("broken", "packed_again"),
    [
        (["c.tar"], {"c.tar"}),
        (["a b.idx"], {"a b.tar"}),
        ([fmt.FRAMES], set()),
        ([fmt.SHOTS, fmt.SEQUENCES], set()),
        ([fmt.MANIFEST], {"a b.tar", "c.tar", "Æ.tar"}),
        ([], set()),
    ],
)
def test_repair_packs_again_only_what_is_broken(shards, packed, source, broken, packed_again):
    for name in broken:
        spoil(shards, name)
    assert bool(verify(shards)) == bool(broken)
    before = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.tar")}
    repair(shards, source)
    assert digests(shards) == digests(packed)
    after = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.tar")}
    assert {name for name in before if before[name] != after[name]} == packed_again


def test_verifying_again_opens_the_repaired_set(shards, source):
    """As on the nodes of a cluster, whose processes outlive a call."""
    data = bytearray((shards / "frames.npy").read_bytes())
    data[-1] ^= 1
    (shards / "frames.npy").write_bytes(data)
    assert verify(shards, each=lambda task, items, name: map(task, items))
    repair(shards, source)
    assert verify(shards, each=lambda task, items, name: map(task, items)) == []


def test_repair_of_a_missing_shard(shards, packed, source):
    (shards / "c.tar").unlink()
    repair(shards, source)
    assert digests(shards) == digests(packed)


def test_a_folder_that_holds_no_set_is_not_repaired(source, tmp_path):
    """Its tars may be the source."""
    (tmp_path / "c.tar").write_bytes(b"precious")
    with pytest.raises(ShardError, match=r"manifest\.json: missing, so there is no set to repair"):
        repair(tmp_path, source)
    assert [path.name for path in tmp_path.iterdir()] == ["c.tar"]


def test_a_stopped_repair_is_a_stopped_pack(shards, packed, source, monkeypatch):
    spoil(shards, "c.tar")
    with monkeypatch.context() as patch:
        patch.setattr("shard_tools.packing.pack.write_index", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repair(shards, source)
    with pytest.raises(ShardError, match="not a finished set"):
        ShardIndex.open(shards)
    pack(source, shards)
    assert digests(shards) == digests(packed)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder) as port:
        yield folder / BUCKET, port


@pytest.fixture
def there(packed, server, tmp_path, monkeypatch) -> Path:
    """A remote set that is in the cache of this machine; its address is `URI`."""
    bucket, port = server
    use_s3(monkeypatch, port)
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    shutil.rmtree(bucket, ignore_errors=True)
    shutil.copytree(packed, bucket / "shards")
    index = ShardIndex.open(URI)
    for facts in index.shards:
        index.cache.open(URI, facts).close()
    return bucket / "shards"


URI = f"s3://{BUCKET}/shards"


def test_a_remote_set(there, tmp_path):
    read = []
    assert verify(URI, "all", progress=read.append) == []
    assert sum(read) == sum(path.stat().st_size for kind in ("tar", "npy") for path in there.glob(f"*.{kind}"))
    with pytest.raises(ShardError, match="only a local set can be repaired"):
        repair(URI, tmp_path)


@pytest.mark.parametrize("name", ["c.tar", "c.idx", fmt.FRAMES, fmt.SEQUENCES, fmt.SHOTS, fmt.MANIFEST])
def test_what_is_remote_is_verified_though_the_cache_is_whole(there, name):
    path = there / name
    whole = path.read_bytes()
    for fault in (None, whole[: len(whole) // 2], flipped(whole)):
        path.unlink() if fault is None else path.write_bytes(fault)
        found = verify(URI)
        assert found
        assert all(line.startswith(f"{URI}/{name}: ") for line in found), found
        if "c." in name:  # as of a local set
            assert found == [line.replace(str(there), URI) for line in verify(there)]


def test_a_remote_set_needs_no_room_in_the_cache(there, monkeypatch):
    monkeypatch.setenv("BASSL_FAST_CACHE_GIB", "1e-6")
    assert verify(URI) == []
    spoil(there, "c.tar")
    assert len(verify(URI)) == 1


def test_a_remote_set_that_films_are_being_added_to(there):
    for name in ("d.tar", "d.idx", ".pack/d.npz", "e.tar"):
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).touch()
    assert verify(URI) == [f"{URI}/e.tar: not of this set; move it away"]


def test_a_remote_set_that_is_gone(there):
    shutil.rmtree(there)
    (fault,) = verify(URI)
    assert fault.startswith(f"{URI}/{fmt.MANIFEST}: missing")


def test_a_damaged_remote_set_on_a_cluster(there):
    spoil(there, "c.tar")
    (fault,) = verify(URI, each=lambda task, items, name: map(task, items))
    assert fault.startswith(f"{URI}/c.tar: ")


def test_a_network_that_spoils_one_answer_is_no_fault(there, server, monkeypatch):
    proxy = Proxy(server[1], lambda request: request.startswith(b"GET") and b"/c.tar" in request[:200])
    proxy.faults.append("wrong")
    use_s3(monkeypatch, proxy.port)
    assert verify(URI) == []
    assert proxy.spoilt == 1
    proxy.close()


def test_no_room_for_temporary_files(there, tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", "4k") as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with pytest.raises(ShardError, match="No space left on device; set TMPDIR to a folder with more space"):
            verify(URI)


def test_a_mistake_here_is_no_fault_of_the_set(there, monkeypatch):
    monkeypatch.setenv("BASSL_FAST_CACHE_GIB", "nan")
    with pytest.raises(ConfigError, match="must be a positive number of GiB"):
        verify(URI)
