"""`bassl-fast demo`: everything from films to a report, without a download, and the gain from pretraining.

Two models start from identical weights. One stays untrained, one is pretrained without labels. Both are then fine-tuned
in the same way and evaluated on films whose labels no training used.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bassl_fast import config
from bassl_fast.segmentation.evaluate import evaluate
from bassl_fast.segmentation.extract import extract
from bassl_fast.segmentation.finetune import finetune
from bassl_fast.training.pretrain import pretrain
from shard_tools.annotations import movienet
from shard_tools.errors import ConfigError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films
from shard_tools.storage.atomic import check_writable, write_atomically
from shard_tools.video import keyframes as video
from shard_tools.video.listing import list_videos

from . import data as tools

RECIPE = Path(__file__).parents[2] / "configs" / "demo.yaml"
REAL_FILM = "your-videos"
MODELS = ("untrained", "pretrained")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print the name of a stage, and at the end how long it took."""
    started = time.monotonic()
    print(f"-- {name}", flush=True)
    yield
    print(f"   {time.monotonic() - started:.0f} s", flush=True)


def demo(films: str | None = None, out: str = "demo", recipe_file: str | None = None) -> dict[str, Any]:
    """Draw films, pack, pretrain, extract, fine-tune, evaluate, report; print the APs and return them.

    Args:
        films: folder of video files, joined into one held-out film whose scenes are the files. It is also pretrained
            on, without labels, as BaSSL does with its test films. If left out, synthetic films are held out.
        out: new folder for everything.
        recipe_file: YAML file with the sections draw, pretrain, finetune and seeds; if left out, the demo's own,
            `configs/demo.yaml`.

    Raises:
        ConfigError: `out` exists.
        SourceError: fewer than two usable videos in `films`.
    """
    root = Path(out)
    if root.exists():
        raise ConfigError(f"{root}: exists; delete it or choose another --out")
    check_writable(root)
    if films is not None and len(list_videos(Path(films))) < 2:
        raise SourceError(f"{films}: one video has no join to find; put two or more there")
    source = str(RECIPE) if recipe_file is None else recipe_file
    recipe = read_recipe(source)
    started = time.monotonic()
    with stage("draw films" + (f" and cut those in {films} into shots" if films else "")):
        try:
            make_films(root / "films", recipe["draw"], films)
        except BaseException:  # so that the same command can be given again
            shutil.rmtree(root, ignore_errors=True)
            raise
    with stage("pack"):
        pack(root / "films", root / "shards")
    index = ShardIndex.open(root / "shards")
    held_out = [int(label) for film in index.select("test") for label in index.shots_of(film)["boundary"]]
    if films:
        recipe["pretrain"]["data"]["split"] = None

    with stage("similarity of colours"):
        colours = score_colours(root / "shards", root / "colours")
        print(f"   while models train, see the scenes that colours alone find: {root / 'colours' / 'report.html'}")
    rows, shown = compare(recipe, root, source)
    known = {"chance": 100 * mean(held_out), "similarity of colours": colours}
    rows = [*({"name": name, "AP": (ap, 0.0)} for name, ap in known.items()), *rows]
    write_atomically(root / "comparison.json", json.dumps(rows).encode())
    with stage("report of the seed of median AP"):
        features, comparison = str(root / "pretrained" / "features"), str(root / "comparison.json")
        evaluate(shown, features, str(root), comparison=comparison, notes=attribution(films))
    print(f"\nAP on {len(held_out)} shots of held-out films, {len(recipe['seeds'])} seeds of fine-tuning")
    for row in rows:
        print(f"  {row['name']:25s}{row['AP'][0]:6.1f}  +- {row['AP'][1]:.1f}")
    print(f"in {time.monotonic() - started:.0f} s; open {root / 'report.html'}")
    return {row["name"]: row["AP"][0] for row in rows}


def compare(recipe: dict[str, Any], root: Path, source: str) -> tuple[list[dict[str, Any]], str]:
    """Train and score every model: rows of the comparison, and the pretrained checkpoint of median AP.

    Args:
        recipe: see `read_recipe`.
        root: folder with the shards; each model gets a folder in it.
        source: the recipe file, for errors.
    """
    rows, shown = [], ""
    for model in MODELS:
        with stage(f"{model} model"):
            section = dict(recipe["pretrain"])
            if model == "untrained":
                section["training"] = section["training"] | {"steps": 0}
            checkpoint, features = train(section, root / model, root / "shards", source)
        with stage(f"fine-tune: {model}, {len(recipe['seeds'])} seeds"):
            section = recipe["finetune"] | {"pretrained": checkpoint}
            aps = score_seeds(section, features, root / model, recipe["seeds"], source)
        rows.append({"name": model, "AP": (mean(aps.values()), stdev(aps.values()) if len(aps) > 1 else 0.0)})
        shown = sorted(aps, key=aps.__getitem__)[len(aps) // 2]  # in the end, of the pretrained model
    return rows, shown


def train(section: dict[str, Any], out: Path, shards: Path, source: str) -> tuple[str, str]:
    """Pretrain by the section `pretrain` of a recipe and extract all features: paths of checkpoint and features."""
    section = section | {"data": section["data"] | {"shards": str(shards)}, "out": str(out)}
    checkpoint, features = str(config.run(pretrain, section, source)), str(out / "features")
    extract(checkpoint, str(shards), features)
    return checkpoint, features


def score_seeds(section: dict[str, Any], features: str, out: Path, seeds: list[int], source: str) -> dict[str, float]:
    """Fine-tune by the section `finetune` with every seed: checkpoint -> AP in percent on the held-out films."""
    # here, so that `--help` does not wait for torch
    from bassl_fast.metrics.scenes import scene_metrics
    from bassl_fast.segmentation.scoring import score

    section = section | {"data": section["data"] | {"features": features}}
    aps = {}
    for seed in seeds:
        tuned = config.run(finetune, section | {"out": str(out / f"scenes-{seed}"), "seed": seed}, source)
        scores, _ = score(tuned, features, "test")
        aps[str(tuned)] = scene_metrics(scores)["ap"]
    return aps


def score_colours(shards: Path, features: Path) -> float:
    """AP in percent, on the held-out films, of `scenes` without an option: nothing is trained on these films.

    Their film strips are in `report.html` beside the features, before any training.
    """
    from bassl_fast.metrics.scenes import FilmScores, scene_metrics
    from bassl_fast.report.page import write_report
    from bassl_fast.segmentation.kinds import Kinds
    from bassl_fast.segmentation.scoring import film_pages
    from bassl_fast.segmentation.similarity import SimilarityModel

    extract("colours", str(shards), str(features))
    model, kinds, scores, numbers = SimilarityModel.load(), Kinds.open(features), [], {}
    for film in kinds.first.films("test"):
        known = kinds.labelled(film)
        probability = model.probability(list(known.kinds.values()), known.seconds, film.name)
        scores.append(FilmScores(film.name, probability, known.boundary, film.shots["start"], film.shots["end"]))
        numbers[film.name] = film.shots["shot"]
    threshold = model.thresholds["normal"]
    found = scene_metrics(scores, threshold)
    pages = film_pages(scores, numbers, kinds.first.provenance, len(scores))
    write_report(features / "report.html", "Scenes by the similarity of colours", pages, found, threshold, {})
    return found["ap"]


def attribution(videos: str | None) -> str | None:
    """The text file in the folder of videos that names their authors, to be quoted in the report."""
    if videos is None:
        return None
    texts = [path for name in ("ATTRIBUTION*", "README*") for path in sorted(Path(videos).glob(name))]
    return next((str(path) for path in texts if path.is_file() and path.suffix in ("", ".txt", ".md")), None)


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe of the demo; each section is checked against the options of its verb.

    Raises:
        ConfigError: an unknown or missing section or key, which it names.
    """
    recipe = config.read_yaml(path)
    sections = ("draw", "pretrain", "finetune", "seeds")
    if wrong := set(recipe) ^ set(sections):
        raise ConfigError(
            f"{path}: its sections must be {', '.join(sections)}; add or remove {', '.join(sorted(wrong))}"
        )
    for verb, name, needed in (
        (tools.draw, "draw", {"destination": "-"}),
        (pretrain, "pretrain", {"data": recipe["pretrain"].get("data", {}) | {"shards": "-"}}),
        (finetune, "finetune", {"data": recipe["finetune"].get("data", {}) | {"features": "-"}}),
    ):
        config.parse_dict(config.make_parser(verb), recipe[name] | needed, f"{path}: {name}")
    return recipe


def make_films(root: Path, synthetic: dict[str, Any], videos: str | None) -> None:
    """Write key-frames and annotations of synthetic films, the held-out ones replaced by `videos` if given."""
    if videos is None:
        draw_films(root, **synthetic)
        return
    files = list_videos(Path(videos))
    labels = draw_films(root, **(synthetic | {"films": synthetic["films"] - synthetic["test"], "test": 0}))
    labels[REAL_FILM] = video.extract_film(files, root, REAL_FILM, split="test")
    movienet.write_annotations(root, labels)
