"""A fine-tuned checkpoint and features -> the scores of films, their metrics and a report."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bassl_fast.metrics import scenes as metrics
from bassl_fast.metrics.protocols import Protocol, mean_over_annotators, metrics_of
from bassl_fast.metrics.scenes import FilmScores
from bassl_fast.report.page import FilmPage, write_report
from bassl_fast.runtime import hardware
from bassl_fast.runtime.run_folder import RunFolder, files, folder_of
from pipelines.store import Store
from shard_tools import plugins
from shard_tools.errors import ConfigError, FeatureError, RemoteError, ShardError, masked
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.atomic import write_atomically
from shard_tools.storage.cache import local_file
from shard_tools.storage.untrusted import parse_json

from .annotators import of_annotators
from .features import FeatureSet
from .kinds import Kinds
from .model import load_finetuned

# Also in metrics.json.
_SUMMARY = {"split", "threshold", "threshold_from", "best_epoch_from", "reference_quirks"}
_SUMMARY |= {"protocol", "tolerance", "annotators"}


@dataclass(frozen=True)
class Scoring:
    """How films are scored; see `evaluate`.

    Raises:
        ConfigError: options that do not go together.
    """

    threshold: float | None = None
    protocol: Protocol = "movienet"
    tolerance: str = "3s"
    annotations: str | None = None
    reference_quirks: bool = False

    def __post_init__(self) -> None:
        metrics_of(self.protocol, self.tolerance)  # raises
        if self.reference_quirks and self.protocol != "movienet":
            raise ConfigError(f"--reference_quirks: only for protocol movienet, not {self.protocol}; leave it out")
        if (self.protocol == "bbc_annotators") != (self.annotations is not None):
            raise ConfigError(
                "protocol bbc_annotators: needs --annotations DIR, the folder of BBC's annotations"
                if self.annotations is None
                else f"--annotations: only for protocol bbc_annotators, not {self.protocol}; leave it out"
            )


def score(
    finetuned: str | Path, features: str | Path | Sequence[str | Path], split: str | None
) -> tuple[list[FilmScores], dict[str, Any]]:
    """Boundary probabilities of the films of `split`, and the checkpoint's state.

    Raises:
        ConfigError: another number of feature folders than the model reads.
        FeatureError: no film in `split`, or features of another pretraining checkpoint than the model's. The heads
            similarity and film take those of any.
    """
    model, state = load_finetuned(finetuned)
    kinds = Kinds.open(features)
    root, section = kinds.first.root, state["model"].get("similarity")
    if section is None and len(kinds.sets) > 1:
        raise ConfigError(f"{finetuned}: has no similarity head, so it takes one folder of features; give one")
    if section and model.dim and len(kinds.sets) != (wanted := len(section["kinds"])):
        raise ConfigError(
            f"{finetuned}: reads {wanted} folders of features, not {len(kinds.sets)}; "
            f"give as many as it was fine-tuned on, {state['trained_on']['features']}"
        )
    trained_on = section["kinds"][0] if section else state["checkpoint_sha256"]
    if model.dim and kinds.names[0] != trained_on:
        raise FeatureError(
            f"{root}: features of another pretraining checkpoint than {finetuned} was fine-tuned on; "
            f"evaluate with those in {state['trained_on']['features']}"
        )
    films = kinds.first.films(split)
    if not films:
        raise FeatureError(f"{root}: no film in split '{split}'; choose another --split")
    hardware.say_device()
    device = hardware.device()
    return kinds.windows(films, model, device).scores(model.to(device)), state


def evaluate_films(
    finetuned: str,
    features: list[str] | str,
    out: str | None,
    split: str,
    how: Scoring,
    pages: int,
    comparison: str | None,
    notes: str | None,
) -> dict[str, float]:
    """See `evaluate`."""
    folder = RunFolder(f"{folder_of(finetuned)}/evaluate-{split}" if out is None else out)
    ours = metrics_of(how.protocol, how.tolerance)
    more = plugins.functions("metrics", ours=_SUMMARY | metrics.METRICS.keys() | ours.keys())  # a broken one fails here
    films, state = score(finetuned, features, split)
    feature_set = FeatureSet.open(features if isinstance(features, str) else features[0])
    numbers = {film.name: film.shots["shot"] for film in feature_set.films(split)}
    rows = _read_rows(comparison) if comparison else None
    threshold, threshold_from = _threshold(how.threshold, state, how.reference_quirks)
    found, facts = _scores(films, numbers, threshold, how, more)
    summary = {
        "split": split,
        "threshold": threshold,
        "threshold_from": threshold_from,
        "best_epoch_from": state["best_epoch_from"],
        "reference_quirks": how.reference_quirks,
        **facts,
        **found,
    }
    _write_scores(folder.path, films, numbers, threshold)
    write_atomically(folder.path / "metrics.json", (json.dumps(summary, indent=1) + "\n").encode())
    write_report(
        folder.path / "report.html",
        "Scenes of one film" if len(films) == 1 else f"Scenes of {len(films)} films",
        film_pages(films, numbers, feature_set.provenance, pages),
        found,
        threshold,
        training_curves(folder_of(finetuned), state["trained_on"]["pretrained"]),
        rows,
        [line for line in Path(notes).read_text("utf-8", "replace").splitlines() if line.strip()] if notes else (),
    )
    folder.publish()
    if split == state["best_epoch_from"]:
        print(f"note: the best epoch was chosen on these films (split '{split}'), so their scores are too high")
    for name, value in found.items():
        print(f"{name:14s} {value:6.2f}")
    print(f"report: {masked(folder.where('report.html'))}")
    return found


def _scores(
    films: list[FilmScores],
    numbers: dict[str, np.ndarray],
    threshold: float,
    how: Scoring,
    more: dict[str, metrics.Metric],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores of a protocol, in percent, and what else metrics.json says about them.

    Raises:
        FeatureError: no score is defined. SourceError: see `of_annotators`.
    """
    facts: dict[str, Any] = {"protocol": how.protocol}
    if how.protocol == "movienet":
        return metrics.scene_metrics(films, threshold, how.reference_quirks, more), facts
    scored = metrics_of(how.protocol, how.tolerance) | more
    if how.annotations is not None:
        sets = of_annotators(films, numbers, Path(how.annotations))
        facts["annotators"] = {name: metrics.scores_of(labelled, threshold, scored) for name, labelled in sets.items()}
        found = mean_over_annotators(list(facts["annotators"].values()))
    else:
        found = metrics.scores_of(films, threshold, scored)
    if how.protocol == "tolerance":
        facts["tolerance"] = how.tolerance
    if not found:
        raise FeatureError(
            f"protocol {how.protocol}: no score is defined on these films; they need a true boundary and times of shots"
        )
    return found, facts


def _threshold(given: float | None, state: dict[str, Any], reference_quirks: bool) -> tuple[float, str]:
    """The threshold `given`, or else the default, and where it is from.

    Raises:
        ConfigError: it is not a probability.
    """
    default = (0.5, "the reference") if reference_quirks else (state["threshold"], state["threshold_from"])
    threshold, threshold_from = default if given is None else (given, "--threshold")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold {threshold}: must be a probability, within 0..1")
    return threshold, threshold_from


def film_pages(
    films: list[FilmScores], numbers: dict[str, np.ndarray], provenance: dict[str, Any], drawn: int
) -> list[FilmPage]:
    """Pages of the report, films of lowest AP first; the first `drawn` have thumbnails if the shards are available.

    Args:
        numbers: film -> `[S]` shot numbers.
        provenance: see `FeatureSet`.
    """
    films = sorted(
        films, key=lambda film: metrics.scene_metrics([film]).get("ap", 101.0) if film.labelled.any() else 102.0
    )
    try:
        if provenance["shards"] is None:
            raise ShardError("the features were imported, so their shards are not known")
        index = ShardIndex.open(provenance["shards"])
        if index.digest() != provenance["manifest_sha256"]:
            raise ShardError(f"{index.address}: packed again after the features were extracted; extract them again")
    except (ShardError, RemoteError) as error:
        print(f"report without thumbnails: {error}")
        drawn = 0
    return [
        FilmPage(film.film, _thumbnails(index, film.film) if i < drawn else [], film, shot_numbers=numbers[film.film])
        for i, film in enumerate(films)
    ]


def _thumbnails(index: ShardIndex, film: str) -> list[bytes]:
    """The key-frames of a film as JPEG, shot by shot."""
    row = index.sequences[index.films.index(film)]
    frames = int(row["first_frame"]) + np.arange(int(row["shots"]) * int(row["frames_per_shot"]))
    return [bytes(jpeg) for jpeg in Store(index).read(frames)]


def training_curves(finetuned: str | Path, pretrained: str | None) -> dict[str, list[tuple[int, float]]]:
    """Curves `(step, value)` that pretraining and fine-tuning left beside their checkpoints."""
    curves: dict[str, dict[int, float]] = {}
    for stage, folder in (("pretraining", folder_of(pretrained) if pretrained else None), ("fine-tuning", finetuned)):
        # A resumed run left one file per start; if two have the same step, the later one counts.
        for path in files(folder, "metrics*.csv") if folder else ():
            with open(local_file(path), newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    for column, value in row.items():
                        if column.startswith(("loss", "val/", "test/")) and value:
                            curves.setdefault(f"{stage}: {column}", {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def _read_rows(path: str) -> list[dict[str, Any]]:
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None


def _write_scores(folder: Path, films: list[FilmScores], numbers: dict[str, np.ndarray], threshold: float) -> None:
    """Write `scores/<film>.csv` for every film."""
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    for film in films:
        lines = ["shot,probability,predicted,boundary,start_frame,end_frame"]
        predicted = film.predicted(threshold).astype(int)
        rows = zip(numbers[film.film], film.probability, predicted, film.boundary, film.start, film.end, strict=True)
        lines += [f"{shot},{p:.6f},{call},{true},{start},{end}" for shot, p, call, true, start, end in rows]
        write_atomically(folder / "scores" / f"{film.film}.csv", ("\n".join(lines) + "\n").encode())
