"""`bassl-fast draw`, `download`, `pack`, `verify` and `info`: the command line of `shard_tools`."""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from json import dumps as to_json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from bassl_fast.config.choices import Engine
from bassl_fast.runtime import engines
from shard_tools.annotations.movienet import FRAMES_DIR
from shard_tools.annotations.scene_lists import find_scene_lists, match_videos, read_scene_list
from shard_tools.errors import ConfigError, MissingDependency, ShardError, SourceError, masked
from shard_tools.packing import pack as packing
from shard_tools.packing import repair as repairing
from shard_tools.packing import verify as verifying
from shard_tools.shards.format import CLIPS, FILMS, MANIFEST, PICTURES
from shard_tools.shards.index import ShardIndex
from shard_tools.shards.jpeg import Decoder, pillow_faults
from shard_tools.sources import synthetic as drawing
from shard_tools.sources.detect import Reading, Request, has_lists, open_by_plugin
from shard_tools.storage import download as downloading
from shard_tools.storage.atomic import check_writable, write_atomically
from shard_tools.storage.download import File
from shard_tools.storage.output import open_place
from shard_tools.storage.remote import attempt, fetch, filesystem, is_remote, listing
from shard_tools.storage.untrusted import parse_json
from shard_tools.video import keyframes as video
from shard_tools.video.detectors import Detector
from shard_tools.video.listing import VIDEO_SUFFIXES, find_videos, name_films


def draw(
    destination: str, films: int = 12, shots: int = 100, test: int = 4, val: int = 0, seed: int = 0, workers: int = 2
) -> None:
    """Draw synthetic films with known scenes, as a MovieNet key-frame folder with annotations.

    Args:
        destination: new folder.
        films: films in all: "train" films first, then `val` and `test` films.
        shots: shots per film.
        test: films held out for evaluation.
        val: films held out to choose the epoch and the threshold.
        seed: equal seeds draw equal films.
        workers: films drawn in parallel.

    Raises:
        SourceError: a number out of range, or the folder already holds key-frames.
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
    unsure: Literal[1, 0, -1] = 1,
    annotator: int = 0,
    strict: bool = False,
    add: bool = False,
    subtitles: str | None = None,
) -> None:
    """Pack films, images or clips into shards. After an interruption, the same command resumes.

    Args:
        source: key-frame folder (`240P_frames/<film>/shot_0000_img_0.jpg`), zip, folder of `<film>.tar`, folder of
            video files, or the address (s3://, gs://, http://) of one of these; or a folder with one folder per class
            of images or clips, with or without the lists of Kinetics, UCF101, HMDB51 or Something-Something.
        destination: folder or address for the shards.
        workers: shards packed in parallel.
        annotations: folder with `anno/` or `scene318/`, or with the lists of clips; if left out, the source or the
            folder of its zip.
        check: "header" checks both ends and the size of each image, "decode" decodes it.
        recheck: read again what an interrupted pack had finished, instead of trusting its notes.
        join: videos only: join all files into one film of this name; the joins are scene boundaries.
        split: videos only: "train", "val" or "test" for all of them; "test" if left out.
        detector: videos only: "transitions", "adaptive", "content" or "transnetv2", as of `bassl-fast scenes`;
            "transitions" if left out.
        layout: "films", "pictures" or "clips", if the source does not make it clear.
        split_id: of UCF101 and HMDB51: 1, 2 or 3.
        short_side: of clips that are videos: pixels to scale the short side of frames to; 0 does not scale.
        fps: frames/s at which clips are decoded, or of folders of frames; that of the data set if left out.
        engine: "ray" packs films on the nodes of a cluster, one per core at a time; all nodes must see source and
            destination. Not for videos, whose shots are found on one machine.
        address: of the Ray cluster; if left out, one is started on this machine.
        unsure: what the label -1 in MovieNet's own files (`label318`) counts as: 1, a scene boundary, as the benchmark
            counts it; 0, none; or -1, unlabelled.
        annotator: whose scenes of BBC Planet Earth: 0 to 4.
        strict: fail, and do not finish the set, if films or shots that the annotations name have no key-frames, or an
            annotated film has key-frames of other shots.
        add: add the films to the finished set at the destination; who reads it meanwhile reads the set as it was.
        subtitles: folder with subtitles of the films, <film>.srt, .vtt, .ass, .ssa or .sup; the set then has times of
            speech, which all heads of `finetune` but crn learn from. Films may be missing there.

    Raises:
        SourceError, ShardError, RemoteError: see `packing.pack.pack` and `video.keyframes.extract_folder`.
    """
    if workers < 1:
        raise ConfigError(f"workers {workers}: must be at least 1")
    if subtitles is not None and not Path(subtitles).is_dir():
        raise ConfigError(f"subtitles {subtitles}: no such folder; give one with a file for each film")
    reading = Reading(layout, split_id, short_side, fps)
    packing.refuse_around(source, destination)
    if not add:
        packing.refuse_finished(open_place(destination))  # before the long work, as are these checks
    if not is_remote(destination):
        check_writable(destination)
    with tempfile.TemporaryDirectory(prefix="bassl-fast-") as scratch, _room(scratch):
        packed = source
        broken: list[str] = []
        videos = _videos(source, Path(scratch), annotations, annotator, reading)
        if videos is None:
            _refuse_options_of_videos(source, join=join, split=split, detector=detector)
        elif engine != "local":
            raise ConfigError(
                f"engine {engine}: {source} holds videos, whose shots are found on this machine; leave it out"
            )
        else:
            keyframes = Path(scratch) / "keyframes"
            lists = [] if join else _scene_lists(source, annotations, annotator)
            broken, alone = _extract_keyframes(
                source, videos, keyframes, join, split or "test", detector or "transitions", lists
            )
            if strict and (broken or alone):
                raise SourceError((broken + [f"{path}: scenes without a video" for path in alone])[0])
            packed, reading = str(keyframes), Reading("films")
            annotations = None if lists else annotations
        with engines.cluster(engine, address) as each:
            report = packing.pack(
                packed,
                destination,
                workers,
                annotations=annotations,
                check=check,
                recheck=recheck,
                reading=reading,
                each=each,
                unsure=unsure,
                strict=strict,
                decoder=_decoder() if check == "decode" else pillow_faults,
                add=add,
                subtitles=subtitles,
            )
    for line in report.lines():
        print(line)
    print(f"shards: {masked(destination)} ({_summary(ShardIndex.open(destination))})")
    for line in broken:
        print(f"bassl-fast: {line}", file=sys.stderr)
    if broken:
        raise SourceError(f"{len(broken)} videos of {source} failed, see above; the others are packed")


def _refuse_options_of_videos(source: str, **given: str | None) -> None:
    """Raises: ConfigError if an option is given that is only for videos."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"--{name} is for films from videos, and {source} holds none; leave it out")


def _extract_keyframes(
    source: str, videos: Path, to: Path, join: str | None, split: str, detector: Detector, lists: list[Path]
) -> tuple[list[str], list[Path]]:
    """Write the key-frames of a folder of videos, the copy of `source`, with a progress bar.

    Args:
        lists: of the scenes of videos.

    Returns:
        Errors of broken videos, and lists of scenes without a video.

    Raises:
        SourceError: none of the videos can be read, or one of those to join; the message names `source`.
    """

    def named(text: object) -> str:
        return str(text).replace(str(videos), source.rstrip("/"))

    found = find_videos(videos)
    left_out = {why: [path for path in paths if not _is_list(path, lists)] for why, paths in found.left_out.items()}
    found = found._replace(left_out={why: paths for why, paths in left_out.items() if paths})
    of_films, alone = match_videos(lists, name_films(found.files))
    for path in alone:
        print(f"{path}: scenes without a video")
    if line := found.say(videos):
        print(named(line))
    seconds = 0.0
    for path in found.files:
        with suppress(SourceError):  # said when it is decoded
            seconds += video.duration(path)
    try:
        with tqdm(total=round(seconds), desc="shots and key-frames", unit="s", disable=None) as bar:
            scenes = {film: read_scene_list(path) for film, path in of_films.items()}
            _, broken = video.extract_folder(videos, to, join, split, detector, bar.update, scenes)
    except SourceError as error:
        raise SourceError(named(error)) from None
    return [named(error) for error in broken], alone


def _scene_lists(source: str, annotations: str | None, annotator: int) -> list[Path]:
    where = source if annotations is None else annotations
    return [] if is_remote(where) else find_scene_lists(Path(where), annotator)


def _is_list(path: Path, lists: list[Path]) -> bool:
    """Whether a file is one of the lists of scenes, of another annotator, or of shots."""
    folders = {"scenes", "shots"}
    return bool(lists) and path.suffix == ".txt" and bool(folders & {path.parent.name, path.parent.parent.name})


@contextmanager
def _room(folder: str) -> Iterator[None]:
    """If the disk of temporary files is full, say how to use another."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SourceError(f"{folder}: {error.strerror}; set TMPDIR to a folder with more space") from None


def _videos(source: str, scratch: Path, annotations: str | None, annotator: int, reading: Reading) -> Path | None:
    """The folder of video files, copied to `scratch` if remote; None if `source` is something else, or a plug-in's."""
    if reading.layout not in (None, FILMS) or has_lists(source, annotations):
        return None
    request = Request(source, annotations, reading)
    if not is_remote(source):
        folder = Path(source)
        if not folder.is_dir() or (folder / FRAMES_DIR).is_dir():
            return None
        files = find_videos(folder).files
        # Videos in folders alone may be clips by class; `--layout films` says that they are films.
        known = reading.layout == FILMS or bool(_scene_lists(source, annotations, annotator))
        holds_films = any(path.parent == folder for path in files) or (files and known)
        return folder if holds_films and open_by_plugin(request) is None else None
    try:
        videos = [entry for entry in listing(source) if Path(entry.name).suffix.lower() in VIDEO_SUFFIXES]
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not videos or open_by_plugin(request) is not None:
        return None
    fs, _ = filesystem(source)
    (scratch / "videos").mkdir()
    for entry in tqdm(videos, desc="fetch", unit="file", disable=None):
        to = scratch / "videos" / entry.name
        attempt(f"{source}/{entry.name}", partial(fetch, fs, entry.path, to, entry.size))
    return scratch / "videos"


def verify(
    shards: str,
    decode: Literal["none", "sample", "all"] = "sample",
    workers: int = 2,
    repair: str | None = None,
    annotations: str | None = None,
    subtitles: str | None = None,
    engine: Engine = "local",
    address: str | None = None,
) -> None:
    """Read every byte of a set of shards and print what is truncated, changed, missing or foreign.

    Args:
        shards: folder or address that `bassl-fast pack` wrote to.
        decode: key-frames to decode as well: one in a hundred ("sample"), all, or none.
        workers: shards read in parallel.
        repair: source from which to pack broken shards again; the set is then verified once more.
        annotations: for the repair, as for `bassl-fast pack`.
        subtitles: for the repair, as for `bassl-fast pack`.
        engine: "ray" reads the shards on the nodes of a cluster, all of which must see them.
        address: of the Ray cluster; if left out, one is started on this machine.

    Raises:
        ShardError: there are faults (exit code 1).
    """
    if workers < 1:
        raise ConfigError(f"workers {workers}: must be at least 1")
    if not is_remote(shards) and not (Path(shards) / MANIFEST).is_file():
        ShardIndex.open(shards)  # raises: what is missing
    with engines.cluster(engine, address) as each:
        faults = _verify(shards, decode, workers, each)
        if faults and repair is not None:
            print(f"faults: {len(faults)}; packing the broken shards again from {masked(repair)}", flush=True)
            repairing.repair(shards, repair, annotations, workers, subtitles)
            faults = _verify(shards, decode, workers, each)
    if faults:
        many = f"{len(faults)} faults, see above" if len(faults) > 1 else "1 fault, see above"
        raise ShardError(f"{shards}: {many}; copy those files again or --repair SOURCE")
    print(f"{masked(shards)}: whole ({_summary(ShardIndex.open(shards))})")


def _decoder() -> Decoder:
    """Training's, or Pillow's where DALI is not installed."""
    try:
        from .decoder import training_faults  # here: importing DALI takes a second
    except MissingDependency:
        print("decoding with Pillow, as DALI is not installed; training may refuse other pictures")
        return pillow_faults
    return training_faults


def _verify(shards: str, decode: verifying.Decode, workers: int, each: engines.Nodes | None) -> list[str]:
    decoder = _decoder() if decode != "none" else pillow_faults
    with tqdm(desc="verify", unit="B", unit_scale=True, disable=None) as bar:
        faults = verifying.verify(shards, decode, workers, bar.update, each, decoder)
    for fault in faults:
        print(masked(fault), flush=True)
    return faults


def download(files: list[File], out: str = "data", wait: float = 60.0) -> None:
    """Download files; the same command resumes an interrupted download.

    Args:
        files: `url`, `name` (path below `out`) and `sha256` of each file.
        out: folder for the files.
        wait: seconds without data after which a download fails.

    Raises:
        RemoteError: a file cannot be downloaded, or its checksum differs.
    """
    for file in files:
        with tqdm(desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
            path = downloading.download(file, out, wait, progress=bar.update, announce=bar.reset)
        print(f"{path} ({path.stat().st_size} bytes)", flush=True)


def info(shards: str, json: bool = False, plot: str | None = None) -> None:
    """Print what is in shards: number of films, images or clips, bytes, image sizes, splits, labels.

    Args:
        shards: folder or address that `bassl-fast pack` wrote to.
        json: print JSON.
        plot: also write a histogram to this SVG file: shots per film, frames per clip, or images per class.

    Raises:
        ShardError: the folder cannot be opened.
    """
    if plot is not None and not Path(plot).parent.is_dir():
        raise ConfigError(f"plot {plot}: no folder {Path(plot).parent}; make it first")
    index = ShardIndex.open(shards)
    facts = _facts(index)
    if index.kind == FILMS:
        manifest = parse_json((index.root / MANIFEST).read_text(encoding="utf-8"))
        facts["completeness"] = manifest.get("completeness", {})  # none: packed by an earlier version
    if plot is not None:
        shown = {FILMS: "shots a film", CLIPS: "frames a clip"}.get(index.kind, "pictures a class")
        what = "classes" if index.kind == PICTURES else index.kind
        write_atomically(Path(plot), bar_plot(facts[shown], shown, what))
    if json:
        print(to_json(facts))
        return
    found = facts.pop("completeness", {})
    for name, value in (facts | (found if isinstance(found, dict) else {})).items():
        print(f"{name:17s} {_in_words(value)}")


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key}: ({_in_words(part)})" if isinstance(part, dict) else f"{key}: {_in_words(part)}"
            for key, part in value.items()
        )
    return ", ".join(_few([str(part) for part in value])) if isinstance(value, list) else str(value)


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
    facts: dict[str, Any] = {kind: len(rows)}
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


def bar_plot(counts: dict[str, int], x_label: str, y_label: str) -> bytes:
    """A bar plot of `counts` as an SVG document; equal counts give equal bytes."""
    from matplotlib import rc_context  # here: it takes a second to import
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "bassl-fast", "svg.fonttype": "none"}):
        figure = Figure(figsize=(max(4, 0.8 * len(counts)), 3.2), layout="constrained")
        axes = figure.subplots()
        axes.bar_label(axes.bar(list(counts), list(counts.values()), color="#2a5a9b"))
        axes.set(xlabel=x_label, ylabel=y_label, yticks=[])
        axes.spines[["left", "right", "top"]].set_visible(False)
        document = BytesIO()
        figure.savefig(document, format="svg", metadata={"Date": None})
    return document.getvalue()
