"""`bassl-fast evaluate`: a fine-tuned checkpoint and features -> scores, metrics and a report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.errors import FeatureError, ShardError
from shard_tools.format import ShardIndex, write_atomically

from . import hardware, metrics
from .features import FeatureSet
from .finetune import Windows, load_finetuned
from .metrics import FilmScores
from .report import FilmPage, write_report


def score(finetuned: str | Path, features: str | Path, split: str | None) -> tuple[list[FilmScores], dict[str, Any]]:
    """Boundary probabilities of the films of `split`, and the checkpoint's state.

    Raises:
        FeatureError: no such film, or features of another pretraining checkpoint than it was fine-tuned on.
    """
    model, state = load_finetuned(finetuned)
    feature_set = FeatureSet.open(features)
    if feature_set.provenance["checkpoint_sha256"] != state["checkpoint_sha256"]:
        raise FeatureError(
            f"{features}: features of another pretraining checkpoint than {finetuned} was fine-tuned on; "
            f"evaluate with those in {state['recipe']['data']['features']}"
        )
    films = feature_set.films(split)
    if not films:
        raise FeatureError(f"{features}: no film in split '{split}'; choose another --split")
    device = hardware.device()
    windows = Windows(films, model.crn.shape["shots"] // 2, device)
    return windows.scores(model.to(device)), state


def evaluate(
    finetuned: str,
    features: str,
    out: str | None = None,
    split: str = "test",
    threshold: float | None = None,
    pages: int = 8,
    comparison: str | None = None,
    notes: str | None = None,
) -> dict[str, float]:
    """Score the films of a split; write `scores/<film>.csv`, `metrics.json` and `report.html`; return the metrics.

    Args:
        finetuned: checkpoint that `bassl-fast finetune` wrote.
        features: folder that `bassl-fast extract` wrote.
        out: folder for the results; `evaluate/` beside the checkpoint if left out.
        split: "train", "val" or "test".
        threshold: probability from which a shot is called a boundary; the checkpoint's own if left out.
        pages: films drawn in the report, the worst first; all count in its numbers.
        comparison: JSON file with rows `{"name": ..., column: value}` for a table in the report.
        notes: text file whose paragraphs end the report, such as whose films these are.

    Raises:
        CheckpointError, FeatureError: they cannot be used, or not together.
    """
    films, state = score(finetuned, features, split)
    threshold = state["threshold"] if threshold is None else threshold
    out_dir = Path(finetuned).parent / "evaluate" if out is None else Path(out)
    found = metrics.scene_metrics(films, threshold)
    (out_dir / "scores").mkdir(parents=True, exist_ok=True)
    for film in films:
        _write_scores(out_dir / "scores" / f"{film.film}.csv", film, threshold)
    summary = {"split": split, "threshold": threshold, "threshold_from": state["threshold_from"], **found}
    write_atomically(out_dir / "metrics.json", (json.dumps(summary, indent=1) + "\n").encode())
    write_report(
        out_dir / "report.html",
        f"Scenes of {len(films)} films",
        film_pages(films, FeatureSet.open(features).provenance["shards"], pages),
        found,
        threshold,
        training_curves(Path(finetuned).parent, state["recipe"].get("pretrained")),
        json.loads(Path(comparison).read_text(encoding="utf-8")) if comparison else None,
        [line for line in Path(notes).read_text(encoding="utf-8").splitlines() if line.strip()] if notes else (),
    )
    for name, value in found.items():
        print(f"{name:14s} {value:6.2f}")
    print(f"report: {out_dir / 'report.html'}")
    return found


def film_pages(films: list[FilmScores], shards: str, drawn: int) -> list[FilmPage]:
    """Pages of the report, the films of lowest AP first; the first `drawn` have thumbnails if the shards are there."""
    films = sorted(films, key=lambda film: metrics.scene_metrics([film]).get("ap", 101.0))
    try:
        index = ShardIndex.open(shards)
    except ShardError as error:
        print(f"report without pictures: {error}")
        return [FilmPage(film.film, [], film) for film in films]
    return [
        FilmPage(film.film, _thumbnails(index, film.film) if i < drawn else [], film) for i, film in enumerate(films)
    ]


def _thumbnails(index: ShardIndex, film: str) -> list[bytes]:
    """JPEG bytes of the middle key-frame of every shot."""
    number = index.films.index(film)
    row = index.sequences[number]
    per_shot, shots = int(row["frames_per_shot"]), int(row["shots"])
    frames = int(row["first_frame"]) + np.arange(shots) * per_shot + per_shot // 2
    shard = np.memmap(index.root / index.shards[int(row["shard"])]["name"], np.uint8, mode="r")
    return [bytes(shard[int(f["offset"]) : int(f["offset"]) + int(f["size"])]) for f in index.frames[frames]]


def training_curves(finetuned: Path, pretrained: str | None) -> dict[str, list[tuple[int, float]]]:
    """Loss curves `(step, value)` that the two trainings left beside their checkpoints."""
    curves = {}
    for stage, folder in (("pretraining", Path(pretrained).parent if pretrained else None), ("fine-tuning", finetuned)):
        path = folder / "metrics.csv" if folder else None
        if path is None or not path.is_file():
            continue
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for column in rows[0] if rows else ():
            if column.startswith(("loss", "val/")):
                points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
                curves[f"{stage}: {column}"] = points
    return curves


def _write_scores(path: Path, film: FilmScores, threshold: float) -> None:
    lines = ["shot,probability,predicted,boundary,start_frame,end_frame"]
    rows = zip(film.probability, film.probability >= threshold, film.boundary, film.start, film.end, strict=True)
    lines += [f"{i},{p:.6f},{int(said)},{true},{start},{end}" for i, (p, said, true, start, end) in enumerate(rows)]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
