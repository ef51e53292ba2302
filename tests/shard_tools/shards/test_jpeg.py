"""Reading the size of a JPEG: one plain error for anything that is not a whole JPEG."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.errors import SourceError
from shard_tools.shards.jpeg import picture_size
from tests.films import picture


@pytest.mark.parametrize("size", [(1, 1), (48, 32), (33, 71), (427, 240)])
@pytest.mark.parametrize("progressive", [False, True])
def test_size_is_height_then_width(size, progressive):
    assert picture_size(picture(1, size, progressive=progressive), "a.jpg") == size[::-1]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"comment": b"cut \xff\xd9 here"}])
def test_a_jpeg_cut_at_any_byte_is_an_error(options):
    data = picture(2, (16, 16), **options)
    for end in range(len(data)):
        with pytest.raises(SourceError, match=r"^a\.jpg: .*extract this key-frame again$"):
            picture_size(data[:end], "a.jpg")


def test_a_cut_inside_the_tables_is_found_though_it_looks_like_an_end():
    data = picture(2, (16, 16))
    scan = data.index(b"\xff\xda")
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"
    whole = data[:scan] + comment + data[scan:]
    assert picture_size(whole, "a.jpg") == (16, 16)
    with pytest.raises(SourceError, match="broken JPEG header"):
        picture_size(whole[: scan + 6], "a.jpg")


def test_an_embedded_thumbnail_is_not_taken_for_the_picture():
    data, thumbnail = picture(3, (48, 32)), picture(4, (8, 8))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert picture_size(whole, "a.jpg") == (32, 48)
    with pytest.raises(SourceError):
        picture_size(whole[: 2 + len(segment)], "a.jpg")


@pytest.mark.parametrize("tail", [b"\0", b"\r\n", b"\0" * 60])
def test_padding_after_the_end_is_allowed(tail):
    assert picture_size(picture() + tail, "a.jpg") == (32, 48)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a JPEG"),
        (b"<html>not found</html>", "not a JPEG"),
        (bytes(4096), "not a JPEG"),
        (picture()[:700] + bytes(4096), "truncated"),
        (b"\xff\xd8\xff\xd9", "broken JPEG header"),
        (b"\xff\xd8" + b"\xff" * 50 + b"\xff\xd9", "broken JPEG header"),
    ],
)
def test_what_is_not_a_jpeg_is_named(data, reason):
    with pytest.raises(SourceError, match=rf"^f/x\.jpg: {reason}"):
        picture_size(data, "f/x.jpg")


def test_a_picture_without_height_is_an_error():
    data = bytearray(picture())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 2] = b"\0\0"
    with pytest.raises(SourceError, match="no picture size"):
        picture_size(bytes(data), "a.jpg")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0"]), st.booleans())
def test_any_bytes_give_a_size_or_a_source_error(body, head, ended):
    try:
        height, width = picture_size(head + body + b"\xff\xd9" * ended, "a.jpg")
    except SourceError:
        return
    assert 0 < height < 2**16
    assert 0 < width < 2**16


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_gives_a_size_or_a_source_error(at, value):
    data = bytearray(picture(5, (24, 16)))
    data[at % len(data)] = value
    with contextlib.suppress(SourceError):
        assert len(picture_size(bytes(data), "a.jpg")) == 2
