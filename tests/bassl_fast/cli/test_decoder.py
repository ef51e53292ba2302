"""`pack --check decode` and `verify --decode all` refuse what training's decoder refuses, though Pillow reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bassl_fast import cli
from bassl_fast.cli.decoder import training_faults
from shard_tools.annotations import movienet
from shard_tools.errors import SourceError
from shard_tools.packing.pack import pack
from shard_tools.shards.jpeg import pillow_faults
from tests.films import digests, picture, write_film, write_set


def with_escape(jpeg: bytes) -> bytes:
    """FF00 in the header, which Pillow skips."""
    return jpeg[:2] + b"\xff\x00\x00\x04\x00\x00" + jpeg[2:]


def test_training_refuses_what_pillow_reads():
    pictures = [picture(1), with_escape(picture(2)), picture(3)[:-40] + b"\xff\xd9", picture(4)]
    sizes = [(32, 48)] * 4
    assert pillow_faults([with_escape(picture(2))], [(32, 48)]) == {}
    faults = training_faults(pictures, sizes)
    assert 1 in faults
    assert 0 not in faults
    assert 3 not in faults


def test_pictures_of_several_sizes_are_decoded_together():
    shapes = [(48, 32), (20, 60), (33, 17)]
    pictures = [picture(seed, size) for seed, size in enumerate(shapes)]
    assert training_faults(pictures, [(height, width) for width, height in shapes]) == {}


@pytest.fixture
def source(tmp_path) -> Path:
    root = write_set(tmp_path / "films", {"a": 30, "b": 2})
    (root / movienet.FRAMES_DIR / "a" / "shot_0027_img_1.jpg").write_bytes(with_escape(picture(7)))
    return root


@pytest.mark.slow
def test_pack_and_verify_decode_as_training_does(source, tmp_path, capsys):
    assert cli.main(["pack", str(source), str(tmp_path / "dst"), "--check", "decode"]) == 1
    assert "a/shot_0027_img_1.jpg: cannot be decoded (" in capsys.readouterr().err
    assert cli.main(["pack", str(source), str(tmp_path / "shards")]) == 0
    capsys.readouterr()
    assert cli.main(["verify", str(tmp_path / "shards"), "--decode", "all"]) == 1
    (fault,) = capsys.readouterr().out.splitlines()
    assert f"{tmp_path / 'shards'}/a.tar: a/shot_0027.1.jpg at byte" in fault
    assert "cannot be decoded" in fault


def test_a_pack_that_goes_on_with_decoding_decodes_what_was_finished(tmp_path):
    """The note of a finished film says whether it was decoded."""
    root = write_set(tmp_path / "films", {"a": 2})
    calls: list[int] = []

    def decoder(pictures, sizes):
        calls.append(len(pictures))
        return {}

    broken = write_film(root, "b", 1)
    (broken / "shot_0000_img_1.jpg").unlink()
    with pytest.raises(SourceError, match="key-frame missing"):
        pack(root, tmp_path / "dst")
    assert (tmp_path / "dst" / "a.tar").exists()
    shutil.rmtree(broken)
    pack(root, tmp_path / "dst", check="decode", decoder=decoder)
    assert calls == [6]
    pack(root, tmp_path / "plain")
    assert digests(tmp_path / "dst") == digests(tmp_path / "plain")


def test_data_after_the_end_of_a_key_frame_is_kept(tmp_path):
    root = write_set(tmp_path / "films", {"a": 1})
    path = root / movienet.FRAMES_DIR / "a" / "shot_0000_img_0.jpg"
    path.write_bytes(path.read_bytes() + b"camera notes" * 9)
    pack(root, tmp_path / "dst")
    assert cli.main(["verify", str(tmp_path / "dst"), "--decode", "all"]) == 0
