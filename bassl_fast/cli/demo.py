"""`bassl-fast demo`: the whole path on films that need no download, and what pretraining was worth.

Two models start from the same seed. One stays untrained, one is pretrained without labels; both are then fine-tuned in
the same way, and judged on films whose labels no training saw.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bassl_fast import config
from bassl_fast.metrics import scenes as metrics
from bassl_fast.segmentation.evaluate import evaluate, score
from bassl_fast.segmentation.extract import extract
from bassl_fast.segmentation.finetune import finetune
from bassl_fast.training.pretrain import pretrain
from shard_tools.annotations import movienet
from shard_tools.errors import ConfigError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films
from shard_tools.storage.atomic import write_atomically
from shard_tools.video import keyframes as video

from . import data as tools

RECIPE = Path(__file__).parents[2] / "configs" / "demo.yaml"
REAL_FILM = "your-videos"


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what begins, and in the end how long it took."""
    started = time.monotonic()
    print(f"-- {name}", flush=True)
    yield
    print(f"   {time.monotonic() - started:.0f} s", flush=True)


def demo(films: str | None = None, out: str = "demo", recipe_file: str = str(RECIPE)) -> dict[str, Any]:
    """Draw films, pack, pretrain, extract, fine-tune, evaluate, report; print the APs and return them.

    Args:
        films: folder of video files, played one after another as one held-out film whose scenes are the files (it is
            pretrained on, without labels, as BaSSL does with its test films). Left out, drawn films are held out.
        out: new folder for everything.
        recipe_file: YAML with the sections draw, pretrain, finetune and seeds.

    Raises:
        ConfigError: `out` exists.
        SourceError: fewer than two usable videos in `films`.
    """
    root = Path(out)
    if root.exists():
        raise ConfigError(f"{root}: exists; delete it or choose another --out")
    if films is not None and len(video.list_videos(Path(films))) < 2:
        raise SourceError(f"{films}: one video has no join to find; put two or more there")
    recipe = read_recipe(recipe_file)
    started = time.monotonic()
    keyframes, shards = root / "films", root / "shards"
    with stage("draw films" + (f" and cut those in {films} into shots" if films else "")):
        make_films(keyframes, recipe["draw"], films)
    with stage("pack"):
        pack(keyframes, shards)
    tested = ShardIndex.open(shards)
    held_out = [int(label) for film in tested.select("test") for label in tested.shots_of(film)["boundary"]]
    chance = 100 * mean(held_out)

    rows = [{"name": "chance", "AP": (chance, 0.0)}]
    for name in ("untrained", "pretrained"):
        with stage(f"{name} model"):
            section = dict(recipe["pretrain"])
            section["data"] = section["data"] | ({"split": None} if films else {})
            if name == "untrained":
                section["training"] = section["training"] | {"steps": 0}
            checkpoint, features = train(section, root / name, shards, recipe_file)
        for label, new_crn in ((name, False), (f"{name} encoder alone", True)):
            if label == "untrained encoder alone":
                continue  # what is new and what is untrained is the same
            with stage(f"fine-tune: {label}, {len(recipe['seeds'])} seeds"):
                section = recipe["finetune"] | {"pretrained": checkpoint, "new_crn": new_crn}
                aps = judge(section, features, root / label.replace(" ", "-"), recipe["seeds"], recipe_file)
            rows.append({"name": label, "AP": (mean(aps.values()), stdev(aps.values()) if len(aps) > 1 else 0.0)})
            if label == "pretrained":
                shown = sorted(aps, key=aps.get)[len(aps) // 2]

    write_atomically(root / "comparison.json", json.dumps(rows).encode())
    with stage("report of the seed of median AP"):
        evaluate(
            shown,
            str(root / "pretrained" / "features"),
            str(root),
            comparison=str(root / "comparison.json"),
            notes=attribution(films),
        )
    print(f"\nAP on {len(held_out)} shots of held-out films, {len(recipe['seeds'])} seeds of fine-tuning")
    for row in rows:
        print(f"  {row['name']:25s}{row['AP'][0]:6.1f}  +- {row['AP'][1]:.1f}")
    print(f"in {time.monotonic() - started:.0f} s; look at {root / 'report.html'}")
    return {row["name"]: row["AP"][0] for row in rows}


def train(section: dict[str, Any], out: Path, shards: Path, source: str) -> tuple[str, str]:
    """Pretrain by a section `pretrain` of a recipe and extract the features of all films: checkpoint and features."""
    section = section | {"data": section["data"] | {"shards": str(shards)}, "out": str(out)}
    checkpoint, features = str(config.run(pretrain, section, source)), str(out / "features")
    extract(checkpoint, str(shards), features)
    return checkpoint, features


def judge(section: dict[str, Any], features: str, out: Path, seeds: list[int], source: str) -> dict[str, float]:
    """Fine-tune by a section `finetune` with every seed: checkpoint -> AP in percent on the held-out films."""
    section = section | {"data": section["data"] | {"features": features}}
    aps = {}
    for seed in seeds:
        tuned = config.run(finetune, section | {"out": str(out / f"scenes-{seed}"), "seed": seed}, source)
        scores, _ = score(tuned, features, "test")
        aps[str(tuned)] = metrics.scene_metrics(scores)["ap"]
    return aps


def attribution(videos: str | None) -> str | None:
    """A text in the folder of videos that says whose they are, to be quoted wherever their pictures are shown."""
    if videos is None:
        return None
    texts = [path for name in ("ATTRIBUTION*", "README*") for path in sorted(Path(videos).glob(name))]
    return next((str(path) for path in texts if path.is_file() and path.suffix in ("", ".txt", ".md")), None)


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe of the demo, every section checked as the verb it is for would.

    Raises:
        ConfigError: naming the key.
    """
    recipe = config.read_yaml(path)
    sections = ("draw", "pretrain", "finetune", "seeds")
    if wrong := set(recipe) ^ set(sections):
        raise ConfigError(f"{path}: its sections are {', '.join(sections)}; add or remove {', '.join(sorted(wrong))}")
    for verb, name, needed in (
        (tools.draw, "draw", {"destination": "-"}),
        (pretrain, "pretrain", {"data": recipe["pretrain"].get("data", {}) | {"shards": "-"}}),
        (finetune, "finetune", {"data": recipe["finetune"].get("data", {}) | {"features": "-"}}),
    ):
        config.parse_dict(config.make_parser(verb), recipe[name] | needed, f"{path}: {name}")
    return recipe


def make_films(root: Path, drawn: dict[str, int], videos: str | None) -> None:
    """Key-frames and annotations of the drawn films and, held out in their place, of a folder of videos."""
    if videos is None:
        draw_films(root, **drawn)
        return
    files = video.list_videos(Path(videos))
    labels = draw_films(root, **(drawn | {"films": drawn["films"] - drawn["test"], "test": 0}))
    labels[REAL_FILM] = video.extract_film(files, root, REAL_FILM, split="test")
    movienet.write_annotations(root, labels)
