"""SCRL gives the published code's numbers: boxes, RoIAlign, network, loss, momentum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bassl_fast.checkpoints import released
from bassl_fast.encoders import ResNet, ResNet3D
from bassl_fast.methods.boxes import Boxes, draw_boxes, iou, roi_align
from bassl_fast.methods.byol import BYOL, cosine_distance
from bassl_fast.methods.momentum import cosine_momentum, follow, mlp
from bassl_fast.methods.scrl import SCRL
from pipelines.samples import Centers
from pipelines.views import VIEW, TrainViews
from shard_tools.errors import ConfigError
from tests.golden_seeds import arrays, close, facts, ours_of
from tests.golden_weights import fill, tensor

pytestmark = pytest.mark.slow

SIZE = 224


class Replay:
    """A generator that replays recorded draws and checks the requests for them."""

    def __init__(self, given: dict[str, torch.Tensor]) -> None:
        draws = (given[f"draw_{key}"].tolist() for key in ("value", "low", "high"))
        self.draws, self.factors = list(zip(*draws, strict=True)), given["jitter_factors"].numpy()

    def integers(self, low, high) -> np.ndarray:
        value, least, bound = self.draws.pop(0)
        assert (int(np.squeeze(low)), int(np.squeeze(high))) == (int(least), int(bound))
        return np.array([value])

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        count = shape[0] * shape[1]
        mine, self.factors = self.factors[:count], self.factors[count:]
        return mine.reshape(shape)


class Middle:
    """A generator that always draws the middle."""

    def integers(self, low, high) -> np.ndarray:
        return low + (high - low) // 2


def rows_of(crops: np.ndarray) -> np.ndarray:
    """View rows `[N]` of crops `[N, 5]` (y, x, h, w, flip)."""
    rows = np.zeros(len(crops), VIEW)
    for name, column in zip(("top", "left", "height", "width", "flip"), crops.T, strict=True):
        rows[name] = column
    return rows


def random_views(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    side, flip = rng.integers(60, 200, (2, count, 2)), rng.integers(0, 2, (2, count, 1))
    corner = rng.integers(0, 300 - side)
    return tuple(rows_of(crops) for crops in np.concatenate([corner, side, flip], -1))


@pytest.mark.parametrize("name", ["plain", "grid_iou", "jitter", "grid_exhausted", "grid_border"])
def test_boxes(name: str):
    given = arrays(f"scrl_boxes_{name}")
    recipe = Boxes(
        int(given["boxes_per_image"]),
        int(given["min_size"]),
        float(given["iou_threshold"]),
        bool(given["grid"]),
        float(given["jitter_ratio"]) * bool(given["jitter"]),
    )
    first, second = (rows_of(given[f"view{k}"].numpy()) for k in (1, 2))
    replay, found = Replay(given), []
    for i in range(len(first)):  # one at a time, as they were drawn
        boxes, common = draw_boxes(replay, recipe, first[i : i + 1], second[i : i + 1], int(given["input_size"]))
        rows = np.full((2, recipe.count, 1), [[[i]], [[i + len(first)]]], np.float32)
        if common[0]:
            found.append(np.concatenate([rows, boxes[0]], -1))
    assert not replay.draws
    assert not len(replay.factors)
    for k in range(2):
        close(torch.from_numpy(np.concatenate([boxes[k] for boxes in found])), given[f"boxes{k + 1}"], atol=1e-4)


def test_boxes_of_many_pictures_equal_those_of_each_alone():
    first, second = random_views(60)
    together, common = draw_boxes(Middle(), Boxes(3), first, second, SIZE)
    assert 10 < common.sum() < 60
    for i in range(60):
        alone, has_any = draw_boxes(Middle(), Boxes(3), first[i : i + 1], second[i : i + 1], SIZE)
        assert np.array_equal(alone[0], together[i])
        assert has_any[0] == common[i]


def test_boxes_show_the_same_content_and_rarely_overlap():
    first, second = random_views(400)
    boxes, common = draw_boxes(np.random.default_rng(1), Boxes(), first, second, SIZE)
    assert not boxes[~common].any()
    source = []
    for k, view in enumerate((first, second)):
        box, view = boxes[common, k].astype(np.float64), view[common, None]
        x1, x2 = (
            np.where(view["flip"], SIZE - a, b) for a, b in ((box[..., 2], box[..., 0]), (box[..., 0], box[..., 2]))
        )
        across, down = view["width"] / SIZE, view["height"] / SIZE
        source.append(
            np.stack(
                [
                    x1 * across + view["left"],
                    box[..., 1] * down + view["top"],
                    x2 * across + view["left"],
                    box[..., 3] * down + view["top"],
                ],
                -1,
            )
        )
    assert np.abs(source[0] - source[1]).max() < 1  # pixels of the source; rounding of the common part
    sides = boxes[common, :, :, 2:] - boxes[common, :, :, :2]
    assert sides.min() > 31
    free, _ = draw_boxes(np.random.default_rng(1), Boxes(overlap=1.0), first, second, SIZE)
    overlapping = [
        (iou(b[common, 0, :, None], b[common, 0, None])[:, ~np.eye(10, dtype=bool)] >= 0.5).mean()
        for b in (boxes, free)
    ]
    assert overlapping[0] < 0.5 * overlapping[1]


def grouped(boxes: torch.Tensor, pictures: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows `[M, 5]` (picture, box) as `[N, K, 4]`, padded, and where `[M, 2]` each went."""
    where = [(int(row), int((boxes[:i, 0] == row).sum())) for i, row in enumerate(boxes[:, 0])]
    padded = torch.zeros(pictures, max(k for _, k in where) + 1, 4)
    for (n, k), row in zip(where, boxes, strict=True):
        padded[n, k] = row[1:]
    return padded, torch.tensor(where)


def test_roi_align():
    given = arrays("scrl_roialign")
    boxes, where = grouped(given["boxes"], len(given["feature"]))
    pooled = roi_align(given["feature"], boxes, 32)
    close(pooled[where[:, 0], where[:, 1]], given["pooled"].flatten(1))
    maps = given["feature"][:2, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: roi_align(maps, boxes[:2].double(), 32), maps)


@torch.no_grad()
def test_network():
    given, keys = arrays("scrl_network"), facts("scrl_state_dict_keys")
    encoder, method = ResNet(50), SCRL(2048)
    method.attach(encoder)
    model = torch.nn.ModuleDict({"encoder": encoder, "method": method})
    theirs = {
        f"{net}.{key}": shape
        for net, of in (("online_network",) * 2, ("target_network", "online_network"), ("predictor",) * 2)
        for key, (_, shape) in keys[of].items()
    }
    shapes = {name: theirs[key] for name, key in ours_of(theirs, released.SCRL).items()}
    assert shapes == {name: list(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(released.renamed({key: tensor(key, tuple(shape)) for key, shape in theirs.items()}))
    model.eval()
    counted = {"encoder": encoder, "projector": method.projector, "predictor": method.predictor}
    for name, part in counted.items():
        assert sum(p.numel() for p in part.parameters()) == keys["parameters"][name]
    boxes, where = grouped(given["boxes"], len(given["x"]))
    maps = encoder.maps(given["x"])
    close(maps.mean((2, 3)), given["gap_feature"])
    projection = method.projector(roi_align(maps, boxes, 32)[where[:, 0], where[:, 1]])
    close(projection, given["projection"])
    close(method.predictor(projection), given["prediction"])
    evaluator = torch.nn.Linear(2048, 1000)
    fill(evaluator, {key: f"evaluator.linear.{key}" for key in evaluator.state_dict()})
    close(evaluator(maps.mean((2, 3))), given["evaluator_logits"])


@torch.no_grad()
def test_small_heads():
    given = arrays("scrl_heads_small")
    projector, predictor = mlp(24, 40, 12, hidden_bias=True), mlp(12, 40, 12, hidden_bias=True)
    for name, head in (("projector", projector), ("predictor", predictor)):
        fill(head, {key: f"small_{name}.net.{key}" for key in head.state_dict()})
    close(projector(given["x"]), given["projection"])
    close(predictor(projector(given["x"])), given["prediction"])


@pytest.mark.parametrize("case", ["a", "b"])
def test_loss(case: str):
    given = arrays(f"scrl_loss_{case}")
    q1, q2 = given["q1"].requires_grad_(), given["q2"].requires_grad_()
    method = BYOL(4, hidden=4, outputs=4)
    # The heads say what the golden answers have after them.
    method.projector = method.predictor = torch.nn.Identity()
    method.target_projector = torch.nn.Identity()
    loss = method(torch.stack([q1, q2, given["z1"], given["z2"]], 1), {})["byol"]
    loss.backward()
    close(loss, given["loss"])
    close(q1.grad, given["grad_q1"])
    close(q2.grad, given["grad_q2"])
    assert cosine_distance(torch.tensor([1.0, 0.0]), torch.tensor([-3.0, 0.0])) == 4


def test_momentum():
    for row in facts("scrl_momentum"):
        assert cosine_momentum(row["step"], row["total_steps"], row["m0"]) == pytest.approx(row["m"], rel=1e-12)
    given = arrays("scrl_ema_update")
    target, online = torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        target.weight.copy_(given["target_before"])
        online.weight.copy_(given["online"])
    follow(target, online, float(given["m"]))
    close(target.weight, given["target_after"])


def small(seed: int = 0) -> tuple[ResNet, SCRL, dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    encoder = ResNet(18, width=8)
    method = SCRL(encoder.dim, TrainViews(size=64), Boxes(3, least=16), hidden=16, outputs=8)
    method.attach(encoder)
    one = np.ones(6, np.int64)
    drawn = method.sample(
        Centers(0 * one, 5 * one, 20 * one, 0 * one, 3 * one, 90 * one, 160 * one), np.random.default_rng(seed)
    )
    batch = {name: torch.from_numpy(rows) for name, rows in drawn.extras.items()}
    assert (drawn.views["frame"][:, 0] == drawn.views["frame"][:, 1]).all()
    return encoder, method, batch | {"images": torch.randn(*drawn.views.shape, 3, 64, 64)}


def test_pictures_without_a_common_box_count_for_nothing():
    encoder, method, batch = small()
    batch["common"] = torch.tensor([True, True, False, True, False, False])
    some = batch["common"]
    features = method.embed(encoder, batch)
    loss = method(features, batch)["scrl"]
    torch.testing.assert_close(loss, method(features[some], {"common": some[some]})["scrl"])
    none = {"common": torch.zeros(6, dtype=torch.bool)}
    loss = method(features, none)["scrl"]
    loss.backward()
    assert loss == 0
    for module in (encoder, method.projector, method.predictor):
        assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


def test_an_encoder_without_feature_maps_is_refused():
    with pytest.raises(ConfigError, match="SCRL needs feature maps of images, and ResNet3D has none; use ResNet"):
        SCRL(512, hidden=8, outputs=8).attach(ResNet3D(18))
    with pytest.raises(ConfigError, match=r"boxes\.least 32: must be below the size of a view, 32"):
        SCRL(512, TrainViews(size=32), hidden=8, outputs=8)
