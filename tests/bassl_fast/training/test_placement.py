"""Where views are made, by what cores make and what a GPU trains on."""

from __future__ import annotations

import pytest

from bassl_fast.encoders import X3D, ResNet
from bassl_fast.training.options import Views
from bassl_fast.training.placement import place_views, rates
from shard_tools.errors import ConfigError


@pytest.mark.parametrize(
    ("wanted", "gpu", "cores", "found"),
    [
        ("auto", True, 4, "cpu"),
        ("auto", True, 3, "cuda"),
        ("gpu", True, 64, "cuda"),
        ("triton", True, 64, "cuda"),
        ("cpu", True, 1, "cpu"),
        ("auto", False, 1, "cpu"),
    ],
)
def test_views_are_made_on_the_cpu_where_it_has_cores_enough(wanted: Views, gpu: bool, cores: int, found: str):
    assert place_views(wanted, gpu, cores, 1500, 3500) == found


@pytest.mark.parametrize("wanted", ["gpu", "triton"])
def test_views_on_a_gpu_need_one(wanted: Views):
    with pytest.raises(ConfigError, match=rf"data\.views {wanted}: no GPU found"):
        place_views(wanted, False, 8, 1500, 3500)


def test_a_smaller_encoder_eats_more_views():
    made, trained = rates(ResNet(50), 224, 1)
    assert made == 1500
    assert trained == pytest.approx(3500, rel=0.05)
    assert rates(ResNet(18), 224, 1)[1] > 2 * trained
    assert rates(ResNet(50), 112, 1)[1] == pytest.approx(4 * trained, rel=0.1)
    clips = [rates(X3D(), 160, frames)[1] for frames in (4, 8)]
    assert clips[0] == pytest.approx(clips[1], rel=0.05)
