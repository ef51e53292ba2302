"""`bassl-fast scenes`: films -> a folder a film with its scenes, in the files that other tools read."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from functools import lru_cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bassl_fast.checkpoints.checkpoint import sha256
from bassl_fast.config.choices import Engine
from bassl_fast.metrics.scenes import FilmScores
from bassl_fast.report.page import FilmPage, write_report
from bassl_fast.runtime import engines
from bassl_fast.runtime.run_folder import RunFolder
from shard_tools.annotations.movienet import keyframe_name
from shard_tools.errors import ConfigError, RemoteError, SourceError, masked
from shard_tools.storage.remote import absolute, attempt, filesystem, is_remote
from shard_tools.storage.untrusted import parse_json
from shard_tools.video.detectors import Detector, make_cutter
from shard_tools.video.frames import read_header
from shard_tools.video.keyframes import list_videos
from shard_tools.video.shot_list import read_shot_list

from . import outputs
from .detector import SceneDetector, check_grouping, name_of
from .film import FilmScenes
from .sheet import contact_sheet
from .split import split_film

SCENES = "scenes.json"


def scenes(
    films: list[str],
    checkpoint: str | None = None,
    encoder: str | None = None,
    baseline: bool = False,
    out: str = "scenes",
    threshold: float | None = None,
    scenes: int | None = None,
    min_scene: float = 0.0,
    shots: str | None = None,
    shot_detector: Detector = "adaptive",
    split: bool = False,
    batch: int = 16,
    threads: int = 0,
    engine: Engine = "local",
    address: str | None = None,
) -> list[str]:
    """Find the scenes of films and write a folder of results for each: `report.html`, `scenes.csv`, `scenes.json`,
    `scenes.edl`, `scenes.otio`, `chapters.ffmetadata`, `chapters.txt`, a contact sheet a scene, the key-frames.

    Finished films are kept when the command is given again; with another threshold, number or minimum length they are
    grouped anew without being decoded again.

    Args:
        films: video files, folders of them, or addresses (http(s)://, s3://, gs://) of files; anything ffmpeg reads.
        checkpoint: that `bassl-fast finetune` wrote; path or address.
        encoder: checkpoint of the encoder, for a `checkpoint` that does not bring it: fine-tuned where it was not at
            hand.
        baseline: no model: show how much colours change between shots. Nothing was learnt; to try things out only.
        out: folder or address (s3://, gs://) for the folders.
        threshold: probability from which a shot ends a scene; chosen on validation films when fine-tuning, if left out.
        scenes: so many scenes instead, by falling probability.
        min_scene: seconds a scene lasts at least.
        shots: shot list of one's own: CSV with a column start (seconds) or start_frame, or MovieNet's text; one film.
        shot_detector: of PySceneDetect "adaptive" or "content"; or the network "transnetv2", which finds dissolves too.
        split: also cut the film into a file a scene, without re-encoding; clips begin at the key-frame before.
        batch: shots encoded at a time.
        threads: CPU threads that decode key-frames; 0 takes the cores there are.
        engine: "ray" has the nodes of a cluster take a film each, on a GPU where it has some; all of them must see
            films, checkpoint and `out`.
        address: of the Ray cluster; one on this machine is started if left out.

    Raises:
        SourceError: a film cannot be read; the others are finished first.
        CheckpointError, ConfigError: the model cannot be used, or options contradict each other.
    """
    if (checkpoint is None) is not baseline:
        raise ConfigError(
            "checkpoint and baseline: give one of them; --checkpoint best.ckpt is what `bassl-fast finetune` wrote, "
            "--baseline shows what no training at all finds"
        )
    if encoder is not None and baseline:
        raise ConfigError("encoder: the baseline has none; leave it out")
    check_grouping(threshold, scenes, min_scene)
    sources = _name_films(films)
    if shots is not None and len(sources) > 1:
        raise ConfigError(f"shots: a list of one film, and there are {len(sources)}; give one film at a time")
    # What is missing is found before the long work.
    outputs.load_otio()
    cut_by: dict[str, Any] = {"shot_detector": shot_detector}
    if shots is None:
        make_cutter(shot_detector)
    else:
        read_shot_list(Path(shots))
        cut_by = {"shots_sha256": sha256(shots)}
    grouping = {"threshold": threshold, "scenes": scenes, "min_scene": min_scene}
    job = _Job(
        _Model(checkpoint, encoder, batch, threads),
        *(out, cut_by, {"shots": shots, "shot_detector": shot_detector}, grouping, split),
    )
    with engines.cluster(engine, address, gpu=True) as each:
        if each is not None:
            job = job.anywhere(each.cpus)
            sources = {name: absolute(source) for name, source in sources.items()}
        detector, run = _detector(job.model), RunFolder(job.out)
        run.path.mkdir(parents=True, exist_ok=True)
        print(f"judged by {detector.judge.method}", flush=True)
        durations, broken = _durations(sources)
        finished, seconds = [], 0.0
        with tqdm(total=sum(durations.values()), disable=None, bar_format=_BAR) as bar:
            todo = [(name, sources[name]) for name in durations]
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


class _Model(NamedTuple):
    """Who judges; no checkpoint is the baseline."""

    checkpoint: str | None
    encoder: str | None
    batch: int
    threads: int


class _Job(NamedTuple):
    """What is done with every film.

    `shots`: how they are found, options of `SceneDetector`; `cut_by`: the same, as it stands in results.
    """

    model: _Model
    out: str
    cut_by: dict[str, Any]
    shots: dict[str, Any]
    grouping: dict[str, Any]
    split: bool

    def anywhere(self, threads: int) -> _Job:
        """The same for a process with another working folder, and so many threads if no number was given."""
        checkpoint, encoder, batch, given = self.model
        model = _Model(checkpoint and absolute(checkpoint), encoder and absolute(encoder), batch, given or threads)
        shots = self.shots["shots"] and absolute(self.shots["shots"])
        return self._replace(model=model, out=absolute(self.out), shots=self.shots | {"shots": shots})


def _detector(model: _Model) -> SceneDetector:
    return SceneDetector.from_checkpoint(*model) if model.checkpoint else SceneDetector.baseline()


_kept_detector = lru_cache(maxsize=1)(_detector)


def _one_anywhere(job: _Job, film: tuple[str, str]) -> tuple[str, str | Exception]:
    return _one(job, _kept_detector(job.model), *film, RunFolder(job.out))


def _one(
    job: _Job, detector: SceneDetector, name: str, source: str, run: RunFolder, bar: tqdm | None = None
) -> tuple[str, str | Exception]:
    """Find the scenes of a film and write them; its name and a summary, or why it could not be done."""
    folder, progress = run.path / name, None
    if bar is not None:
        bar.set_description(name)
        progress = bar.update
    asked = {**job.grouping, "split": job.split}
    try:
        made_by = {"film": _identity(source), **job.cut_by, **detector.judge.made_by}
        run.bring(SCENES, name)
        earlier = _earlier(folder, source)
        if earlier and earlier["made_by"] == made_by:
            run.bring("*", f"{name}/{outputs.KEYFRAMES}")
            film = detector.regroup(replace(outputs.read_film(folder, earlier), source=source), **job.grouping)
        else:
            film = detector(source, **job.grouping, **job.shots, progress=progress)
        kept = bool(earlier) and (earlier["made_by"], earlier["asked"]) == (made_by, asked)
        if not kept:
            _write(folder, film, made_by, asked)
            run.replace(name, SCENES)
    except (SourceError, RemoteError) as error:
        return name, error
    return name, _summary(film, run.where(f"{name}/report.html"), kept)


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"


def _name_films(films: list[str]) -> dict[str, str]:
    """Plain name -> path or address of every film; folders are looked into.

    Raises:
        SourceError: a folder without a video, or two films of one name.
    """
    sources: dict[str, str] = {}
    for given in films:
        listed = not is_remote(given) and Path(given).is_dir()
        for source in map(str, list_videos(Path(given))) if listed else [given]:
            name = name_of(source)
            if sources.setdefault(name, source) != source:
                raise SourceError(f"{source}: would be film {name}, as {sources[name]} is; rename one of them")
    return sources


def _durations(sources: dict[str, str]) -> tuple[dict[str, float], dict[str, Exception]]:
    """Seconds of the films that can be opened, and why the others cannot."""
    durations, broken = {}, {}
    for name, source in sources.items():
        try:
            durations[name] = read_header(source).duration
        except (SourceError, RemoteError) as error:
            broken[name] = error
    return durations, broken


def _identity(source: str) -> dict[str, Any]:
    """What tells a film from another at the same place."""
    if is_remote(source):
        fs, path = filesystem(source)
        return {"bytes": attempt(source, lambda: fs.size(path))}
    facts = Path(source).stat()
    return {"bytes": facts.st_size, "modified": facts.st_mtime_ns}


def _earlier(folder: Path, source: str) -> dict[str, Any] | None:
    """What an earlier run wrote of the same film.

    Raises:
        SourceError: the folder is another film's, or none of ours.
    """
    if not folder.exists():
        return None
    try:
        earlier = parse_json((folder / SCENES).read_text(encoding="utf-8"))
        same = earlier["source"] == masked(source)
    except (OSError, ValueError, KeyError, TypeError):
        raise SourceError(f"{folder}: is there, and not a result of this command; choose another --out") from None
    if not same:
        raise SourceError(f"{folder}: holds the scenes of {earlier['source']}; choose another --out for {source}")
    return earlier


def _write(folder: Path, film: FilmScenes, made_by: dict[str, Any], asked: dict[str, Any]) -> None:
    """Write all files of a film; the folder is whole or not there."""
    draft, old = (folder.with_name(f".{folder.name}.{what}") for what in ("part", "old"))
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for name in (outputs.KEYFRAMES, "sheets"):
            (draft / name).mkdir(parents=True)
        for shot in film.shots:
            for i, jpeg in enumerate(shot.keyframes):
                (draft / outputs.KEYFRAMES / keyframe_name(shot.number, i)).write_bytes(jpeg)
        for scene in film.scenes:
            (draft / "sheets" / f"scene-{scene.number:03d}.jpg").write_bytes(contact_sheet(scene))
        for name, text in (
            ("scenes.csv", outputs.scenes_csv(film)),
            ("scenes.edl", outputs.edl(film)),
            ("scenes.otio", outputs.otio(film)),
            ("chapters.ffmetadata", outputs.ffmetadata(film)),
            ("chapters.txt", outputs.chapters(film)),
            (SCENES, outputs.scenes_json(film, made_by, asked)),
        ):
            (draft / name).write_text(text, encoding="utf-8")
        if asked["split"]:
            (draft / "clips").mkdir()
            split_film(film, draft / "clips")
        write_report(draft / "report.html", film.name, [_page(film)], {}, film.threshold, {}, subtitle=_made_by(film))
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    finally:
        for leftover in (draft, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _page(film: FilmScenes) -> FilmPage:
    seconds = np.array([(shot.start, shot.end) for shot in film.shots])
    unknown = np.full(len(film.shots), -1)
    scores = FilmScores(film.name, [shot.probability for shot in film.shots], unknown, unknown, unknown)
    pictures = [jpeg for shot in film.shots for jpeg in shot.keyframes]
    return FilmPage(
        film.name, pictures, scores, seconds=seconds, ends=film.ends, shortest=film.shortest, rate=film.rate
    )


def _made_by(film: FilmScenes) -> str:
    shortest = f"; no scene shorter than {film.shortest:g} s" if film.shortest else ""
    judged = f"{masked(film.source)}, judged by {film.method}"
    return f"{judged}. Threshold {film.threshold:.3f}: {film.threshold_from}{shortest}."


def _summary(film: FilmScenes, report: str, kept: bool) -> str:
    scenes, shots = len(film.scenes), len(film.shots)
    counts = f"{scenes} scene{'s' * (scenes > 1)} of {shots} shot{'s' * (shots > 1)}"
    found = f"{film.name}: {counts}, threshold {film.threshold:.3f} ({film.threshold_from})"
    return f"{found}\n  {report}{' (kept as it was)' * kept}"


def _raise(broken: dict[str, Exception], films: int, root: str) -> None:
    """One film's fault as it is; of several films, all faults and then how many."""
    if films == 1:
        for error in broken.values():
            raise error
    for error in broken.values():
        print(f"bassl-fast: {error}", file=sys.stderr)
    if broken:
        raise SourceError(f"{len(broken)} of {films} films failed, see above; the others are in {root}")
