"""Views of pictures given as bytes equal those of the loader."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.jpeg_stream import view_jpegs
from pipelines.loader import FilmLoader
from pipelines.views import TestViews
from shard_tools.errors import SourceError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from tests.films import picture, write_film

CPU = torch.device("cpu")


def test_views_of_bytes_are_those_of_the_loader(tmp_path):
    write_film(tmp_path / "films", "film", 7)
    pack(tmp_path / "films", tmp_path / "shards")
    views = TestViews(24, 16)
    (wanted,) = [
        images.flatten(0, 1).clone()
        for _, _, images in FilmLoader(ShardIndex.open(tmp_path / "shards"), np.array([0]), views)
    ]
    jpegs = (picture(i) for i in range(21))  # as `write_film` makes them
    found = [images.clone() for images in view_jpegs(jpegs, views, 6, CPU, 1)]
    assert [len(images) for images in found] == [6, 6, 6, 3]
    assert torch.equal(torch.cat(found), wanted)


def test_an_error_of_the_source_comes_through():
    def broken():
        yield from (picture(i) for i in range(5))
        raise SourceError("film.mp4: breaks off")

    with pytest.raises(SourceError, match="breaks off"):
        list(view_jpegs(broken(), TestViews(24, 16), 2, CPU, 1))
