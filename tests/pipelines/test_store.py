from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.store import Store
from shard_tools.annotations.movienet import keyframe_name
from shard_tools.errors import PictureError, ShardError
from shard_tools.packing.pack import pack
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.cache import Cache
from tests.films import write_film
from tests.servers import BUCKET, KEY, SECRET, Proxy, use_s3

from .conftest import FILMS


def test_bytes_are_those_of_the_files_in_order_of_film_shot_and_image(shards: ShardIndex, source: Path):
    names = [
        source / "240P_frames" / film / keyframe_name(shot, image)
        for film in sorted(FILMS)
        for shot in range(FILMS[film][0])
        for image in range(FILMS[film][1])
    ]
    pictures = Store(shards).read(np.arange(len(shards.frames)))
    assert [picture.tobytes() for picture in pictures] == [name.read_bytes() for name in names]


def test_rows_come_in_any_order_and_repeated(shards: ShardIndex):
    store = Store(shards)
    every = store.read(np.arange(len(shards.frames)))
    rows = np.random.default_rng(0).integers(0, len(every), 50)
    assert all((picture == every[row]).all() for picture, row in zip(store.read(rows), rows, strict=True))


def test_more_shards_than_may_be_mapped(shards: ShardIndex):
    store, whole = Store(shards, mapped=1), Store(shards)
    first_rows = shards.sequences["first_frame"].astype(np.int64)
    for rows in (first_rows, first_rows[::-1]):
        assert all((a == b).all() for a, b in zip(store.read(rows), whole.read(rows), strict=True))


def test_a_changed_byte_is_found_and_named(shards: ShardIndex, tmp_path: Path):
    root = shutil.copytree(shards.root, tmp_path / "shards")
    index = ShardIndex.open(root)
    frame = 17
    offset = int(index.frames[:]["offset"][frame])
    shard, member, at = index.locate(frame)
    with tarfile.open(shard) as tar:
        assert tar.getmember(member).offset_data == at == offset
    data = bytearray(Path(shard).read_bytes())
    data[offset + 99] ^= 1
    Path(shard).write_bytes(data)

    store = Store(index)
    store.read(np.setdiff1d(np.arange(len(index.frames)), [frame]))
    for _ in range(2):  # not taken for good the second time
        with pytest.raises(PictureError) as error:
            store.read(np.array([3, frame]))
        assert str(error.value).startswith(f"{shard}: {member} at byte {offset}: ")


# --- remote shards


@pytest.fixture
def remote(served: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ShardIndex:
    use_s3(monkeypatch, served)
    return ShardIndex.open(f"s3://{BUCKET}/shards", Cache(tmp_path / "cache", wait=30))


def cached(index: ShardIndex) -> int:
    return len(list((index.cache.folder / "shards").glob("*.tar")))


def test_a_remote_store_gives_the_same_bytes(shards: ShardIndex, remote: ShardIndex):
    every = np.arange(len(shards.frames))
    for mine, theirs in zip(Store(remote).read(every), Store(shards).read(every), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def cached_shard(index: ShardIndex, shard: int) -> Path:
    return index.cache.folder / "shards" / f"{index.shards[shard]['sha256']}.tar"


def alter(path: Path, offset: int) -> None:
    """Change three bytes, and nothing else that shows."""
    facts = path.stat()
    with open(path, "r+b") as file:
        file.seek(offset)
        data = bytes(byte ^ 1 for byte in file.read(3))
        file.seek(offset)
        file.write(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize("for_gpu", [False, True])
@pytest.mark.parametrize("mapped", [1, 256])
def test_a_changed_byte_in_the_cache_costs_a_download_and_changes_no_pixel(
    shards: ShardIndex, remote: ShardIndex, caplog: pytest.LogCaptureFixture, for_gpu: bool, mapped: int
):
    every = np.arange(len(shards.frames))
    Store(remote).read(every)  # warm
    frame = 17
    shard = int(shards.sequences["shard"][Store(shards).films_of(np.array([frame]))[0]])
    path, offset = cached_shard(remote, shard), int(shards.frames[frame]["offset"])
    alter(path, offset + 99)
    with remote.cache.open(remote.address, remote.shards[shard]).file:  # by another process
        store = Store(remote, mapped=mapped, for_gpu=for_gpu)
        for mine, theirs in zip(store.read(every[::-1]), Store(shards).read(every[::-1]), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert caplog.messages == [f"{path}: altered since it arrived; fetching it again"]
    assert path.read_bytes() == (shards.root / shards.shards[shard]["name"]).read_bytes()


def test_the_remote_is_blamed_only_for_what_it_sends(remote: ShardIndex, served: int, monkeypatch: pytest.MonkeyPatch):
    store = Store(remote)
    store.read(np.array([0]))
    alter(cached_shard(remote, 0), int(remote.frames[0]["offset"]))
    proxy = Proxy(served, spoils=lambda request: request.startswith(b"GET") and b".tar" in request.split(b"\r\n")[0])
    proxy.faults.extend(["wrong"] * 2)
    use_s3(monkeypatch, proxy.port)
    with closing(proxy), pytest.raises(ShardError, match=r"\.tar: differs from its manifest, replaced or damaged"):
        Store(remote).read(np.array([0]))
    assert not cached_shard(remote, 0).exists()


def test_an_index_of_other_shards_is_fetched_for_once(remote: ShardIndex, monkeypatch: pytest.MonkeyPatch):
    """Its shards are as its manifest says, but no picture is as the index says."""
    wrong = np.array(remote.frames)
    wrong["crc32"] ^= 1
    index, fetched = replace(remote, frames=wrong), []
    fetch = Cache._fetch
    monkeypatch.setattr(Cache, "_fetch", lambda self, *args: fetched.append(args[2]) or fetch(self, *args))
    store, first = Store(index), index.sequences["first_frame"].astype(np.int64)
    for frame in (first[0], first[0] + 1, first[1], first[0]):
        _, faults = store.check(np.array([frame]))
        assert faults == {frame: "bytes differ from the index (crc32)"}
    assert len(fetched) == 4  # two shards, each once and once again


def test_a_cache_of_one_shard_is_enough_for_one_reader(shards: ShardIndex, remote: ShardIndex, tmp_path: Path):
    largest = max(shard["bytes"] for shard in shards.shards)
    index = ShardIndex.open(remote.address, Cache(tmp_path / "small", limit=largest, wait=30))
    store, rows = Store(index), np.random.default_rng(1).permutation(len(shards.frames))
    store.fetch_ahead(rows)
    for mine, theirs in zip(store.read(rows), Store(shards).read(rows), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert sum(path.stat().st_size for path in (index.cache.folder / "shards").glob("*.tar")) <= largest


ENDS = """
import sys, time
from pipelines.store import Store
from shard_tools.storage.cache import Cache
from shard_tools.shards.index import ShardIndex

index = ShardIndex.open(sys.argv[1], Cache(sys.argv[2]))
store = Store(index)
store.fetch_ahead(index.sequences["first_frame"].astype(int))
sys.stdin.readline()
print(time.time())
"""


def test_a_program_that_ends_does_not_wait_for_downloads(
    served: int, remote: ShardIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    proxy = Proxy(served, spoils=lambda request: request.startswith(b"GET") and b".tar" in request)
    proxy.faults.extend(["stall"] * 10)
    use_s3(monkeypatch, proxy.port)
    command = [sys.executable, "-c", ENDS, remote.address, str(tmp_path / "other")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with closing(proxy), subprocess.Popen(command, **pipes) as program:
        for _ in range(600):
            if proxy.spoilt:
                break
            time.sleep(0.1)
        assert proxy.spoilt
        said, _ = program.communicate("end\n", timeout=60)
    assert program.returncode == 0
    assert time.time() - float(said) < 5  # one stalled read is given up after 10


def test_shards_are_downloaded_ahead_and_no_thread_remains(remote: ShardIndex):
    store, threads = Store(remote), threading.active_count()
    store.fetch_ahead(np.arange(len(remote.frames)))
    for _ in range(400):
        if cached(remote) == len(remote.shards):
            break
        time.sleep(0.02)
    assert cached(remote) == len(remote.shards)
    del store
    for _ in range(400):
        if threading.active_count() <= threads:
            break
        time.sleep(0.02)
    assert threading.active_count() <= threads


def test_a_shard_deleted_from_the_cache_while_reading(shards: ShardIndex, remote: ShardIndex):
    store, every = Store(remote), np.arange(len(shards.frames))
    half = len(every) // 2
    store.read(every[:half])
    for path in (remote.cache.folder / "shards").iterdir():
        path.unlink()
    for mine, theirs in zip(store.read(every), Store(shards).read(every), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_loader_over_remote_shards_gives_the_same_batches(make_loader, remote: ShardIndex, tmp_path: Path):
    largest = max(shard["bytes"] for shard in remote.shards)
    small = ShardIndex.open(remote.address, Cache(tmp_path / "small", limit=largest, wait=30))
    for local, here, there in zip(make_loader(), make_loader(remote), make_loader(small), strict=True):
        torch.testing.assert_close(here["images"], local["images"], rtol=0, atol=0)
        torch.testing.assert_close(there["images"], local["images"], rtol=0, atol=0)


def test_pools_fetch_a_shard_once_an_epoch_though_the_cache_does_not_hold_all(
    make_loader, shards: ShardIndex, remote: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fetched, fetch = [], Cache._fetch

    def counting(self, fs, path, name, *rest):
        fetched.append(name)
        return fetch(self, fs, path, name, *rest)

    monkeypatch.setattr(Cache, "_fetch", counting)
    two = sum(sorted(shard["bytes"] for shard in remote.shards)[-2:])
    index = ShardIndex.open(remote.address, Cache(tmp_path / "small", limit=two, wait=30))
    fetched.clear()
    for ours, theirs in zip(*(make_loader(i, pool=1, global_batch=1) for i in (index, shards)), strict=True):
        torch.testing.assert_close(ours["images"], theirs["images"], rtol=0, atol=0)
    assert len(fetched) <= 6  # two films, one in two parts, and two ahead of the next epoch


def test_a_cache_too_small_for_the_order_is_reported(
    make_loader, remote: ShardIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    largest = max(shard["bytes"] for shard in remote.shards)
    index = ShardIndex.open(remote.address, Cache(tmp_path / "small", limit=largest, wait=30))
    make_loader(index, pool=1)
    assert not caplog.records
    make_loader(index)
    assert "shuffling all films needs" in caplog.text
    assert "choose a pool of at most 1 films" in caplog.text


def test_dali_reads_the_tars_from_s3_through_our_idx(remote: ShardIndex, shards: ShardIndex):
    dali = pytest.importorskip("nvidia.dali", reason="needs DALI (an extra such as cuda130)")
    if int(dali.__version__.split(".")[0]) < 2:
        pytest.skip("needs DALI 2.0, which reads s3://")
    film = shards.films.index("wide")

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        uri = f"{remote.address}/wide"
        ext = ["0.jpg", "1.jpg", "2.jpg"]
        return tuple(dali.fn.readers.webdataset(paths=[f"{uri}.tar"], index_paths=[f"{shards.root}/wide.idx"], ext=ext))

    reader = pipeline()
    reader.build()
    first = int(shards.sequences["first_frame"][film])
    found = [bytes(bytearray(image.at(0))) for _ in range(FILMS["wide"][0]) for image in reader.run()]
    expected = Store(shards).read(np.arange(first, first + len(found)))
    assert found == [picture.tobytes() for picture in expected]


def test_tar_and_webdataset_read_what_is_streamed_from_s3(remote: ShardIndex, shards: ShardIndex, monkeypatch):
    webdataset = pytest.importorskip("webdataset", reason="needs webdataset, which the environment of CUDA 11 lacks")
    for key, value in {
        "TYPE": "s3",
        "PROVIDER": "Rclone",
        "ENDPOINT": os.environ["AWS_ENDPOINT_URL"],
        "ACCESS_KEY_ID": KEY,
        "SECRET_ACCESS_KEY": SECRET,
    }.items():
        monkeypatch.setenv(f"RCLONE_CONFIG_THERE_{key}", value)
    stream = f"{Path(sys.executable).with_name('rclone')} cat --config '' there:{BUCKET}/shards/wide.tar"
    names = subprocess.run(f"{stream} | tar t", shell=True, check=True, capture_output=True, text=True, timeout=30)
    film = shards.films.index("wide")
    first = int(shards.sequences["first_frame"][film])
    rows = np.arange(first, first + FILMS["wide"][0] * FILMS["wide"][1])
    assert names.stdout.splitlines() == [shards.locate(int(row))[1] for row in rows]
    samples = webdataset.WebDataset(f"pipe:{stream}", shardshuffle=False)
    found = [sample[f"{k}.jpg"] for sample in samples for k in range(FILMS["wide"][1])]
    assert found == [picture.tobytes() for picture in Store(shards).read(rows)]


def test_a_key_frame_beyond_four_gigabytes(shards: ShardIndex, tmp_path: Path):
    """The tar is sparse: 5 GiB of nothing, then the last key-frame."""
    folder = tmp_path / "shards"
    write_film(tmp_path / "source", "long", 1, images=2)
    pack(tmp_path / "source", folder)
    index = ShardIndex.open(folder)
    frames, whole = np.array(index.frames), (folder / "long.tar").read_bytes()
    start, far = int(frames["offset"][1]) - 512, 5 << 30
    with open(folder / "long.tar", "r+b") as tar:
        tar.truncate(start)
        tar.seek(far)
        tar.write(whole[start:])
    frames["offset"][1] = far + 512
    data = fmt.npy_bytes(frames)
    (folder / fmt.FRAMES).write_bytes(data)
    manifest = json.loads((folder / fmt.MANIFEST).read_text())
    manifest["index"][fmt.FRAMES] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["shards"][0]["bytes"] = far + len(whole) - start
    (folder / fmt.MANIFEST).write_text(json.dumps(manifest))
    opened = ShardIndex.open(folder)
    assert opened.locate(1) == (f"{folder}/long.tar", "long/shot_0000.1.jpg", far + 512)
    first, second = Store(opened).read(np.array([0, 1]))
    source = tmp_path / "source" / "240P_frames" / "long"
    assert first.tobytes() == (source / "shot_0000_img_0.jpg").read_bytes()
    assert second.tobytes() == (source / "shot_0000_img_1.jpg").read_bytes()
