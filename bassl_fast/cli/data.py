"""`bassl-fast draw`, `download`, `pack`, `verify` and `info`: the command line of `shard_tools`."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps as to_json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from bassl_fast.config.choices import Engine
from bassl_fast.runtime import engines
from shard_tools.annotations.movienet import FRAMES_DIR
from shard_tools.errors import ConfigError, ShardError, SourceError, masked
from shard_tools.packing import pack as packing
from shard_tools.packing import repair as repairing
from shard_tools.packing import verify as verifying
from shard_tools.shards.format import CLIPS, FILMS, MANIFEST, PICTURES
from shard_tools.shards.index import ShardIndex
from shard_tools.sources import synthetic as drawing
from shard_tools.sources.detect import Reading, has_lists
from shard_tools.storage import download as downloading
from shard_tools.storage.atomic import write_atomically
from shard_tools.storage.download import File
from shard_tools.storage.output import open_place
from shard_tools.storage.remote import attempt, fetch, filesystem, is_remote, listing
from shard_tools.video import keyframes as video
from shard_tools.video.detectors import Detector


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
        drawing.draw_films(Path(destination), films, shots, seed, test, val, workers, progress=bar.update)


def pack(
    source: str,
    destination: str,
    workers: int = 2,
    annotations: str | None = None,
    check: Literal["header", "decode"] = "header",
    recheck: bool = False,
    join: str | None = None,
    split: Literal["train", "val", "test"] | None = None,
    detector: Detector | None = None,
    layout: Literal["films", "pictures", "clips"] | None = None,
    split_id: int = 1,
    short_side: int = 256,
    fps: float | None = None,
    engine: Engine = "local",
    address: str | None = None,
) -> None:
    """Pack films, pictures or clips into shards. A stopped pack goes on where it was when the command is given again.

    Args:
        source: key-frame folder (`240P_frames/<film>/shot_0000_img_0.jpg`), zip or folder of `<film>.tar`, or folder of
            video files, or the address (s3://, gs://, http://) of one; a folder of classes of pictures, or of clips,
            with the lists of Kinetics, UCF101, HMDB51 or Something-Something or without.
        destination: folder or address for the shards.
        workers: shards packed at a time.
        annotations: folder with `anno/` and `scene318/`, or with the lists of clips; the source, or the folder its zip
            lies in, if left out.
        check: "header" looks at the ends and the size of each picture, "decode" decodes it.
        recheck: read again what a stopped pack had finished, instead of trusting its notes.
        join: videos only: play all files one after another as one film of this name; joins are scene boundaries.
        split: videos only: "train", "val" or "test" for all of them; "test" if left out.
        detector: videos only: how to find shots, see `shard_tools.shots.make_cutter`; "adaptive" if left out.
        layout: "films", "pictures" or "clips", where what is there does not tell.
        split_id: of UCF101 and HMDB51: 1, 2 or 3.
        short_side: of the frames of clips that are videos, in pixels; 0 leaves them as they are.
        fps: frames a second that clips are decoded at, or that folders of frames were; the data set's if left out.
        engine: "ray" has the films packed by the nodes of a cluster, as many at a time as it has cores; all of them
            must see source and destination. Not for videos, whose shots are found on one machine.
        address: of the Ray cluster; one on this machine is started if left out.

    Raises:
        SourceError, ShardError, RemoteError: see `shard_tools.pack.pack` and `shard_tools.video.extract_folder`.
    """
    if workers < 1:
        raise ConfigError(f"workers {workers}: must be at least 1")
    reading = Reading(layout, split_id, short_side, fps)
    packing.refuse_finished(open_place(destination))  # known before the long work
    with tempfile.TemporaryDirectory(prefix="bassl-fast-") as scratch, _room(scratch):
        if (videos := _videos(source, Path(scratch), annotations, reading)) is None:
            for name, value in (("join", join), ("split", split), ("detector", detector)):
                if value is not None:
                    raise ConfigError(f"--{name} is for films from videos, and {source} holds none; leave it out")
        elif engine != "local":
            raise ConfigError(f"engine {engine}: {source} holds videos, whose shots are found here; leave it out")
        else:
            where, source, keyframes = source.rstrip("/"), "", Path(scratch) / "keyframes"
            try:
                seconds = sum(video.duration(path) for path in video.list_videos(videos))
                with tqdm(total=round(seconds), desc="shots and key-frames", unit="s", disable=None) as bar:
                    video.extract_folder(videos, keyframes, join, split or "test", detector or "adaptive", bar.update)
            except SourceError as error:  # names a copy, where the videos are remote
                raise SourceError(str(error).replace(str(videos), where)) from None
        with engines.cluster(engine, address) as each:
            gaps = packing.pack(
                source or keyframes,
                destination,
                workers,
                annotations=annotations,
                check=check,
                recheck=recheck,
                reading=Reading(FILMS) if videos else reading,
                each=each,
            )
    for film, missing in list(gaps.items())[:10]:
        numbers = (f"{run.start}" if len(run) == 1 else f"{run.start}-{run.stop - 1}" for run in missing)
        print(f"{film}: no key-frames of shots {', '.join(numbers)}")
    if len(gaps) > 10:
        print(f"... and gaps in {len(gaps) - 10} more films")
    print(f"shards: {masked(destination)} ({_summary(ShardIndex.open(destination))})")


@contextmanager
def _room(folder: str) -> Iterator[None]:
    """Say what helps when the disk of temporary files is full."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SourceError(f"{folder}: {error.strerror}; set TMPDIR to a folder with room") from None


def _videos(source: str, scratch: Path, annotations: str | None, reading: Reading) -> Path | None:
    """The folder of films as video files that `source` is, copied here if it is remote; None if it is none."""
    if reading.layout not in (None, FILMS) or has_lists(source, annotations):
        return None
    if not is_remote(source):
        folder = Path(source)
        if not folder.is_dir() or (folder / FRAMES_DIR).is_dir():
            return None
        return folder if any(path.suffix.lower() in video.VIDEO_SUFFIXES for path in folder.iterdir()) else None
    try:
        videos = [entry for entry in listing(source) if Path(entry.name).suffix.lower() in video.VIDEO_SUFFIXES]
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not videos:
        return None
    fs, _ = filesystem(source)
    (scratch / "videos").mkdir()
    for entry in tqdm(videos, desc="fetch", unit="file", disable=None):
        to = scratch / "videos" / entry.name
        attempt(f"{source}/{entry.name}", lambda entry=entry, to=to: fetch(fs, entry.path, to, entry.size))
    return scratch / "videos"


def verify(
    shards: str,
    decode: Literal["none", "sample", "all"] = "sample",
    workers: int = 2,
    repair: str | None = None,
    annotations: str | None = None,
    engine: Engine = "local",
    address: str | None = None,
) -> None:
    """Read every byte of a set of shards and print what is cut, changed, missing or foreign.

    Args:
        shards: folder or address that `bassl-fast pack` wrote.
        decode: key-frames to decode too: one of a hundred, all, or none.
        workers: shards read at a time.
        repair: source to pack again from what is broken; then the set is verified once more.
        annotations: as of `pack`, for the repair.
        engine: "ray" has the shards read by the nodes of a cluster, all of which must see them.
        address: of the Ray cluster; one on this machine is started if left out.

    Raises:
        ShardError: there are faults (exit code 1).
    """
    if workers < 1:
        raise ConfigError(f"workers {workers}: must be at least 1")
    if not is_remote(shards) and not (Path(shards) / MANIFEST).is_file():
        ShardIndex.open(shards)  # says what is missing
    with engines.cluster(engine, address) as each:
        faults = _verify(shards, decode, workers, each)
        if faults and repair is not None:
            print(f"faults: {len(faults)}; packing what is broken again from {masked(repair)}", flush=True)
            repairing.repair(shards, repair, annotations, workers)
            faults = _verify(shards, decode, workers, each)
    if faults:
        many = f"{len(faults)} faults, see above" if len(faults) > 1 else "1 fault, see above"
        raise ShardError(f"{shards}: {many}; copy those files again or --repair SOURCE")
    print(f"{masked(shards)}: whole ({_summary(ShardIndex.open(shards))})")


def _verify(shards: str, decode: str, workers: int, each: engines.Nodes | None) -> list[str]:
    with tqdm(desc="verify", unit="B", unit_scale=True, disable=None) as bar:
        faults = verifying.verify(shards, decode, workers, bar.update, each)
    for fault in faults:
        print(masked(fault), flush=True)
    return faults


def download(files: list[File], out: str = "data", wait: float = 60.0) -> None:
    """Download files, going on where an earlier run stopped.

    Args:
        files: url, name below `out`, and sha256 of each.
        out: folder for them.
        wait: seconds without a byte after which a file is given up.

    Raises:
        RemoteError: a file cannot be had, or is not what its checksum says.
    """
    for file in files:
        with tqdm(desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
            path = downloading.download(file, out, wait, progress=bar.update, announce=bar.reset)
        print(f"{path} ({path.stat().st_size} bytes)", flush=True)


def info(shards: str, json: bool = False, plot: str | None = None) -> None:
    """Print what is in shards: films, pictures or clips, bytes, picture sizes, splits, labels.

    Args:
        shards: folder or address that `bassl-fast pack` wrote.
        json: print JSON.
        plot: also draw a histogram to this SVG file: shots a film, frames a clip, or pictures a class.

    Raises:
        ShardError: the folder cannot be opened.
    """
    if plot is not None and not Path(plot).parent.is_dir():
        raise ConfigError(f"plot {plot}: no folder {Path(plot).parent}; make it first")
    index = ShardIndex.open(shards)
    facts = _facts(index)
    if plot is not None:
        shown = {FILMS: "shots a film", CLIPS: "frames a clip"}.get(index.kind, "pictures a class")
        what = "classes" if index.kind == PICTURES else index.kind
        write_atomically(Path(plot), bars(facts[shown], shown, what).encode())
    if json:
        print(to_json(facts))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{k}: {n}" for k, n in value.items()) if isinstance(value, dict) else value
        print(f"{name:17s} {', '.join(shown) if isinstance(shown, list) else shown}")


def _facts(index: ShardIndex) -> dict[str, Any]:
    rows, kind = index.sequences, index.kind
    sizes = np.unique(rows["width"].astype(np.uint32) << 16 | rows["height"]).tolist()
    splits, counts = np.unique(rows["split"], return_counts=True)
    seen = {
        "bytes": sum(shard["bytes"] for shard in index.shards),
        "picture sizes": _few(sorted(f"{size >> 16}x{size & 0xFFFF}" for size in sizes)),
        f"{kind} by split": {s.decode() or "none": n for s, n in zip(splits.tolist(), counts.tolist(), strict=True)},
    }
    if kind == FILMS:
        labels = index.shots["boundary"]
        return {
            "films": len(rows),
            "shots": int(rows["shots"].sum()),
            "key-frames": len(index.frames),
            **seen,
            "labelled shots": int((labels >= 0).sum()),
            "scene boundaries": int((labels == 1).sum()),
            "shots a film": _histogram(rows["shots"]),
        }
    labels = rows["label"]
    facts = {kind: len(rows)}
    if kind == CLIPS:
        rates = [f"{rate:g}" if rate else "unknown" for rate in np.unique(rows["fps"]).tolist()]
        facts |= {"frames": len(index.frames), "frames a second": rates}
    facts |= {"shards": len(index.shards), **seen, "classes": len(index.classes)}
    facts[f"labelled {kind}"] = int((labels >= 0).sum())
    if kind == CLIPS:
        facts["frames a clip"] = _histogram(rows["frames_per_shot"])
    facts[f"{kind} a class"] = _histogram(np.bincount(labels[labels >= 0], minlength=len(index.classes)))
    return facts


def _histogram(values: np.ndarray) -> dict[str, int]:
    counts, edges = np.histogram(values, bins=max(1, min(10, len(np.unique(values)))))
    return {f"{low:.0f}-{high:.0f}": int(n) for low, high, n in zip(edges, edges[1:], counts, strict=False)}


def _few(names: list[str], most: int = 10) -> list[str]:
    return names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]


def _summary(index: ShardIndex) -> str:
    facts = _facts(index)
    if index.kind == FILMS:
        labelled = f"{facts['labelled shots']} shots labelled" if facts["labelled shots"] else "no labels"
        return f"{facts['films']} films, {facts['shots']} shots, {facts['key-frames']} key-frames, {labelled}"
    parts = [f"{len(index.sequences)} {index.kind}"]
    if index.kind == CLIPS:
        parts.append(f"{len(index.frames)} frames")
    parts.append(f"{len(index.classes)} classes" if index.classes else "no labels")
    return ", ".join([*parts, f"{len(index.shards)} shards" if len(index.shards) > 1 else "1 shard"])


def bars(counts: dict[str, int], x_label: str, y_label: str) -> str:
    """A bar plot of `counts` as an SVG document."""
    width, height, most = 60 * len(counts) + 20, 260, max(counts.values())
    body = []
    for i, (name, count) in enumerate(counts.items()):
        x, tall = 20 + 60 * i, 180 * count / most
        body.append(f'<rect x="{x}" y="{210 - tall:.1f}" width="48" height="{tall:.1f}" fill="#2a5a9b"/>')
        body.append(f'<text x="{x + 24}" y="{204 - tall:.1f}">{count}</text><text x="{x + 24}" y="226">{name}</text>')
    body.append(f'<text x="{width / 2}" y="250">{x_label}</text><text x="24" y="14">{y_label}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" text-anchor="middle">{"".join(body)}</svg>\n'
    )
