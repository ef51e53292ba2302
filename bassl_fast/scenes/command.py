"""`bassl-fast scenes`: films -> a results folder for each, with its scenes in files that other tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bassl_fast.config.choices import Detail, Engine, Split
from shard_tools.errors import ConfigError
from shard_tools.video.detectors import Detector

if TYPE_CHECKING:
    from .videos import Videos


def scenes(
    films: list[str],
    checkpoint: str | None = None,
    encoder: str | None = None,
    baseline: bool = False,
    detail: Detail | None = None,
    out: str = "scenes",
    threshold: float | None = None,
    scenes: int | None = None,
    min_scene: float = 0.0,
    shots: str | None = None,
    shot_detector: Detector = "transitions",
    start_timecode: str | None = None,
    subtitles: str | None = None,
    text_encoder: str | None = None,
    corrections: str | None = None,
    split: Split | None = None,
    chapters: bool = False,
    batch: int = 16,
    threads: int = 0,
    engine: Engine = "local",
    address: str | None = None,
) -> list[str]:
    """Find the scenes of films and write a folder of results for each.

    With no option, shots are grouped by how alike their colours are and how long they last; the weights for this come
    with the package.

    A folder holds `report.html`, scenes and shots for editing programs (EDL, XML, OTIO, markers) and for spreadsheets,
    chapters for players, contact sheets and key-frames.

    When the command is run again, finished films are kept; with another threshold, number of scenes or minimum length
    their shots are regrouped without decoding the film again.

    Args:
        films: video files, folders of them, or addresses (http(s)://, s3://, gs://) of files; anything ffmpeg reads.
        checkpoint: path or address of a checkpoint written by `bassl-fast finetune`, to score shots by that model.
        encoder: checkpoint of an encoder, efficientnet-lite0, or hf:FOLDER (hf:NAME in the hub's cache) with a vision
            model of transformers or timm: its features are compared beside colours. With a `checkpoint` that was saved
            without its encoder, that encoder.
        baseline: use no model: score shots by how much colours change. Nothing is learnt; only to compare with.
        detail: "coarse" for about half as many scenes as "normal" (the default), "fine" for about twice as many;
            not with a checkpoint or the baseline.
        out: folder or address (s3://, gs://) for the results folders.
        threshold: probability from which a shot ends a scene; left out, the one of `detail`, or of the checkpoint.
        scenes: number of scenes, instead of a threshold: the most probable boundaries are taken.
        min_scene: minimum length of a scene in seconds.
        shots: your own shot list: CSV with a column start (seconds) or start_frame, or MovieNet's text; one film.
        shot_detector: "transitions" finds cuts, fades and dissolves; "adaptive" and "content" of PySceneDetect find
            cuts; "transnetv2" is a network, slow without a GPU.
        start_timecode: of the first picture, such as 01:00:00:00 (";" before the frames is drop-frame); left out, that
            of the file, or 00:00:00:00.
        subtitles: a file of subtitles (.srt, .vtt, .ass, .ssa or .sup), a folder of files named like the films, or
            "stream" for those in the films: boundaries then move to pauses in speech.
        text_encoder: hf:FOLDER (hf:NAME in the hub's cache) with a text model of transformers, such as BERT or MiniLM:
            the words of the `subtitles` are compared beside colours.
        corrections: scenes corrected by hand, as the report saves them: all files of one film are written again, from
            its results and without decoding it, and later runs keep these scenes.
        split: also write a file per scene. "copy" is fast and encodes nothing again, but clips begin at the preceding
            key-frame; "exact" encodes the picture again, and clips have exactly the frames of their scenes.
        chapters: also write a copy of the film with the scenes as chapters, a Matroska file.
        batch: shots encoded at a time.
        threads: CPU threads that decode key-frames; 0 uses all cores.
        engine: "ray" spreads films over the nodes of a cluster, on its GPUs if there are any; every node must be able
            to read films and checkpoint and to write `out`.
        address: of the Ray cluster; left out, one is started on this machine.

    Raises:
        SourceError: a film cannot be read; the others are finished first.
        CheckpointError, ConfigError: the model cannot be used, or options conflict.
    """
    from .videos import Videos

    videos = Videos(split, chapters)
    if corrections is not None:
        options: dict[str, object] = {
            "threshold": threshold,
            "scenes": scenes,
            "min_scene": min_scene or None,
            "detail": detail,
        }
        options |= {"shots": shots, "subtitles": subtitles, "text_encoder": text_encoder}
        conflicts = [name for name, value in options.items() if value is not None]
        return [_correct(films, corrections, out, videos, start_timecode, conflicts)]
    from .jobs import Model, find_scenes  # here, so that `--help` does not wait for torch

    _check_model(checkpoint, encoder, baseline, detail, threshold, scenes)
    _check_words(text_encoder, subtitles, checkpoint, baseline)
    for name, value, least in (("batch", batch, 1), ("threads", threads, 0)):
        if value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")
    model = Model(checkpoint, encoder, baseline, detail or "normal", batch, threads, text_encoder)
    grouping = {"threshold": threshold, "scenes": scenes, "min_scene": min_scene}
    return find_scenes(
        films, model, out, grouping, shots, shot_detector, start_timecode, subtitles, videos, engine, address
    )


def _correct(
    films: list[str],
    corrections: str,
    out: str,
    videos: Videos,
    start_timecode: str | None,
    conflicts: list[str],
) -> str:
    """Raises: ConfigError for options that corrections answer, or several films."""
    from .corrections import correct_results

    if conflicts:
        raise ConfigError(
            f"corrections and {conflicts[0]}: corrections say which scenes there are; leave one of them out"
        )
    if len(films) != 1:
        raise ConfigError(f"corrections: of one film, but there are {len(films)} films; give one film at a time")
    return correct_results(films[0], corrections, out, videos, start_timecode)


def _check_model(
    checkpoint: str | None,
    encoder: str | None,
    baseline: bool,
    detail: Detail | None,
    threshold: float | None,
    scenes: int | None,
) -> None:
    """Raises: ConfigError for options that contradict each other."""
    if checkpoint is not None and baseline:
        raise ConfigError("checkpoint and baseline: two ways to score shots; give one of them, or none")
    if encoder is not None and baseline:
        raise ConfigError("encoder: the baseline has none; leave it out")
    if detail is None:
        return
    if checkpoint is not None or baseline:
        raise ConfigError("detail: only for the weights that come with bassl-fast; give --threshold or --scenes here")
    if threshold is not None or scenes is not None:
        raise ConfigError("detail: sets the number of scenes, as --threshold and --scenes do; give one of them")


def _check_words(text_encoder: str | None, subtitles: str | None, checkpoint: str | None, baseline: bool) -> None:
    """Raises: ConfigError for a text encoder that would read nothing."""
    if text_encoder is None:
        return
    if checkpoint is not None:
        raise ConfigError("text_encoder and checkpoint: the model was not trained on words; leave one of them out")
    if baseline:
        raise ConfigError("text_encoder: the baseline reads no words; leave it out")
    if subtitles is None:
        raise ConfigError("text_encoder: it reads the words of subtitles; give them with --subtitles")
