"""`bassl-fast draw`, `pack` and `info`: the command line of `shard_tools`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from shard_tools import draw as drawing
from shard_tools import pack as packing
from shard_tools import video
from shard_tools.errors import ConfigError, ShardError
from shard_tools.format import MANIFEST, ShardIndex
from shard_tools.movienet import FRAMES_DIR


def draw(
    destination: str, films: int = 12, shots: int = 100, test: int = 4, val: int = 0, seed: int = 0, workers: int = 2
) -> None:
    """Draw films with known scenes as a MovieNet key-frame folder with annotations.

    Args:
        destination: new folder.
        films: films in all; the first are split "train", then come `val` and `test` films.
        shots: shots a film.
        test: films held out to be judged on.
        val: films held out to choose epoch and threshold by.
        seed: equal seeds draw equal films.
        workers: films drawn at a time.

    Raises:
        SourceError: a number out of range, or the folder holds key-frames already.
    """
    with tqdm(total=films, desc="draw", unit="film", disable=None) as bar:
        drawing.draw_films(
            Path(destination), films, shots, seed, test, val, workers, progress=lambda done, _: bar.update(done - bar.n)
        )


def pack(
    source: str,
    destination: str,
    workers: int = 2,
    join: str | None = None,
    split: Literal["train", "val", "test"] | None = None,
    detector: Literal["adaptive", "content"] | None = None,
) -> None:
    """Pack a MovieNet key-frame folder, or a folder of videos, into per-film shards.

    Args:
        source: folder with `240P_frames/<film>/shot_0000_img_0.jpg` (and `anno/`, `scene318/`), or with video files.
        destination: folder for the shards.
        workers: films packed at a time.
        join: videos only: play all files one after another as one film of this name; joins are scene boundaries.
        split: videos only: "train", "val" or "test" for all of them; "test" if left out.
        detector: videos only: shot detector of PySceneDetect; "adaptive" if left out.

    Raises:
        SourceError, ShardError: see `shard_tools.pack.pack` and `shard_tools.video.extract_folder`.
    """
    if workers < 1:
        raise ConfigError(f"workers {workers}: must be at least 1")
    if not _holds_videos(Path(source)):
        for name, value in (("join", join), ("split", split), ("detector", detector)):
            if value is not None:
                raise ConfigError(f"--{name} is for videos, and {source} holds none; leave it out")
        packing.pack(source, destination, workers)
        print(f"shards: {destination} ({_summary(ShardIndex.open(destination))})")
        return
    if (Path(destination) / MANIFEST).exists():  # known before the long work
        raise ShardError(f"{destination}: already holds a finished set of shards; choose another folder or delete it")
    Path(destination).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".keyframes-", dir=destination) as scratch:
        seconds = 2 * sum(video.duration(path) for path in video.list_videos(Path(source)))
        with tqdm(total=round(seconds), desc="shots and key-frames", unit="s", disable=None) as bar:
            video.extract_folder(Path(source), Path(scratch), join, split or "test", detector or "adaptive", bar.update)
        packing.pack(scratch, destination, workers)
    print(f"shards: {destination} ({_summary(ShardIndex.open(destination))})")


def _holds_videos(folder: Path) -> bool:
    return (
        folder.is_dir()
        and not (folder / FRAMES_DIR).is_dir()
        and any(path.suffix.lower() in video.VIDEO_SUFFIXES for path in folder.iterdir())
    )


def info(shards: str, as_json: bool = False) -> None:
    """Print what is in shards: films, shots, key-frames, bytes, picture sizes, splits, labels.

    Args:
        shards: folder that `bassl-fast pack` wrote.
        as_json: print JSON.

    Raises:
        ShardError: the folder cannot be opened.
    """
    index = ShardIndex.open(shards)
    facts = _facts(index)
    print(json.dumps(facts) if as_json else "\n".join(f"{name:17s} {value}" for name, value in facts.items()))


def _facts(index: ShardIndex) -> dict[str, Any]:
    rows, labels = index.sequences, index.shots["boundary"]
    sizes = sorted({f"{w}x{h}" for h, w in zip(rows["height"].tolist(), rows["width"].tolist(), strict=True)})
    splits = {s.decode() or "none": int((rows["split"] == s).sum()) for s in sorted(set(rows["split"].tolist()))}
    return {
        "films": len(rows),
        "shots": int(rows["shots"].sum()),
        "key-frames": len(index.frames),
        "bytes": sum(shard["bytes"] for shard in index.shards),
        "picture sizes": sizes,
        "films by split": splits,
        "labelled shots": int((labels >= 0).sum()),
        "scene boundaries": int((labels == 1).sum()),
    }


def _summary(index: ShardIndex) -> str:
    facts = _facts(index)
    labelled = f"{facts['labelled shots']} shots labelled" if facts["labelled shots"] else "no labels"
    return f"{facts['films']} films, {facts['shots']} shots, {facts['key-frames']} key-frames, {labelled}"
