"""The shard format: headers other tools read, an index that is true, and notices when it is not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.errors import ShardError
from shard_tools.packing.pack import pack
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.atomic import write_atomically
from tests.films import keyframes, write_set

ARRAYS = (fmt.FRAMES, fmt.SEQUENCES, fmt.SHOTS)
FILMS = {"a film": 3, "b": (0, 2, 5, 6), "ç": 2}

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: not name.startswith(".")
)
shot_numbers = st.sets(st.integers(0, 99_999), min_size=1, max_size=5).map(sorted)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("source"), FILMS, {"b": "test"})


@pytest.fixture(scope="module")
def packed(tmp_path_factory, source) -> Path:
    dst = tmp_path_factory.mktemp("packed")
    pack(source, dst)
    return dst


@pytest.fixture
def shards(tmp_path, packed) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def refused(root: Path) -> str:
    with pytest.raises(ShardError) as error:
        ShardIndex.open(root)
    assert "\n" not in str(error.value)
    return str(error.value)


@settings(max_examples=50, deadline=None)
@given(names, shot_numbers, st.integers(1, 4), st.randoms(use_true_random=False))
def test_any_film_is_a_tar_that_tarfile_reads(film, shots, images, random):
    tar, expected = b"", {}
    for shot in shots:
        for image in range(images):
            data, name = random.randbytes(random.randrange(1500)), fmt.member_name(film, shot, image)
            header = fmt.tar_header(name, len(data))
            assert len(header) == tarfile.BLOCKSIZE
            tar, expected[name] = tar + header + data + fmt.padding(len(data)), data
    with tarfile.open(fileobj=io.BytesIO(tar + fmt.END_OF_TAR)) as archive:
        members = archive.getmembers()
        assert {m.name: archive.extractfile(m).read() for m in members} == expected
    assert {(m.mtime, m.uid, m.gid, m.mode, m.type) for m in members} == {(0, 0, 0, 0o644, tarfile.REGTYPE)}


def idx_of(film: str, shots: list[int], frames: np.ndarray) -> str:
    rows = [
        (fmt.member_name(film, shot, k), int(row["offset"]), int(row["size"]))
        for shot, images in zip(shots, frames, strict=True)
        for k, row in enumerate(images)
    ]
    return fmt.idx_text(rows)


@settings(max_examples=50, deadline=None)
@given(names, shot_numbers, st.integers(1, 4), st.data())
def test_any_idx_has_one_line_a_shot_and_four_words_an_image(film, shots, images, data):
    frames = np.zeros((len(shots), images), fmt.FRAME)
    for row in frames.ravel():
        row["offset"], row["size"] = data.draw(st.integers(0, 2**40)) * 512, data.draw(st.integers(0, 2**32 - 1))
    # DALI reads lines up to "\n" and words up to C white space.
    head, *lines, end = idx_of(film, shots, frames).encode().split(b"\n")
    assert head.split() == [b"v1.2", str(len(shots)).encode()]
    assert end == b""
    assert len(lines) == len(shots)
    for line, shot, row in zip(lines, shots, frames, strict=True):
        words = line.split()
        assert len(words) == 4 * images
        assert words[0::4] == [f"{k}.jpg".encode() for k in range(images)]
        assert [int(word) for word in words[1::4]] == row["offset"].tolist()
        assert [int(word) for word in words[2::4]] == row["size"].tolist()
        assert all(word.endswith(f"/shot_{shot:04d}.{k}.jpg".encode()) for k, word in enumerate(words[3::4]))


def test_a_film_name_of_155_bytes_fits_and_a_longer_one_is_refused():
    long = "f" * 155
    header = fmt.tar_header(fmt.member_name(long, 0, 0), 1)
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").name == f"{long}/shot_0000.0.jpg"
    for film in ("f" * 156, "\udc80"):
        with pytest.raises(ShardError, match="rename it"):
            fmt.tar_header(fmt.member_name(film, 0, 0), 1)


def test_a_failed_write_leaves_the_old_file_and_no_tmp(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"old"


def test_index_counts_films_shots_and_keyframes(packed, source):
    index = ShardIndex.open(packed)
    assert index.films == ["a film", "b", "ç"]
    assert (len(index.sequences), len(index.shots), len(index.frames)) == (3, 9, 27)
    assert index.frames.dtype == fmt.FRAME
    assert index.frames.dtype.itemsize == 16
    assert all(isinstance(array, np.memmap) for array in (index.sequences, index.shots))
    assert index.shots_of(1)["shot"].tolist() == [0, 2, 5, 6]
    assert index.sequences[["height", "width"]].tolist() == [(32, 48)] * 3


def test_locate_names_the_member_that_holds_the_bytes(packed, source):
    index, pictures = ShardIndex.open(packed), list(keyframes(source).items())
    for frame, ((film, shot, image), data) in enumerate(pictures):
        shard, member, offset = index.locate(frame)
        assert (shard, member) == (f"{packed}/{film}.tar", f"{film}/shot_{shot:04d}.{image}.jpg")
        with tarfile.open(shard) as tar:
            assert tar.getmember(member).offset_data == offset
            assert tar.extractfile(member).read() == data


def test_select_gives_the_films_of_a_split(packed):
    index = ShardIndex.open(packed)
    assert index.select("train").tolist() == [0, 2]
    assert index.select("test").tolist() == [1]
    assert index.select(None).tolist() == [0, 1, 2]
    with pytest.raises(ShardError, match="no film in split 'val'; there are test, train"):
        index.select("val")


def test_a_folder_without_manifest_was_never_finished(shards):
    (shards / fmt.MANIFEST).unlink()
    assert "manifest.json: missing, so this is not a finished set" in refused(shards)
    assert "bassl-fast pack" in refused(shards / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"version": 1}',
        '{"version": 1, "shards": 3}',
        '{"version": 1, "shards": [{}]}',
        '{"version": 1, "shards": [{"name": "a.tar", "bytes": null, "frames": 1}]}',
        "\ud800",
    ],
)
def test_a_bad_manifest_is_an_error(shards, text):
    (shards / fmt.MANIFEST).write_text(text, errors="surrogatepass")
    assert "not a manifest" in refused(shards)


def test_a_manifest_of_another_version_is_an_error_whatever_else_it_says(shards):
    (shards / fmt.MANIFEST).write_text('{"version": 2, "films": []}')
    assert "format version 2, this program reads version 1 or 1.1 of films" in refused(shards)


@pytest.mark.parametrize("name", ["../a.tar", "/etc/passwd", "x/a.tar", "..", ""])
def test_a_shard_outside_the_folder_is_refused(shards, name):
    manifest = json.loads((shards / fmt.MANIFEST).read_text())
    manifest["shards"][0]["name"] = name
    (shards / fmt.MANIFEST).write_text(json.dumps(manifest))
    assert "not a plain file name" in refused(shards)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_cut_at_any_byte_is_an_error(shards, name):
    data = (shards / name).read_bytes()
    for end in range(0, len(data), 1 if len(data) < 300 else 7):
        (shards / name).write_bytes(data[:end])
        assert name in refused(shards)
    (shards / name).unlink()
    assert name in refused(shards)


@pytest.mark.parametrize("name", ARRAYS)
def test_swapped_arrays_are_an_error(shards, name):
    for other in set(ARRAYS) - {name}:
        shutil.copy(shards / other, shards / "keep")
        shutil.copy(shards / name, shards / other)
        assert "other columns" in refused(shards)
        shutil.move(shards / "keep", shards / other)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ARRAYS), st.integers(0, 127), st.integers(0, 255))
def test_a_damaged_array_header_opens_or_is_a_shard_error(packed, name, at, value):
    root = packed.parent / "damaged"
    root.mkdir(exist_ok=True)
    for path in packed.iterdir():
        (root / path.name).unlink(missing_ok=True)
        os.link(path, root / path.name)
    data = bytearray((packed / name).read_bytes())
    data[at] = value
    (root / name).unlink()
    (root / name).write_bytes(data)
    try:
        index = ShardIndex.open(root)
    except ShardError:
        return
    assert len(index.frames) == 27


@pytest.mark.parametrize(
    ("name", "films"),
    [(name, films) for name in (*ARRAYS, fmt.MANIFEST) for films in ({"a film": 3}, {"a film": 3, "b": 4, "ç": 3})]
    # As many shots and key-frames in all: seen by where films begin and where key-frames end.
    + [(name, {"a film": 4, "b": 3, "ç": 2}) for name in (fmt.FRAMES, fmt.SEQUENCES, fmt.MANIFEST)],
)
def test_a_file_of_another_pack_is_an_error(tmp_path, shards, name, films):
    pack(write_set(tmp_path / "other", films), tmp_path / "other_shards")
    shutil.copy(tmp_path / "other_shards" / name, shards / name)
    assert "pack again" in refused(shards)


@pytest.mark.parametrize("column", ["shard", "first_frame", "first_shot"])
def test_a_film_that_does_not_begin_where_the_one_before_ended_is_an_error(shards, column):
    sequences = np.load(shards / fmt.SEQUENCES)
    sequences[column][1] += 1
    write_sequences(shards, sequences)
    assert "sequences.npy: does not match manifest.json" in refused(shards)


@pytest.mark.parametrize("name", [b"../x", b"a/b", b"..", b""])
def test_a_film_name_that_would_leave_its_folder_is_an_error(shards, name):
    sequences = np.load(shards / fmt.SEQUENCES)
    sequences = sequences.astype(fmt.sequence_dtype([b"12345678", *sequences["name"]]))
    sequences["name"][1] = name
    write_sequences(shards, sequences)
    assert "is not a plain file name" in refused(shards)


def test_an_array_of_another_pack_is_an_error(shards):
    shots = np.load(shards / fmt.SHOTS)
    shots["boundary"][0] ^= 1
    np.save(shards / fmt.SHOTS, shots)
    assert "shots.npy: differs from manifest.json" in refused(shards)


def write_sequences(shards: Path, sequences: np.ndarray) -> None:
    """As an attacker would: with the right checksum in the manifest."""
    data = fmt.npy_bytes(sequences)
    (shards / fmt.SEQUENCES).write_bytes(data)
    manifest = json.loads((shards / fmt.MANIFEST).read_text())
    manifest["index"][fmt.SEQUENCES] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (shards / fmt.MANIFEST).write_text(json.dumps(manifest))


def test_keyframes_that_do_not_end_with_the_shard_are_an_error(shards):
    frames = np.load(shards / fmt.FRAMES)
    frames["offset"][-1] += 512
    np.save(shards / fmt.FRAMES, frames)
    assert "do not end where" in refused(shards)


def test_a_missing_shard_is_named(shards):
    (shards / "b.tar").unlink()
    assert "b.tar: shard missing" in refused(shards)


@pytest.mark.parametrize("change", [-1, 1, -512, 512])
def test_a_shard_of_another_size_is_named(shards, change):
    size = (shards / "b.tar").stat().st_size
    os.truncate(shards / "b.tar", size + change)
    assert f"b.tar: {size + change} bytes, the manifest says {size}" in refused(shards)
