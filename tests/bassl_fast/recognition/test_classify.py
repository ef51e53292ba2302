"""Pictures and clips by the verbs: train, classify, retrieve; impossible options are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn.modules.batchnorm import _BatchNorm

from bassl_fast import cli
from bassl_fast.checkpoints.model import load_model
from bassl_fast.checkpoints.released import SCE_VIDEOS
from bassl_fast.encoders import ResNet3D
from bassl_fast.metrics.accuracy import hits
from bassl_fast.metrics.retrieval import recall
from bassl_fast.training.validation import Accuracy
from benchmarks.learning import MOTIONS, motions
from pipelines.clip_sampling import Clips
from pipelines.loader import WindowLoader
from pipelines.shot_loader import ShotLoader
from pipelines.views import TestViews
from shard_tools.errors import ConfigError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.detect import Reading
from tests.golden_seeds import facts, ours_of
from tests.refused import refused

pytestmark = pytest.mark.slow

VIEWS = {"size": 32, "area": [0.7, 1.0], "flip": 0.0, "jitter": 0.0, "blur": 0.0}
CLIPS = {
    "data": {"split": "train", "global_batch": 8},
    "encoder": {"class_path": "tests.bassl_fast.plain.PlainClip"},
    "method": {
        "class_path": "bassl_fast.methods.Supervised",
        "init_args": {"classes": 4, "clips": {"frames": 4}, "views": VIEWS},
    },
    "optimiser": {"name": "adamw", "lr": 1e-3, "lr_batch": 0},
    "training": {"steps": 4, "precision": "32-true"},
}
PICTURES = CLIPS | {
    "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 8}},
    "method": {"class_path": "bassl_fast.methods.Supervised", "init_args": {"classes": 4, "views": VIEWS}},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four motions, 8 training and 3 validation clips of each, of 6 frames."""
    root = tmp_path_factory.mktemp("clips")
    pack(motions(root / "tree", frames=6, train=8, val=3), root / "shards", reading=Reading("clips"), quiet=True)
    return root / "shards"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as pictures: a class of each motion."""
    root = tmp_path_factory.mktemp("pictures")
    tree = motions(root / "tree", frames=2, train=4, val=2)
    for path in sorted(tree.glob("*/*/*/*.jpg")):
        path.rename(path.parents[1] / f"{path.parent.name}-{path.name}")
    for folder in tree.glob("*/*/*/"):
        folder.rmdir()
    pack(tree, root / "shards", reading=Reading("pictures"), quiet=True)
    return root / "shards"


def argv(verb: str, recipe: dict, shards: Path, out: Path, *options: object) -> list[str]:
    path = out.parent / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return [verb, "--config", str(path), "--data.shards", str(shards), "--out", str(out), *map(str, options)]


def measured(run: Path, name: str) -> list[float]:
    with open(run / "metrics.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "clips"
    assert cli.main(argv("train", CLIPS, shards, out)) == 0
    return out / "last.ckpt"


def test_a_video_is_scored_by_the_mean_of_all_its_views(trained: Path, shards: Path, tmp_path: Path, capsys):
    """Against the views one by one, whatever the batch that they come in."""
    options = ["--clips", "1", "--crops", "3", "--size", "40", "--short_side", "40", "--out", str(tmp_path)]
    assert cli.main(["classify", str(trained), str(shards), *options, "--batch", "5", "--precision", "32-true"]) == 0
    with np.load(tmp_path / "predictions.npz") as saved:
        found = {key: saved[key] for key in saved.files}
    model = load_model(trained)
    encoder, method = model.encoder, model.method
    index = ShardIndex.open(shards)
    films = index.select("val")
    loader = ShotLoader(index, films, TestViews(40, 40, 3), Clips(4), batch=3)
    with torch.no_grad():
        windows = torch.stack(
            [
                torch.softmax(method.classifier(encoder.eval().in_windows(images.transpose(1, 2), 32)), -1).mean((0, 1))
                for _, images in loader
            ]
        )
    np.testing.assert_allclose(found["probability"], windows.numpy(), atol=1e-5)
    assert found["label"].tolist() == index.sequences["label"][films].tolist()
    right = (found["probability"].argmax(1) == found["label"]).mean()
    assert json.loads((tmp_path / "accuracy.json").read_text())["top1"] == pytest.approx(100 * right)
    assert f"top-1 {100 * right:.2f} %, top-5 100.00 %" in capsys.readouterr().out


def test_validation_is_what_classify_says_with_one_view(trained: Path, shards: Path, tmp_path: Path):
    assert cli.main(["classify", str(trained), str(shards), "--out", str(tmp_path), "--precision", "32-true"]) == 0
    assert measured(trained.parent, "val/top1")[-1] == pytest.approx(
        json.loads((tmp_path / "accuracy.json").read_text())["top1"]
    )


def test_a_validation_that_was_interrupted_is_repeated(shards: Path, tmp_path: Path, monkeypatch):
    def stop(*_):
        raise ConfigError("stopped by the test")

    words = argv("train", CLIPS, shards, tmp_path / "run", "--training.steps", 5)
    with monkeypatch.context() as patch:
        patch.setattr(Accuracy, "measure", stop)
        assert cli.main(words) == 1
    assert cli.main([*words, "--resume"]) == 0
    assert len(measured(tmp_path / "run", "val/top1")) == 1


def test_top_k_counts_labels_among_the_k_most_probable():
    probability = torch.tensor([[0.4, 0.3, 0.1, 0.08, 0.07, 0.05], [0.05, 0.07, 0.08, 0.1, 0.3, 0.4]])
    assert hits(probability, torch.tensor([0, 0])).tolist() == [1, 1]
    assert hits(probability, torch.tensor([1, 1])).tolist() == [0, 2]
    assert hits(torch.full((4, 10), 0.1), torch.arange(4)).tolist() == [1, 4]  # says nothing, and is not right by it


def test_linear_evaluation_leaves_the_encoder_as_it_was(trained: Path, shards: Path, tmp_path: Path):
    recipe = CLIPS | {"method": {**CLIPS["method"], "init_args": {**CLIPS["method"]["init_args"], "frozen": True}}}
    assert cli.main(argv("train", recipe, shards, tmp_path / "linear", "--initial_encoder", trained)) == 0
    before, after = (
        torch.load(path, weights_only=True)["state_dict"] for path in (trained, tmp_path / "linear/last.ckpt")
    )
    same = {name: torch.equal(value, after[name]) for name, value in before.items()}
    assert all(value for name, value in same.items() if name.startswith("encoder."))
    assert not same["method.classifier.weight"]


def test_precise_statistics_are_means_over_training_batches(shards: Path, tmp_path: Path):
    """Of the whole first epoch here, with the weights that saw it: a learning rate of zero changes none."""
    options = ["--optimiser.lr", "1e-12", "--training.precise_bn", "4", "--training.checkpoint_steps", "4"]
    assert cli.main(argv("train", CLIPS, shards, tmp_path / "run", *options)) == 0
    model = load_model(tmp_path / "run/last.ckpt")
    encoder, method = model.encoder, model.method
    norm = next(module for module in encoder.modules() if isinstance(module, _BatchNorm))
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mean((0, 2, 3, 4))))
    index = ShardIndex.open(shards)
    loader = WindowLoader(index, index.select("train"), method.sample, 32, global_batch=8)
    with torch.no_grad():
        for batch in loader:
            encoder.train()(batch["images"][:, 0].transpose(1, 2))
    expected = torch.stack(seen).mean(0)
    saved = torch.load(tmp_path / "run/last.ckpt", weights_only=True)["state_dict"]["encoder.bn.running_mean"]
    torch.testing.assert_close(saved, expected, rtol=1e-4, atol=1e-5)


def test_online_evaluation_trains_a_classifier_on_the_side(frames: Path, tmp_path: Path):
    """Methods without labels learn the same with it."""
    heads = {"hidden": 16, "outputs": 8, "views": VIEWS}
    for method, extra in (("BYOL", {}), ("SCE", {"queue": 16}), ("SCRL", {"boxes": {"least": 16}})):
        weights = {}
        for name, classes in (("alone", {}), ("online", {"classes": 4})):
            arguments = heads | extra | classes
            recipe = PICTURES | {
                "method": {"class_path": f"bassl_fast.methods.{method}", "init_args": arguments},
                "training": {"steps": 2, "precision": "32-true", "validate_every": 1 if classes else 0},
            }
            run = tmp_path / f"{method}-{name}"
            assert cli.main(argv("pretrain", recipe, frames, run)) == 0
            weights[name] = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
            assert len(measured(run, "loss/online")) == (2 if classes else 0)
        alike = {name for name in weights["alone"] if name.startswith("encoder.")}
        for name in alike:
            torch.testing.assert_close(weights["online"][name], weights["alone"][name], msg=f"{method} {name}")
        assert weights["online"]["method.classifier.bias"].any()


def test_retrieval_is_the_recall_of_the_features_it_writes(trained: Path, shards: Path, tmp_path: Path):
    options = ["--query", "val", "--out", str(tmp_path), "--precision", "32-true"]
    assert cli.main(["retrieve", str(trained), str(shards), *options]) == 0
    sets = {}
    for split in ("val", "train"):
        with np.load(tmp_path / f"features-{split}.npz") as saved:
            sets[split] = [torch.from_numpy(saved[key]) for key in ("feature", "label")]
    assert sets["train"][0].shape == (8 * len(MOTIONS), 16)
    expected = {f"R@{k}": rate for k, rate in recall(*sets["val"], *sets["train"]).items()}
    assert json.loads((tmp_path / "recall.json").read_text()) == pytest.approx(expected)


def test_impossible_options_are_refused(trained: Path, shards: Path, frames: Path, tmp_path: Path, capsys):
    def said(*words: object) -> str:
        return refused(capsys, *words)

    wrong = argv("train", CLIPS, shards, tmp_path / "a", "--method.classes", 3)
    assert "has 4 classes, and the model has 3" in said(*wrong)
    frozen = argv("train", CLIPS, shards, tmp_path / "a", "--method.frozen", "true", "--training.precise_bn", 2)
    assert "the encoder is frozen; leave it out" in said(*frozen)
    timed = argv("train", CLIPS, shards, tmp_path / "a", "--method.clips.seconds", 1.0)
    assert "are unknown (32 of 32)" in said(*timed)
    assert not (tmp_path / "a" / "last.ckpt").exists()
    assert "no clip in split 'test'" in said("classify", trained, shards, "--split", "test")
    assert "the whole shot is one clip" in said("classify", trained, shards, "--clips", 10)
    assert "clips 0: must be at least 1" in said("classify", trained, shards, "--clips", 0)
    assert "a set of images, and this classifier takes clips" in said("classify", trained, frames)
    both = argv("train", CLIPS, shards, tmp_path / "a", "--method.clips", "{frames: 4, seconds: 1, stride: 2}")
    assert "clips: seconds 1.0, stride 2.0, segments False: give one of them, and null" in said(*both)
    assert "crops 2: choose 1 or 3" in said("classify", trained, shards, "--crops", 2)
    assert "size 0 must be within [8," in said("classify", trained, shards, "--size", 0)
    clips_for_pictures = CLIPS | {"encoder": PICTURES["encoder"]}
    assert "ResNet takes images" in said(*argv("train", clips_for_pictures, shards, tmp_path / "b"))
    assert "a set of clips; use `bassl-fast retrieve` for these" in said("extract", trained, shards, tmp_path / "f")
    broken = torch.load(trained, weights_only=True)
    broken["state_dict"]["method.classifier.weight"][:] = float("nan")
    torch.save(broken, tmp_path / "nan.ckpt")
    assert "is not finite" in said("classify", tmp_path / "nan.ckpt", shards)
    assert "is the query too" in said("retrieve", trained, shards, "--query", "train")
    assert "frames 3: ResNet takes images" in said("info", "--model", "ResNet", "--frames", 3)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["X3D", "--classes", "400"], ["3,794,322", "3,762,858", "4.732", "6.186"]),
        (["ResNet3D", "--model.depth", "50"], ["31,634,496", "41.740"]),
        (["ResNet"], ["23,508,032"]),
    ],
)
def test_info_tells_what_a_network_costs(words: list[str], numbers: list[str], capsys):
    assert cli.main(["info", "--model", *words]) == 0
    said = capsys.readouterr().out
    assert all(number in said for number in numbers), said


def test_a_clip_encoder_takes_pictures_too(frames: Path, tmp_path: Path):
    recipe = PICTURES | {"encoder": {"class_path": "bassl_fast.encoders.X3D"}}
    assert cli.main(argv("train", recipe, frames, tmp_path / "run")) == 0
    assert cli.main(["classify", str(tmp_path / "run/last.ckpt"), str(frames)]) == 0


def test_an_encoder_alone_is_told_what_a_clip_is(shards: Path, tmp_path: Path, capsys):
    keys = [key.removeprefix("model.") for key in facts("sce_trunk_keys")["resnet3d18"]["keys"]]
    own = ResNet3D(18).state_dict()
    names = ours_of(keys, SCE_VIDEOS)
    torch.save({theirs: own[ours.removeprefix("encoder.")] for ours, theirs in names.items()}, tmp_path / "r3d.pth")
    assert cli.main(["import-checkpoint", str(tmp_path / "r3d.pth"), str(tmp_path / "r3d.ckpt")]) == 0
    words = ["retrieve", tmp_path / "r3d.ckpt", shards, "--query", "val", "--size", "32", "--short_side", "32"]
    assert "does not say which frames make a clip; give --clip_sampling" in refused(capsys, *words)
    assert cli.main([*map(str, words), "--clip_sampling", "{frames: 4}"]) == 0
