"""The recipes of the configs are those published, and a method draws each view by its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from bassl_fast import config
from bassl_fast.encoders import ResNet, ResNet3D
from bassl_fast.methods import BYOL, SCE, SCRL
from bassl_fast.methods.boxes import Boxes
from bassl_fast.training.pretrain import pretrain
from pipelines.clip_sampling import Clips
from pipelines.loader import WindowLoader
from pipelines.samples import Centers
from pipelines.views import VIEW, TrainViews
from shard_tools.errors import ConfigError
from shard_tools.shards.index import ShardIndex
from tests.bassl_fast.conftest import Project
from tests.pipelines.test_views import bound

CONFIGS = Path(__file__).parents[3] / "configs" / "pretrain"
MANY, TINY = 4000, {"hidden": 8, "outputs": 8}
# Of all of them: flip, colour jitter, grey.
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
COMMON = {"size": 224, "area": (0.2, 1.0), "flip": 0.5, "jitter": 0.8, **JITTER, "grayscale": 0.2, "sigma": (0.1, 2.0)}
FIRST, SECOND = COMMON | {"blur": 1.0, "solarize": 0.0}, COMMON | {"blur": 0.1, "solarize": 0.2}
SMALL = [
    COMMON | {"blur": 0.5, "solarize": 0.2, "size": size, "area": area}
    for size, area in ((192, (0.172, 0.86)), (160, (0.143, 0.715)), (128, (0.114, 0.571)), (96, (0.086, 0.429)))
]
GREYS = {"mean": (0.45,) * 3, "std": (0.225,) * 3}
VIDEO = GREYS | {"area": (0.2, 0.766), "brightness": 0.8, "contrast": 0.8, "saturation": 0.4, "hue": 0.2}
RECIPES = {
    "scrl": [FIRST, SECOND],
    "byol": [FIRST, SECOND],
    "sce": [FIRST, SECOND],
    "sce_crops": [FIRST, SECOND, *SMALL],
    "sce_clips": [FIRST | VIDEO, SECOND | VIDEO],
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_reads_as_published(name: str):
    parser = config.make_parser(pretrain)
    arguments = parser.instantiate(config.parse(parser, ["--config", str(CONFIGS / f"{name}.yaml")]))
    method = arguments.method(8)
    views = [method.views, method.second, *getattr(method, "small", ())]
    assert len(views) == len(RECIPES[name])
    for recipe, published in zip(views, RECIPES[name], strict=True):
        assert {key: value for key, value in asdict(recipe).items() if key in published} == published
        assert recipe.aspect == pytest.approx((3 / 4, 4 / 3))
        assert recipe.short_side is None
    if name == "sce_clips":
        assert method.clips == Clips(8, seconds=2.56)
        assert method.difference == 0.2


def films(many: int, frames: int = 3) -> Centers:
    facts = {"film": 0, "position": 5, "shots": 20, "first_frame": 100, "frames_per_shot": frames}
    facts |= {"height": 90, "width": 160}
    return Centers(**{name: np.full(many, value) for name, value in facts.items()}, fps=np.full(many, 10.0))


@pytest.mark.parametrize("kind", [SCE, BYOL, SCRL])
def test_each_view_has_its_own_augmentation(kind: type):
    first, second = (TrainViews(size=64, blur=b, solarize=s) for b, s in ((1.0, 0.0), (0.1, 0.2)))
    views = kind(8, first, second=second, **TINY).sample(films(MANY), np.random.default_rng(0)).views
    assert views.shape == (MANY, 2)
    rates = [(rows[name] > 0).mean() for rows in views.T for name in ("blur", "solarize")]
    np.testing.assert_allclose(rates, [1, 0, 0.1, 0.2], atol=bound(MANY))
    assert rates[:2] == [1, 0]


def test_small_views_have_their_own_size_area_and_key_frame():
    small = tuple(TrainViews(size=size, area=(0.05, 0.2), grayscale=1) for size in (32, 16, 32))
    method = SCE(8, TrainViews(size=64, area=(0.5, 1)), small=small, **TINY)
    drawn = method.sample(films(MANY), np.random.default_rng(0))
    assert {size: rows.shape for size, rows in drawn.small.items()} == {32: (MANY, 2), 16: (MANY, 1)}
    every = np.concatenate([drawn.views, *drawn.small.values()], 1)
    area = every["height"] * every["width"] / (90 * 160)
    assert area[:, :2].min() >= 0.45
    assert area[:, 2:].max() <= 0.25
    assert every["grey"].tolist() == [[False, False, True, True, True]] * MANY
    assert set(np.unique(every["frame"])) == {115, 116, 117}
    assert np.abs(np.corrcoef(every["frame"].T.astype(float))[~np.eye(5, dtype=bool)]).max() < 7 / MANY**0.5


@pytest.mark.parametrize("clips", [Clips(4, seconds=1.5), Clips(3), Clips(4, segments=True)])
def test_clips_of_a_shot_share_their_augmentation(clips: Clips):
    method = SCE(8, TrainViews(size=32, grayscale=0.2, solarize=0.2), clips=clips, **TINY)
    views = method.sample(films(50, frames=40), np.random.default_rng(0)).views
    assert views.shape == (50, 2, clips.frames)
    for name in set(VIEW.names) - {"frame"}:
        assert (views[name] == views[name][..., :1]).all(), name
    inside = views["frame"] - (100 + 5 * 40)
    assert inside.min() >= 0
    assert inside.max() < 40
    assert (np.diff(inside) >= 0).all()
    assert (views["left"][:, 0, 0] != views["left"][:, 1, 0]).any()


def test_a_part_of_the_clips_shows_differences():
    method = SCE(8, TrainViews(size=32), clips=Clips(4, seconds=1.5), difference=0.2, **TINY)
    shown = method.sample(films(MANY, frames=40), np.random.default_rng(0)).views["difference"]
    assert (shown == shown[..., :1]).all()
    np.testing.assert_allclose(shown[..., 0].mean(0), 0.2, atol=bound(MANY))
    assert abs(np.corrcoef(shown[..., 0].T)[0, 1]) < 7 / MANY**0.5


def test_key_frames_of_a_shot_train_a_clip_encoder(project: Project):
    """From shards of films: two clips of three key-frames, one step of SCE."""
    torch.manual_seed(0)
    index, encoder = ShardIndex.open(project.shards), ResNet3D(18)
    views, small = TrainViews(size=32, **GREYS), TrainViews(size=16, **GREYS)
    method = SCE(encoder.dim, views, small=(small,), clips=Clips(3), **TINY, queue=16)
    method.attach(encoder)
    loader = WindowLoader(index, index.select(None), method.sample, 32, global_batch=4, mean=views.mean, std=views.std)
    batch = next(iter(loader))
    assert batch["images"].shape == (4, 2, 3, 3, 32, 32)
    assert batch["images_16"].shape == (4, 1, 3, 3, 16, 16)
    features = method.embed(encoder, batch)
    assert features.shape == (4, 3 + 2, 512)
    method(features, batch)["sce"].backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SCE(8, difference=0.2, **TINY), "method.difference 0.2: needs clips"),
        (
            lambda: SCE(8, second=TrainViews(size=96), **TINY),
            r"method.second.size 96: must equal that of method.views, 224",
        ),
        (lambda: BYOL(8, second=TrainViews(std=(0.2,) * 3), **TINY), "method.second.std"),
        (lambda: SCRL(8, second=TrainViews(size=96), boxes=Boxes(), **TINY), "method.second.size 96"),
        (lambda: SCE(8, small=(TrainViews(size=224),), **TINY), "method.small of size 224: must be smaller"),
        (
            lambda: SCE(8, small=(TrainViews(size=96, mean=(0.4,) * 3),), **TINY),
            "method.small of size 96: .* same mean",
        ),
        (lambda: SCE(8, clips=Clips(3), **TINY).attach(ResNet(18, width=4)), "method.clips: ResNet takes images"),
    ],
)
def test_views_that_do_not_go_together_are_refused(make, says: str):
    with pytest.raises(ConfigError, match=says):
        make()
