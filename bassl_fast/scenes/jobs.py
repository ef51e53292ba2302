"""Finds the scenes of many films, here or on the nodes of a cluster, and writes a results folder for each.

A film that cannot be read does not stop the others. A folder says what it was made from, so that a later run keeps it
or only regroups its shots.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bassl_fast.config.choices import Detail, Engine
from bassl_fast.runtime import engines
from bassl_fast.runtime.run_folder import RunFolder
from shard_tools.errors import BasslFastError, ConfigError, FeatureError, RemoteError, SourceError, masked
from shard_tools.storage.checksums import sha256_of
from shard_tools.storage.remote import absolute, is_remote
from shard_tools.video.detectors import Detector, make_cutter
from shard_tools.video.frames import read_header
from shard_tools.video.shot_list import read_shot_list

from . import exports
from .corrections import correct, is_corrected
from .detector import SceneDetector, check_grouping, timing_of
from .film import FilmScenes
from .results import SCENES, identity, not_written, read_earlier, write_results
from .sources import name_sources
from .subtitles import STREAM, subtitles_of
from .subtitles import identity as of_subtitles
from .videos import Videos, Written

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"


class Model(NamedTuple):
    """How to build the model that scores shots: similarity of shots, unless a checkpoint or the baseline is chosen."""

    checkpoint: str | None
    encoder: str | None
    baseline: bool
    detail: Detail
    batch: int
    threads: int
    text_encoder: str | None = None


class _Job(NamedTuple):
    """What to do with every film.

    Attributes:
        shots: how shots are found, as options of `SceneDetector`.
        cut_by: the same, as recorded in the results.
        formats: names of the files of `exports.formats`.
        subtitles: name of a film -> file of its subtitles, or "stream".
    """

    model: Model
    out: str
    cut_by: dict[str, Any]
    shots: dict[str, Any]
    grouping: dict[str, Any]
    start_timecode: str | None
    videos: Videos
    formats: list[str]
    subtitles: dict[str, str]

    def anywhere(self, threads: int) -> _Job:
        """The same job for a process with another working folder, with `threads` unless a number was given."""
        from bassl_fast.checkpoints import checkpoint  # here, as torch takes longer to import than a short film

        given = self.model
        model = given._replace(
            checkpoint=given.checkpoint and checkpoint.absolute(given.checkpoint),
            encoder=given.encoder and checkpoint.absolute(given.encoder),
            threads=given.threads or threads,
            text_encoder=given.text_encoder and checkpoint.absolute(given.text_encoder),
        )
        shots = self.shots["shots"] and absolute(self.shots["shots"])
        subtitles = {name: file if file == STREAM else absolute(file) for name, file in self.subtitles.items()}
        return self._replace(
            model=model, out=absolute(self.out), shots=self.shots | {"shots": shots}, subtitles=subtitles
        )


def find_scenes(
    films: list[str],
    model: Model,
    out: str,
    grouping: dict[str, Any],
    shots: str | None,
    shot_detector: Detector,
    start_timecode: str | None,
    subtitles: str | None,
    videos: Videos,
    engine: Engine,
    address: str | None,
) -> list[str]:
    """See `scenes`.

    Args:
        grouping: options of `SceneDetector.regroup`.
    """
    check_grouping(**grouping)
    sources = name_sources(films)
    if shots is not None and len(sources) > 1:
        raise ConfigError(f"shots: the list of one film, but there are {len(sources)} films; give one film at a time")
    # What is missing is reported before the long work.
    exports.load_otio()
    formats = sorted(exports.formats())
    cut_by: dict[str, Any] = {"shot_detector": shot_detector}
    if shots is None:
        make_cutter(shot_detector)
    else:
        read_shot_list(Path(shots))
        with open(shots, "rb") as file:
            cut_by = {"shots_sha256": sha256_of(file)}
    cutting = {"shots": shots, "shot_detector": shot_detector}
    spoken = {} if subtitles is None else subtitles_of(subtitles, sources)
    job = _Job(model, out, cut_by, cutting, grouping, start_timecode, videos, formats, spoken)
    with engines.cluster(engine, address, gpu=True) as each:
        return _run(job, sources, each)


def _run(job: _Job, sources: dict[str, str], each: engines.Nodes | None) -> list[str]:
    """Do all films, here or on the nodes of a cluster; the results folders.

    Raises:
        SourceError: a film failed; the others are finished first.
    """
    if each is not None:
        job = job.anywhere(each.cpus)
        sources = {name: absolute(source) for name, source in sources.items()}
    run = RunFolder(job.out)
    durations, broken = _durations(sources)
    if not durations:
        _raise(broken, len(sources), run.out)
    detector = _detector(job.model)
    run.path.mkdir(parents=True, exist_ok=True)
    text_encoder = job.model.text_encoder
    spoken = ", and when somebody speaks" if job.subtitles else ""
    words = "" if text_encoder is None else f"; words of subtitles are compared by {masked(text_encoder)}"
    print(f"shots are scored by {detector.model.method}{spoken}{words}", flush=True)
    finished, seconds = [], 0.0
    with tqdm(total=sum(durations.values()), disable=None, bar_format=_BAR) as bar:
        todo = [(name, sources[name]) for name in durations]
        done: Iterable[tuple[str, str | Exception]]
        if each is None:
            done = (_one(job, detector, *film, run, bar) for film in todo)
        else:
            done = each(partial(_one_anywhere, job), todo, itemgetter(0))
        for name, found in done:
            seconds += durations[name]
            bar.update(seconds - bar.n)
            if isinstance(found, Exception):
                broken[name] = found
            else:
                bar.write(found)
                finished.append(run.where(name))
    _raise(broken, len(sources), run.out)
    return finished


def _detector(model: Model) -> SceneDetector:
    if model.baseline:
        return SceneDetector.baseline()
    if model.checkpoint is None:
        return SceneDetector.by_similarity(model.encoder, model.detail, model.batch, model.threads, model.text_encoder)
    return SceneDetector.from_checkpoint(model.checkpoint, model.encoder, model.batch, model.threads)


_kept_detector = lru_cache(maxsize=1)(_detector)


def _one_anywhere(job: _Job, film: tuple[str, str]) -> tuple[str, str | Exception]:
    """`_one` on a node of a cluster.

    Raises:
        ConfigError: the node lacks a plug-in, or has one more.
    """
    if differ := set(job.formats) ^ set(exports.formats()):
        raise ConfigError(f"plug-in {min(differ)}: not on every node of the cluster; install or remove it there")
    return _one(job, _kept_detector(job.model), *film, RunFolder(job.out))


def _one(
    job: _Job, detector: SceneDetector, name: str, source: str, run: RunFolder, bar: tqdm | None = None
) -> tuple[str, str | Exception]:
    """Find the scenes of a film and write its results; its name, and a summary or the error."""
    folder, progress = run.path / name, None
    if bar is not None:
        bar.set_description(name)
        progress = bar.update
    asked = {**job.grouping, "detail": job.model.detail, "exports": job.formats}
    try:
        subtitles = job.subtitles.get(name)
        made_by = {
            "film": identity(source),
            **job.cut_by,
            **detector.model.made_by,
            **of_subtitles(subtitles, job.model.text_encoder),
        }
        run.bring(SCENES, name)
        earlier = read_earlier(folder, source)
        same = earlier if earlier and earlier["made_by"] == made_by else None
        start = job.start_timecode or (same or {}).get("asked", {}).get("start_timecode")
        asked["start_timecode"] = start
        if same:
            run.bring("*", f"{name}/{exports.KEYFRAMES}")
            read = exports.read_film(folder, same)
            timing = timing_of(source, start)
            film = replace(read, source=source, timing=timing)
            by_hand = is_corrected(same)
            if by_hand:
                asked = {**asked, **{option: same["asked"].get(option) for option in (*job.grouping, "detail")}}
            film = correct(film, same) if by_hand else detector.regroup(film, **job.grouping)
        elif earlier and is_corrected(earlier):
            raise SourceError(
                f"{run.where(name)}: holds scenes corrected by hand, and {_other(earlier['made_by'], made_by)} was "
                f"another; give another --out and then --corrections {folder / SCENES}, or delete it to lose them"
            )
        else:
            given = {**job.grouping, **job.shots, "start_timecode": start, "subtitles": subtitles}
            film = replace(detector(source, **given, progress=progress), name=name)
        kept = same is not None and _has(same["asked"], {**asked, **job.videos._asdict()})
        written = Written([])
        if not kept:
            written = write_results(folder, film, made_by, asked, job.videos, same, is_remote(run.out))
            run.replace(name, SCENES)
        if written.failed:
            return name, not_written(written.failed, run.where(name))
    except (SourceError, RemoteError, FeatureError) as error:
        return name, error.with_traceback(None)  # whose frames hold the key-frames of the film
    except (BasslFastError, MemoryError):
        raise
    except Exception as error:  # a bug that one film shows must not lose the others
        if isinstance(error, OSError) and error.filename != source:  # of the folder for results
            raise
        print(masked(traceback.format_exc()), file=sys.stderr)
        return name, SourceError(f"{source}: {type(error).__name__}, a bug that its traceback shows; please report it")
    lines = [_summary(film, run.where(f"{name}/report.html"), kept), *written.said]
    return name, "\n  ".join(lines)


def _has(asked: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether results are as wanted now; they may have more video files."""
    return all(asked.get(name) == value or (name in Videos._fields and not value) for name, value in wanted.items())


def _other(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What results were made by that is another now."""
    if before.get("film") != now["film"]:
        return "the film"
    parts: dict[str, tuple[str, ...]] = {"the list or detector of shots": ("shot_detector", "shots_sha256")}
    parts["the file of subtitles"] = ("subtitles", "subtitles_sha256")
    parts["the text encoder"] = ("text_encoder_sha256",)
    changed = (what for what, keys in parts.items() if any(before.get(key) != now.get(key) for key in keys))
    return next(changed, "the model")


def _durations(sources: dict[str, str]) -> tuple[dict[str, float], dict[str, Exception]]:
    """Seconds of the films that can be opened, and the errors of the others."""
    durations: dict[str, float] = {}
    broken: dict[str, Exception] = {}
    for name, source in sources.items():
        try:
            durations[name] = read_header(source).duration
        except (SourceError, RemoteError) as error:
            broken[name] = error
    return durations, broken


def _summary(film: FilmScenes, report: str, kept: bool) -> str:
    scenes, shots = len(film.scenes), len(film.shots)
    counts = f"{scenes} scene{'s' * (scenes > 1)} of {shots} shot{'s' * (shots > 1)}"
    found = f"{film.name}: {counts}, threshold {film.threshold:.3f} ({film.threshold_from})"
    if film.damaged:
        damaged = f"{film.damaged} packets or pictures of {film.source} are damaged"
        found += f"\n  {damaged}; scenes.json says in which shots"
    if film.by_hand:
        found += f"\n  kept as corrected by hand, whatever the options; delete {report.rsplit('/', 1)[0]} to lose that"
    return f"{found}\n  {report}{' (unchanged)' * kept}"


def _raise(broken: dict[str, Exception], films: int, root: str) -> None:
    """Raise the error of a single film as it is; of several films, print all errors and raise their number."""
    if films == 1:
        for error in broken.values():
            raise error
    for error in broken.values():
        print(f"bassl-fast: {error}", file=sys.stderr)
    if broken:
        raise SourceError(f"{len(broken)} of {films} films failed, see above; the others are in {root}")
