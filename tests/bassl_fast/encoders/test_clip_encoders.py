"""R3D, X3D and VoV3D give the released networks' numbers."""

from __future__ import annotations

import pytest
import torch

from bassl_fast.checkpoints.released import SCE_VIDEOS, SLOWFAST
from bassl_fast.cli.complexity import count
from bassl_fast.encoders import X3D, ClipEncoder, ResNet3D, VoV3D
from bassl_fast.methods import Classifier, Supervised
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError
from tests.golden_seeds import arrays, close, facts, ours_of
from tests.golden_weights import fill

pytestmark = pytest.mark.slow

SLOWFAST_ENCODERS = {
    "x3d_m": (X3D, "M"),
    "x3d_l": (X3D, "L"),
    "vov3d_m": (VoV3D, "M"),
    "vov3d_m_seed": (VoV3D, "M-2020"),
    "vov3d_l": (VoV3D, "L"),
}
# Multiply-accumulates in 1e9, 16 frames at 224 and 256 pixels, 400 classes; X3D-L at 256 is known to two digits.
GIGA_MACS = {
    "x3d_m": (4.732, 6.186),
    "x3d_l": (9.163, 11.97),
    "vov3d_m": (4.917, 6.426),
    "vov3d_m_seed": (4.419, 5.776),
    "vov3d_l": (9.307, 12.160),
}


def classifier(name: str, classes: int = 400, crop: int = 224) -> Classifier:
    kind, size = SLOWFAST_ENCODERS[name]
    encoder = kind(size)
    return Classifier(encoder, Supervised(encoder.dim, classes, TrainViews(size=crop)))


@pytest.mark.parametrize("name", SLOWFAST_ENCODERS)
def test_every_released_tensor_has_a_place(name: str):
    keys = facts(f"{name}_keys")
    with torch.device("meta"):
        network = classifier(name)
    shapes = {ours: keys[theirs][1] for ours, theirs in ours_of(keys, SLOWFAST).items()}
    assert shapes == {ours: list(value.shape) for ours, value in network.state_dict().items()}


@pytest.mark.parametrize("name", SLOWFAST_ENCODERS)
def test_parameters_and_multiply_accumulates(name: str):
    published = facts("vov3d_models")[name]
    with torch.device("meta"):
        network, of_174_classes = classifier(name), classifier(name, 174)
    for side, giga in zip((224, 256), GIGA_MACS[name], strict=True):
        cost = count(network, (1, 3, 16, side, side))
        assert cost.macs / 1e9 == pytest.approx(giga, abs=0.006 if giga == 11.97 else 0.0006)
    assert cost.parameters == published["parameters"]["400"]
    assert cost.parameters_without_bn == published["parameters_without_bn"]["400"]
    assert sum(p.numel() for p in of_174_classes.parameters()) == published["parameters"]["174"]


@pytest.mark.parametrize("name", SLOWFAST_ENCODERS)
def test_blocks_start_as_their_shortcut(name: str):
    names = ours_of(facts(f"{name}_keys"), SLOWFAST)
    zero = {names[ours] for ours, p in classifier(name).named_parameters() if p.ndim == 1 and not p.any()}
    assert {key for key in zero if key.endswith("weight")} == set(
        facts("vov3d_models")[name]["zero_initialised_norm_weights"]
    )


@pytest.mark.parametrize("name", SLOWFAST_ENCODERS)
@torch.no_grad()
def test_answers(name: str):
    inputs, answers = arrays("vov3d_inputs"), arrays(name)
    network = fill(classifier(name, crop=64), ours_of(facts(f"{name}_keys"), SLOWFAST))
    stages = {}
    for number, stage in enumerate(("stem", "stage2", "stage3", "stage4", "stage5"), 1):
        getattr(network.encoder, stage).register_forward_hook(
            lambda module, args, y, number=number: stages.update({number: torch.stack([y.mean(), y.std(correction=0)])})
        )
    logits = network.logits(inputs["clip64"])
    assert logits.shape == (1, 1, 400)
    for number, found in stages.items():
        close(found, answers[f"s{number}_mean_std"])
    close(logits[:, 0], answers["logits"])
    close(torch.softmax(logits, -1)[:, 0], answers["prob64"], atol=1e-7)
    close(network(inputs["clip96"]), answers["prob96"], atol=1e-7)


@pytest.mark.parametrize(("depth", "parameters", "giga"), [(18, 20_023_872, 20.1), (50, 31_634_496, 41.7)])
@torch.no_grad()
def test_resnet3d(depth: int, parameters: int, giga: float):
    answers, keys = arrays(f"sce_resnet3d{depth}"), facts("sce_trunk_keys")[f"resnet3d{depth}"]["keys"]
    encoder = ResNet3D(depth)
    names = {
        ours.removeprefix("encoder."): theirs
        for ours, theirs in ours_of([f"trunk.{key}" for key in keys], SCE_VIDEOS).items()
    }
    assert {ours: keys[theirs.removeprefix("trunk.")][1] for ours, theirs in names.items()} == {
        ours: list(value.shape) for ours, value in encoder.state_dict().items()
    }
    cost = count(encoder, (1, 3, 8, 224, 224))
    assert cost.parameters == parameters
    assert cost.macs / 1e9 == pytest.approx(giga, abs=0.05)
    maps = {}
    for number, part in enumerate(("maxpool", "stage1", "stage2", "stage3", "stage4")):
        getattr(encoder, part).register_forward_hook(lambda module, args, y, n=number: maps.update({n: y}))
    close(fill(encoder, names)(answers["x"]), answers["feature"])
    for number, y in maps.items():
        shape_mean_std = torch.tensor([*y.shape, y.mean(), y.std(correction=0)])
        close(shape_mean_std, answers[f"after_block{number}_shape_mean_std"])


@pytest.mark.parametrize("kind", [ResNet3D, X3D, VoV3D])
@torch.no_grad()
def test_a_picture_is_a_clip_of_one_frame(kind: type[ClipEncoder]):
    encoder = kind()
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = encoder.eval()(pictures)
    assert features.shape == (2, encoder.dim)
    torch.testing.assert_close(features, encoder(pictures[:, :, None]))
    assert (features[0] - features[1]).abs().max() > 0


def test_unknown_sizes_are_refused():
    for make in (lambda: ResNet3D(34), lambda: X3D("S"), lambda: VoV3D("XL")):
        with pytest.raises(ConfigError, match="choose one of"):
            make()
