"""A film in, its scenes out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from bassl_fast.config.choices import Detail
from bassl_fast.segmentation.speech import move_to_pauses
from shard_tools.annotations.speech import inside, on_clock, speech_of_shots, words_of_shots
from shard_tools.errors import ConfigError, FeatureError, SourceError, masked
from shard_tools.progress import Progress
from shard_tools.video.detectors import Detector, make_cutter
from shard_tools.video.facts import read_facts
from shard_tools.video.keyframes import QUALITY
from shard_tools.video.shot_list import ListedShots, read_shot_list
from shard_tools.video.shots import Shot, cut_shots
from shard_tools.video.subtitles import Lines
from shard_tools.video.timing import Timing, read_timing

from .film import FilmScenes, SceneShot
from .keyframe_store import KeyframeStore
from .sources import name_of
from .subtitles import NO_LINES, STREAM, read_lines


class BoundaryModel(Protocol):
    """Gives the probability of a scene boundary after each shot.

    Attributes:
        method: its name and kind, for people.
        made_by: what its scores depend on, as plain values; equal values mean equal scores.
        threshold: probability from which a shot ends a scene; None takes it from the scores of the film.
        threshold_from: how the threshold was chosen, for people.
    """

    method: str
    made_by: dict[str, Any]
    threshold: float | None
    threshold_from: str

    def features(self, shots: Iterator[tuple[bytes, ...]]) -> Iterator[np.ndarray]:
        """Features `[D]` of each shot, from the JPEG bytes of its key-frames, one by one."""

    def probability(self, features: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Probability `[S]` that a shot is the last of its scene.

        Args:
            features: `[S, D]`, of the shots of a film.
            seconds: `[S]`, how long they last.
        """


@runtime_checkable
class SpeechModel(Protocol):
    """A `BoundaryModel` that may read when somebody speaks.

    Attributes:
        reads_speech: whether it does.
    """

    reads_speech: bool

    def probability(self, features: np.ndarray, seconds: np.ndarray, speech: np.ndarray | None = None) -> np.ndarray:
        """See `BoundaryModel`; `speech` is that of `shard_tools.annotations.speech.speech_of_shots`."""


@runtime_checkable
class WordsModel(Protocol):
    """A `BoundaryModel` that may read what is said.

    Attributes:
        words_by: name of its text encoder, for people; None if it reads no words.
    """

    words_by: str | None

    def probability(self, features: np.ndarray, seconds: np.ndarray, words: Sequence[str] | None = None) -> np.ndarray:
        """See `BoundaryModel`; `words` are those of `shard_tools.annotations.speech.words_of_shots`."""


class SceneDetector:
    """Finds the scenes of films.

    >>> from bassl_fast import SceneDetector
    >>> detector = SceneDetector()  # or SceneDetector.from_checkpoint("best.ckpt")
    >>> film = detector("film.mp4")
    >>> len(film.shots), film.rate
    (4, Fraction(24, 1))
    >>> film.shots[1].start, film.shots[1].end, film.shots[1].last  # seconds, seconds, frame
    (1.0, 2.5, 59)
    >>> film = detector.regroup(film, scenes=2)
    >>> [(scene.number, scene.end) for scene in film.scenes][-1]
    (2, 5.5)
    """

    def __init__(self, model: BoundaryModel | None = None) -> None:
        """A detector with a model of yours; left out, `by_similarity`."""
        self.model: BoundaryModel = self.by_similarity().model if model is None else model

    @classmethod
    def by_similarity(
        cls,
        encoder: str | Path | None = None,
        detail: Detail = "normal",
        batch: int = 16,
        threads: int = 0,
        text_encoder: str | None = None,
    ) -> SceneDetector:
        """How alike shots are and how long they last, with the weights that come with the package.

        Args:
            encoder: checkpoint of an encoder, "efficientnet-lite0", or "hf:FOLDER", a vision model of transformers or
                timm, whose features are compared beside colours.
            detail: fewer or more scenes: "coarse", "normal" or "fine".
            batch: shots encoded at a time.
            threads: CPU threads that decode key-frames; 0 uses all cores.
            text_encoder: "hf:FOLDER", a text model of transformers: in films with subtitles, words are compared too.

        Raises:
            CheckpointError: the encoder cannot be used.
            ConfigError: the text encoder cannot be used.
        """
        from .similar import SimilarShots

        return cls(SimilarShots(encoder, detail, batch, threads, text_encoder))

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, encoder: str | Path | None = None, batch: int = 16, threads: int = 0
    ) -> SceneDetector:
        """A fine-tuned model and the encoder it was fine-tuned on.

        Args:
            checkpoint: written by `bassl-fast finetune`.
            encoder: checkpoint of the encoder, for a `checkpoint` that was saved without it.
            batch: shots encoded at a time.
            threads: CPU threads that decode key-frames; 0 uses all cores.

        Raises:
            CheckpointError: one of them cannot be used, or they do not belong together.
        """
        from .network import Network

        return cls(Network(checkpoint, encoder, batch, threads))

    @classmethod
    def baseline(cls) -> SceneDetector:
        """No network: scores are how much colours change, see `ColourChange`."""
        return cls(ColourChange())

    def __call__(
        self,
        film: str | Path,
        *,
        threshold: float | None = None,
        scenes: int | None = None,
        min_scene: float = 0.0,
        shots: str | Path | None = None,
        shot_detector: Detector = "transitions",
        start_timecode: str | None = None,
        subtitles: str | Path | None = None,
        progress: Progress | None = None,
    ) -> FilmScenes:
        """The shots of a film grouped in scenes.

        The film is decoded once. Its key-frames go to a temporary file, about 60 KB a shot, so memory stays flat.

        Args:
            film: path, or address (http(s)://, s3://, gs://), of anything ffmpeg reads.
            threshold, scenes, min_scene: see `regroup`.
            shots: your own shot list, see `shard_tools.video.shot_list.read_shot_list`.
            shot_detector: without a shot list, see `shard_tools.video.detectors.make_cutter`.
            start_timecode: of the first picture; left out, that of the file, or 00:00:00:00.
            subtitles: a file of subtitles, or "stream" for those in the film: boundaries then move to pauses in speech,
                see `segmentation.speech.move_to_pauses`, and a text encoder reads their words.
            progress: called with the seconds of film decoded since the last call.

        Raises:
            SourceError: the film cannot be read to its end, or the shot list is of another film.
            ConfigError: options that conflict.
            FeatureError: the encoder gave NaN.
        """
        check_grouping(threshold, scenes, min_scene)
        cutter = make_cutter(shot_detector) if shots is None else ListedShots(read_shot_list(Path(shots)))
        timing = timing_of(film, start_timecode)
        lines = NO_LINES if subtitles is None else read_lines(film, subtitles)
        store, found = KeyframeStore(), []

        def keyframes() -> Iterator[tuple[bytes, ...]]:
            for shot in cut_shots(film, cutter, progress):
                jpegs = tuple(map(_jpeg, shot.keyframes))
                found.append((shot._replace(keyframes=()), store.add(jpegs)))
                yield jpegs

        features = np.stack(list(self.model.features(keyframes())))
        start, end = np.array([(shot.start, shot.end) for shot, _ in found]).T
        where = film if subtitles is None or subtitles == STREAM else subtitles
        if where is not film:
            lines = lines._replace(times=on_clock(lines.times, end, where))
        words = self._words(start, end, lines, where)
        speech = inside(lines.times, end, where)
        try:
            probability = self._probability(features, start, end, speech, words)
        except FeatureError as error:
            raise FeatureError(f"{film}: the encoder's features cannot be used ({error})") from None
        method = self.model.method + (", and when somebody speaks" if len(speech) else "")
        method += f", and the words (by {self.model.words_by})" if words else ""  # type: ignore[attr-defined]
        rows = tuple(_shot(i, *shot, p) for i, (shot, p) in enumerate(zip(found, probability.tolist(), strict=True)))
        about = name_of(film), str(film), timing
        raw = FilmScenes(*about, rows, (), 1.0, "", 0.0, method, media=read_facts(film))
        return self.regroup(raw, threshold=threshold, scenes=scenes, min_scene=min_scene)

    def _probability(
        self, features: np.ndarray, start: np.ndarray, end: np.ndarray, speech: np.ndarray, words: list[str] | None
    ) -> np.ndarray:
        """Of the model; if it does not read when somebody speaks, its boundaries are moved to pauses."""
        if isinstance(self.model, SpeechModel) and self.model.reads_speech:
            return self.model.probability(features, end - start, speech_of_shots(start, end, speech))
        if words is not None and isinstance(self.model, WordsModel):
            found = self.model.probability(features, end - start, words)
        else:
            found = self.model.probability(features, end - start)
        return move_to_pauses(found, end, speech)

    def _words(self, start: np.ndarray, end: np.ndarray, lines: Lines, where: str | Path) -> list[str] | None:
        """The words of every shot; None if the model reads none, or the film has none."""
        if not (lines.words and isinstance(self.model, WordsModel) and self.model.words_by):
            return None
        if not any(lines.words):
            print(
                masked(f"note: {where}: subtitles without words, as images are; only their times are used"), flush=True
            )
            return None
        found = words_of_shots(start, end, lines.times, lines.words)
        return found if any(found) else None

    def regroup(
        self, film: FilmScenes, *, threshold: float | None = None, scenes: int | None = None, min_scene: float = 0.0
    ) -> FilmScenes:
        """The same shots grouped into other scenes; the film is not read again.

        Args:
            threshold: probability from which a shot ends a scene; left out, that of the model.
            scenes: number of scenes, instead of a threshold: the most probable boundaries are taken.
            min_scene: minimum length of a scene in seconds; less probable boundaries are dropped.

        Raises:
            ConfigError: a value out of range, or both `threshold` and `scenes`.
        """
        check_grouping(threshold, scenes, min_scene)
        if scenes is not None:
            return film.regrouped(1.0, f"{scenes} scenes asked for", scenes, min_scene)
        if threshold is not None:
            return film.regrouped(threshold, "given", None, min_scene)
        if self.model.threshold is not None:
            return film.regrouped(self.model.threshold, self.model.threshold_from, None, min_scene)
        inner = np.array([shot.probability for shot in film.shots[:-1]] or [1.0])
        own = float(min(1.0, inner.mean() + inner.std()))
        return film.regrouped(own, self.model.threshold_from, None, min_scene)


class ColourChange:
    """A baseline without learning: a boundary scores the change of colour from the shots before to those after.

    Features are histograms of hue, saturation and value, averaged over a shot. The score is one minus the overlap of
    the mean histograms of the three shots before and the three after: in 0..1, but not a calibrated probability.
    """

    REACH = 3  # shots on either side
    BINS = (8, 4, 4)

    method = "baseline: change of colour between neighbouring shots; nothing was learnt"
    made_by: dict[str, Any] = {"baseline": "colour change"}  # noqa: RUF012
    threshold: float | None = None
    threshold_from = "mean plus one standard deviation of this film's scores"

    def features(self, shots: Iterator[tuple[bytes, ...]]) -> Iterator[np.ndarray]:
        for jpegs in shots:
            yield np.mean([self._histogram(jpeg) for jpeg in jpegs], axis=0)

    def _histogram(self, jpeg: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(jpeg)) as image:
            pixels = np.asarray(image.convert("HSV")).reshape(-1, 3)
        bins = np.array(self.BINS)
        place = (pixels * bins // 256) @ np.array([bins[1] * bins[2], bins[2], 1])
        return np.bincount(place, minlength=bins.prod()) / len(pixels)

    def probability(self, features: np.ndarray, seconds: np.ndarray | None = None) -> np.ndarray:
        found = np.zeros(len(features))
        for shot in range(len(features) - 1):
            before = features[max(0, shot + 1 - self.REACH) : shot + 1].mean(0)
            after = features[shot + 1 : shot + 1 + self.REACH].mean(0)
            found[shot] = 1 - np.minimum(before, after).sum()
        return found.clip(0, 1)


def check_grouping(threshold: float | None, scenes: int | None, min_scene: float) -> None:
    """Raises ConfigError: a value out of range, or both `threshold` and `scenes`."""
    if threshold is not None and scenes is not None:
        raise ConfigError("threshold and scenes: both set the number of scenes; give one of them")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"threshold {threshold}: a probability; choose from 0 to 1")
    if scenes is not None and scenes < 1:
        raise ConfigError(f"scenes {scenes}: must be at least 1")
    if not min_scene >= 0:
        raise ConfigError(f"min_scene {min_scene}: seconds; must be at least 0")


def timing_of(film: str | Path, start_timecode: str | None = None) -> Timing:
    """Frame rate and time code of a film, the latter as given or that of the file.

    Raises:
        SourceError: not a readable file, no video, or not a time code of this film.
    """
    timing = read_timing(film)
    try:
        return timing if start_timecode is None else timing.starting_at(start_timecode)
    except ConfigError as error:
        raise SourceError(f"{film}: {error}") from None


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _shot(number: int, shot: Shot, jpegs: Sequence[bytes], probability: float) -> SceneShot:
    span = shot.start, shot.end, shot.first, shot.last
    return SceneShot(number, *span, probability, jpegs, shot.transition, shot.damaged)
