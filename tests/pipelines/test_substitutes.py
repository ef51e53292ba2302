"""What a loader does with broken key-frames, broken shards and errors of its caller."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline
from PIL import Image

from pipelines.dali import fn, pipeline_def, types
from pipelines.jpeg_structure import structure_fault
from pipelines.loader import FilmLoader, WindowLoader
from pipelines.samples import Centers, Drawn
from pipelines.store import Store
from pipelines.stream import Request, Stream
from pipelines.substitutes import Substitutes, decoder_fault, undecodable
from pipelines.views import VIEW, TestViews
from shard_tools.annotations.movienet import keyframe_name
from shard_tools.errors import ConfigError, DeviceError, PictureError, ShardError
from shard_tools.packing.pack import pack
from shard_tools.shards.format import FRAMES, MANIFEST, npy_bytes
from shard_tools.shards.index import ShardIndex

from .conftest import SIZE, STEPS, Batch, MakeLoader, assert_all_equal, assert_equal, flip_byte, sample, whole_loader

EVAL = TestViews(short_side=40, size=32)
Damage = Callable[[bytes], bytes]


def with_flipped_byte(shards: ShardIndex, root: Path, frame: int) -> tuple[ShardIndex, str]:
    """A copy of the shards with one byte of a key-frame changed, and how its error begins."""
    index = ShardIndex.open(shutil.copytree(shards.root, root))
    flip_byte(index, frame)
    shard, member, offset = index.locate(frame)
    return index, f"{shard}: {member} at byte {offset}: "


def step_of_first_use(loader: WindowLoader, least: int) -> tuple[int, int]:
    """A key-frame that no step of the first epoch before `least` takes, and the step that takes it first."""
    seen: set[int] = set()
    for step in range(len(loader)):
        frames = set(loader.draw(0, step)[1].views["frame"].ravel().tolist())
        if step >= least and frames - seen:
            return min(frames - seen), step
        seen |= frames
    raise AssertionError("no such key-frame")


def without_huffman_codes(data: bytes) -> bytes:
    """All markers are there, so only decoding finds it."""
    table = data.index(b"\xff\xc4")
    return data[: table + 5] + bytes(16) + data[table + 21 :]


def cut_short(index: ShardIndex, frame: int) -> ShardIndex:
    """Index and checksum end a key-frame at 70 % of its bytes, so regions at its top can still be decoded."""
    frames = index.frames[:].copy()
    start, size = int(frames["offset"][frame]), int(0.7 * frames["size"][frame])
    frames["size"][frame] = size
    frames["crc32"][frame] = zlib.crc32(Path(index.locate(frame)[0]).read_bytes()[start : start + size])
    data = npy_bytes(frames)
    (index.root / FRAMES).write_bytes(data)
    manifest = json.loads((index.root / MANIFEST).read_text())
    manifest["index"][FRAMES] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (index.root / MANIFEST).write_text(json.dumps(manifest))
    return ShardIndex.open(index.root)


def pack_damaged(source: Path, shards: ShardIndex, root: Path, damage: dict[int, Damage]) -> ShardIndex:
    """The shards packed again with some key-frames damaged before, so that their checksums agree."""
    shutil.copytree(source, root / "films")
    for frame, spoil in damage.items():
        film, shot, image = re.fullmatch(r"(\w+)/shot_(\d+).(\d).jpg", shards.locate(frame)[1]).groups()
        path = root / "films" / "240P_frames" / film / keyframe_name(int(shot), int(image))
        path.write_bytes(spoil(path.read_bytes()))
    pack(root / "films", root / "shards", quiet=True)
    return ShardIndex.open(root / "shards")


# --- Raising, which is the default ---


class Undecodable(NamedTuple):
    index: ShardIndex
    frame: int
    says: str  # how its error begins


@pytest.fixture(scope="module")
def undecodable_set(shards: ShardIndex, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Undecodable:
    frame, _ = step_of_first_use(whole_loader(shards), 3)
    index = pack_damaged(source, shards, tmp_path_factory.mktemp("damaged"), {frame: without_huffman_codes})
    shard, member, offset = index.locate(frame)
    return Undecodable(index, frame, f"{shard}: {member} at byte {offset}: cannot be decoded")


@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_changed_byte_raises_naming_the_picture(
    make_loader: MakeLoader, shards: ShardIndex, two_epochs: list[Batch], tmp_path: Path, prefetch: int
):
    frame, step = step_of_first_use(make_loader(), 4)
    index, says = with_flipped_byte(shards, tmp_path / "shards", frame)
    loader, seen = make_loader(index, prefetch=prefetch), []
    with pytest.raises(PictureError) as error:
        seen += iter_into(loader, seen)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)
    assert len(seen) <= step
    assert_all_equal(seen, two_epochs[: len(seen)])
    assert loader.state_dict() == {"epoch": 0, "step": len(seen)}

    with pytest.raises(PictureError, match="crc32"):  # no way around it
        list(loader)
    flip_byte(index, frame)
    assert_all_equal(list(loader), two_epochs[len(seen) : STEPS])


def iter_into(loader: WindowLoader, seen: list[Batch]) -> Iterator[Batch]:
    """Collect in `seen` the batches before an error."""
    for batch in loader:
        seen.append(batch)
    return iter(())


def steps_without(loader: WindowLoader, frame: int) -> list[int]:
    """Steps of the first epoch whose batch does not hold the key-frame."""
    return [step for step in range(STEPS) if not (loader.draw(0, step)[1].views["frame"] == frame).any()]


@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_jpeg_that_cannot_be_decoded_raises_naming_it(
    make_loader: MakeLoader, undecodable_set: Undecodable, prefetch: int
):
    index, _, says = undecodable_set
    loader = make_loader(index, prefetch=prefetch)
    for _ in range(2):
        with pytest.raises(PictureError) as error:
            for _ in range(3):
                list(loader)
        assert str(error.value).startswith(says)
        assert "\n" not in str(error.value)
        assert "return fn." not in str(error.value)  # DALI 2 quotes our source


def test_a_new_iteration_works_after_an_error(
    make_loader: MakeLoader, undecodable_set: Undecodable, two_epochs: list[Batch]
):
    index, bad, _ = undecodable_set
    loader = make_loader(index, prefetch=1)
    whole = steps_without(loader, bad)
    assert whole != list(range(STEPS))
    for step in range(STEPS):
        loader.load_state_dict({"epoch": 0, "step": step})
        if step in whole:
            assert_equal(next(iter(loader)), two_epochs[step])
        else:
            with pytest.raises(PictureError):
                next(iter(loader))


def test_a_broken_picture_in_flight_does_not_stop_a_jump(
    make_loader: MakeLoader, undecodable_set: Undecodable, two_epochs: list[Batch]
):
    index, bad, _ = undecodable_set
    loader = make_loader(index, prefetch=2)
    whole = steps_without(loader, bad)
    before = next(step for step in whole if step + 1 < STEPS and step + 1 not in whole)
    loader.load_state_dict({"epoch": 0, "step": before})
    with suppress(PictureError):  # DALI 1 may tell of a picture ahead before the batches in front of it are out
        assert_equal(next(iter(loader)), two_epochs[before])
    elsewhere = next(step for step in whole if step + 1 in whole)
    loader.load_state_dict({"epoch": 0, "step": elsewhere})
    assert_equal(next(iter(loader)), two_epochs[elsewhere])


def test_film_loader_names_a_broken_picture(shards: ShardIndex, undecodable_set: Undecodable, tmp_path: Path):
    flipped, crc_says = with_flipped_byte(shards, tmp_path / "shards", 30)
    for index, says in ((undecodable_set.index, undecodable_set.says), (flipped, crc_says)):
        with pytest.raises(PictureError) as error:
            list(FilmLoader(index, index.select(None), EVAL, batch=8))
        assert str(error.value).startswith(says)


# --- Showing another key-frame ---


class Broken(NamedTuple):
    """Shards with three kinds of faults, each used in the first epoch, and a whole shot that is broken."""

    index: ShardIndex
    flipped: int
    spoilt: int
    cut: int
    shot: list[int]


@pytest.fixture(scope="module")
def broken(shards: ShardIndex, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Broken:
    wide = int(shards.sequences["first_frame"][2])
    spoilt, cut, flipped, shot = (
        wide + 3 * 9 + 1,
        wide + 3 * 12,
        wide + 3 * 14 + 2,
        [wide + 3 * 4 + k for k in range(3)],
    )
    damage = {spoilt: without_huffman_codes, shot[0]: without_huffman_codes}
    index = cut_short(pack_damaged(source, shards, tmp_path_factory.mktemp("broken"), damage), cut)
    for frame in (flipped, *shot[1:]):
        flip_byte(index, frame)
    return Broken(index, flipped, spoilt, cut, shot)


def substituted(broken: Broken, store: Store) -> Callable[[Centers, np.random.Generator], Drawn]:
    """The sampler, but drawing the substitutes of the broken key-frames."""
    instead = {
        broken.flipped: broken.flipped - 2,  # the first of its shot follows the last
        broken.spoilt: broken.spoilt + 1,
        **dict.fromkeys(broken.shot[:1], broken.shot[0] + 3),  # of the shot after it
        broken.shot[1]: broken.shot[1] + 3,
        broken.shot[2]: broken.shot[2] + 3,
    }

    def drawn(centers: Centers, rng: np.random.Generator) -> Drawn:
        drawn = sample(centers, rng)
        for row in np.nditer(drawn.views, op_flags=["readwrite"], flags=["zerosize_ok"]):
            frame = int(row["frame"])
            if frame == broken.cut and undecodable(store.read(np.array([frame])), np.array([row])):
                row["frame"] += 1
            row["frame"] = instead.get(frame, row["frame"])
        return drawn

    return drawn


@pytest.fixture(scope="module")
def substituted_epochs(shards: ShardIndex, broken: Broken) -> list[Batch]:
    """Two epochs of the substitutes, from undamaged shards."""
    damaged = Store(broken.index)
    loader = WindowLoader(shards, shards.select(None), substituted(broken, damaged), SIZE, global_batch=4, seed=3)
    return [*loader, *loader]


@pytest.mark.parametrize("prefetch", [1, 3])
def test_another_key_frame_of_its_film_is_shown(
    make_loader: MakeLoader, broken: Broken, substituted_epochs: list[Batch], two_epochs: list[Batch], prefetch: int
):
    loader = make_loader(broken.index, prefetch=prefetch, max_broken=1.0)
    found = [*loader, *loader]
    changed = [not torch.equal(a["images"], b["images"]) for a, b in zip(found, two_epochs, strict=True)]
    assert 0 < sum(changed) < len(changed)
    assert_all_equal(found, substituted_epochs)


def test_it_does_not_depend_on_which_process_meets_a_fault_first(
    make_loader: MakeLoader, broken: Broken, substituted_epochs: list[Batch]
):
    ranks = [make_loader(broken.index, rank=rank, world_size=4, max_broken=1.0) for rank in range(4)]
    parts = [part for _ in range(2) for part in zip(*ranks, strict=True)]
    assert_all_equal([{k: torch.cat([p[k] for p in part]) for k in part[0]} for part in parts], substituted_epochs)


def test_a_resume_shows_the_same(make_loader: MakeLoader, broken: Broken, substituted_epochs: list[Batch]):
    loader = make_loader(broken.index, max_broken=1.0)
    loader.load_state_dict({"epoch": 1, "step": 2})
    assert_all_equal(list(loader), substituted_epochs[STEPS + 2 :])


def test_every_broken_key_frame_is_logged_once(
    make_loader: MakeLoader, broken: Broken, caplog: pytest.LogCaptureFixture
):
    loader = make_loader(broken.index, max_broken=1.0)
    for _ in range(3):
        list(loader)
    lines = [record.getMessage() for record in caplog.records]
    for frame in (broken.flipped, broken.spoilt, broken.cut, *broken.shot):
        shard, member, offset = broken.index.locate(frame)
        assert sum(line.startswith(f"{shard}: {member} at byte {offset}: ") for line in lines) == 1
    assert len(lines) == 6
    assert all(line.endswith("another key-frame is shown instead") for line in lines)


def test_the_run_stops_above_the_rate_and_not_below(make_loader: MakeLoader, broken: Broken):
    loader, views = make_loader(broken.index, max_broken=1.0), STEPS * 4 * 7
    replaced = sum(
        int(np.isin(loader.draw(0, step)[1].views["frame"], [broken.flipped, broken.spoilt, *broken.shot]).sum())
        for step in range(STEPS)
    )
    assert 0 < replaced < views / 2
    seen: list[Batch] = []
    loader = make_loader(broken.index, max_broken=(replaced - 0.5) / views)
    with pytest.raises(PictureError, match=rf"{replaced} of the last {views} views show a substitute"):
        iter_into(loader, seen)
    assert len(seen) == STEPS - 1
    for _ in make_loader(broken.index, max_broken=(replaced + 20) / views):  # and some of the cut one
        pass


def test_a_film_with_only_broken_key_frames_raises(make_loader: MakeLoader, shards: ShardIndex, tmp_path: Path):
    index = ShardIndex.open(shutil.copytree(shards.root, tmp_path / "shards"))
    tiny = int(index.sequences["first_frame"][1])
    for frame in range(tiny, tiny + 9):
        flip_byte(index, frame)
    with pytest.raises(PictureError, match=r"tiny/shot_000\d.\d.jpg at byte \d+: broken, as are all key-frames"):
        list(make_loader(index, max_broken=1.0))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_bad_rate_is_refused(make_loader: MakeLoader, rate: float):
    with pytest.raises(ConfigError, match="max_broken"):
        make_loader(max_broken=rate)


# --- Errors from elsewhere ---


@pytest.mark.parametrize("error", [ValueError, RuntimeError, StopIteration, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("max_broken", [0.0, 1.0])
def test_an_error_while_drawing_is_raised_and_the_loader_works_afterwards(
    shards: ShardIndex, two_epochs: list[Batch], error: type[BaseException], max_broken: float
):
    calls = iter(range(100))

    def failing(centers: Centers, rng: np.random.Generator) -> Drawn:
        if next(calls) == 4:
            raise error("spilt coffee")
        return sample(centers, rng)

    kwargs = {"global_batch": 4, "seed": 3, "max_broken": max_broken}
    loader, seen = WindowLoader(shards, shards.select(None), failing, SIZE, **kwargs), []
    with pytest.raises(RuntimeError if error is StopIteration else error):  # a generator may not raise StopIteration
        iter_into(loader, seen)
    assert len(seen) < 4
    assert_all_equal([*seen, *loader, *loader], two_epochs)


@pytest.mark.parametrize("call", range(7))
def test_an_interrupt_loses_and_repeats_nothing(shards: ShardIndex, two_epochs: list[Batch], call: int):
    """A real signal, which comes while the loader's thread makes a batch, ahead of its use or awaited."""
    calls = iter(range(100))

    def interrupting(centers: Centers, rng: np.random.Generator) -> Drawn:
        if next(calls) == call:
            time.sleep(0.05)  # until the caller waits for this batch
            os.kill(os.getpid(), signal.SIGINT)
        return sample(centers, rng)

    loader, seen = WindowLoader(shards, shards.select(None), interrupting, SIZE, global_batch=4, seed=3), []
    interrupted = 0
    while len(seen) < len(two_epochs):
        try:
            for batch in loader:
                seen.append(batch)
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted == 1
    assert_all_equal(seen, two_epochs)


def test_an_error_anywhere_loses_and_repeats_nothing(
    make_loader: MakeLoader, two_epochs: list[Batch], monkeypatch: pytest.MonkeyPatch
):
    """Between DALI and the tensor, and between the tensor and the batch; one more batch may have been made before."""
    loader, seen = make_loader(), []
    for place in ("pipelines.stream._to_torch", "pipelines.loader.torch.from_numpy"):
        seen += islice(loader, 2)
        with monkeypatch.context() as patch:
            patch.setattr(place, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                iter_into(loader, seen)
    seen += islice(loader, 2)
    assert_all_equal(seen, two_epochs[: len(seen)])
    assert len(seen) >= 6


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"?")]
)
def test_a_missing_or_cut_shard_is_named(
    make_loader: MakeLoader, shards: ShardIndex, tmp_path: Path, spoil: Callable[[Path], object]
):
    index = ShardIndex.open(shutil.copytree(shards.root, tmp_path / "shards"))
    loader, path = make_loader(index, max_broken=1.0), index.root / "wide.tar"
    spoil(path)
    with pytest.raises(ShardError, match=re.escape(str(path))):
        list(loader)


def enlarged(source: Callable[[], tuple], **kwargs) -> Pipeline:
    """A graph that decodes, and then has too little memory."""

    @pipeline_def
    def make():
        jpeg = fn.external_source(source=source, dtype=[types.UINT8], ndim=[1], num_outputs=1)[0]
        return fn.resize(fn.decoders.image(jpeg), size=[2**24, 2**24])

    return make(**kwargs)


@pytest.mark.parametrize("substitutes", [False, True])
def test_no_picture_is_blamed_for_a_lack_of_memory(broken: Broken, substitutes: bool, caplog: pytest.LogCaptureFixture):
    """Although one that cannot be decoded is in flight."""
    store, frames = Store(broken.index), np.array([0, broken.spoilt])
    regions = np.zeros(2, VIEW)
    regions["height"] = regions["width"] = 8
    requests = iter([Request(frames[:1], regions[:1], lambda jpegs: (jpegs,)), Request(frames[1:], regions[1:], list)])
    stream = Stream(
        store, requests, enlarged, torch.device("cpu"), substitutes=Substitutes(store) if substitutes else None,
        batch_size=1, num_threads=1, prefetch_queue_depth=1,
    )  # fmt: skip
    with pytest.raises(DeviceError, match=r"out of memory in the data pipeline \(std::bad_alloc\)"):
        next(stream)
    assert not caplog.records


def test_the_pipeline_that_failed_is_gone_before_the_search(
    make_loader: MakeLoader, undecodable_set: Undecodable, monkeypatch: pytest.MonkeyPatch
):
    alive: list[object] = []

    def search(jpegs: list[np.ndarray], *arguments: Any) -> dict[int, str]:
        alive.append(failed())
        return undecodable(jpegs, *arguments)

    monkeypatch.setattr("pipelines.stream.undecodable", search)
    loader = make_loader(undecodable_set.index)
    next(iter(loader))
    failed = weakref.ref(loader._streams[SIZE]._pipe)
    with pytest.raises(PictureError):
        list(loader)
    assert alive
    assert not any(alive)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            "Error in MIXED operator `nvidia.dali.fn.decoders.image_slice`, encountered:\n\nnvImageCodec failure: '#3'",
            "",
        ),
        (
            "Error when executing MIXED operator decoders__Image encountered:\nError in thread 0: nvJPEG error (2)",
            "",
        ),
        ("Error in MIXED operator `nvidia.dali.fn.decoders.image`, encountered:\n\nnvJPEG error (5)", "GPU failed"),
        (
            "Error in MIXED operator `nvidia.dali.fn.decoders.image_slice`, encountered:\n\nCUDA runtime API error "
            "cudaErrorMemoryAllocation (2):\nout of memory",
            "out of memory",
        ),
        ("Error in GPU operator `nvidia.dali.fn.resize`, encountered:\n\nCUDA error: an illegal access", "GPU failed"),
        ("CUDA driver API error CUDA_ERROR_ECC_UNCORRECTABLE (214)", "GPU failed"),
    ],
)
def test_only_what_a_decoder_says_is_a_broken_picture(message: str, says: str):
    if not says:
        assert decoder_fault(RuntimeError(message))
        return
    with pytest.raises(DeviceError, match=says):
        decoder_fault(RuntimeError(message))


def test_an_error_of_another_operator_is_raised_as_it_is():
    error = RuntimeError("Error in CPU operator `nvidia.dali.fn.reshape`, encountered:\n\nwrong shape")
    with pytest.raises(RuntimeError, match="wrong shape"):
        decoder_fault(error)


# --- Structure, checked before a GPU decodes ---


def segment(data: bytes, marker: int) -> int:
    """Where the first segment of `marker` begins."""
    return data.index(bytes([0xFF, marker]))


def replaced(data: bytes, at: int, byte: int) -> bytes:
    return data[:at] + bytes([byte]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_huffman_codes, "Huffman table"),
        (lambda data: replaced(data, segment(data, 0xC4) + 5, 9), "Huffman table"),  # nine codes of one bit
        (lambda data: replaced(data, segment(data, 0xC0) + 11, 0x50), "sampling factors"),
        (lambda data: replaced(data, segment(data, 0xC0) + 9, 9), "components"),
        (lambda data: replaced(data, segment(data, 0xC0) + 12, 3), "no quantization table"),
        (lambda data: replaced(data, segment(data, 0xDA) + 6, 0x33), "no Huffman table"),
        (lambda data: replaced(data, segment(data, 0xDB) + 4, 9), "quantization table"),
        (lambda data: data[: segment(data, 0xC0)] + data[segment(data, 0xC4) :], "scan"),
        (lambda data: data[:-2], "no end marker"),
        (lambda data: data[: segment(data, 0xC4) + 9], "truncated"),
        (lambda data: b"GIF89a" + data, "does not start as one"),
    ],
)
def test_malformed_jpegs_are_found_without_decoding(shards: ShardIndex, spoil: Damage, says: str):
    (jpeg,) = Store(shards).read(np.array([0]))
    assert structure_fault(jpeg) == ""
    found = structure_fault(np.frombuffer(spoil(jpeg.tobytes()), np.uint8))
    assert found.startswith("malformed JPEG: ")
    assert says in found


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_well_formed_jpegs_of_every_kind_pass(mode: str, options: dict):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (33, 50, 3), np.uint8)).convert(mode).save(
        buffer, "JPEG", **options
    )
    jpeg = np.frombuffer(buffer.getvalue(), np.uint8)
    assert structure_fault(jpeg) == ""
    for length in range(1, len(jpeg), 7):
        assert structure_fault(jpeg[:length]), length


def test_a_store_for_a_gpu_names_malformed_jpegs_and_replaces_them(undecodable_set: Undecodable):
    index, bad, _ = undecodable_set
    Store(index).read(np.array([bad]))  # the CPU's decoder may see it
    with pytest.raises(PictureError, match="malformed JPEG: Huffman table"):
        Store(index, for_gpu=True).read(np.array([0, bad]))
    regions = np.zeros(1, VIEW)
    shown, _ = Substitutes(Store(index, for_gpu=True)).read(np.array([bad]), regions)
    assert shown.tolist() != [bad]


# --- The search ---


def test_the_search_finds_all_that_cannot_be_decoded_and_nothing_else(shards: ShardIndex):
    jpegs = Store(shards).read(np.arange(len(shards.frames)))
    bad = [0, 31, 32, 70, len(jpegs) - 1]
    for at in bad:
        jpegs[at] = np.frombuffer(without_huffman_codes(jpegs[at].tobytes()), np.uint8)
    regions = np.zeros(len(jpegs), VIEW)
    regions["height"] = regions["width"] = 8
    assert sorted(undecodable(jpegs, regions)) == bad
