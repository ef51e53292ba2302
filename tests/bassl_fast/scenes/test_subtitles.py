"""Scenes with subtitles: whose they are, on which clock, and what they change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bassl_fast import SceneDetector, cli
from bassl_fast.scenes.detector import ColourChange
from bassl_fast.scenes.subtitles import STREAM, identity, read_lines, subtitles_of
from shard_tools.errors import ConfigError, SourceError
from tests.shard_tools.video.test_subtitles import film_with, pgs

LINE = "1\n00:00:00,500 --> 00:00:02,900\nOver two cuts.\n\n"  # of those at 1.0, 2.5 and 3.75 of `film_file`


def test_files_of_a_folder_belong_to_films_by_name(tmp_path: Path, capsys):
    for name in ("One.2019.en.srt", "two.ass", "two.de.srt", "three.txt", "twofold.srt"):
        (tmp_path / name).write_text(LINE)
    sources = {"One_2019": "films/One.2019.mkv", "two": "two.mp4", "three": "three.mp4"}
    found = subtitles_of(str(tmp_path), sources)
    assert found == {"One_2019": str(tmp_path / "One.2019.en.srt"), "two": str(tmp_path / "two.ass")}
    assert capsys.readouterr().out == f"note: 1 of 3 films have no subtitles in {tmp_path}\n"
    assert subtitles_of(STREAM, sources) == dict.fromkeys(sources, STREAM)
    with pytest.raises(SourceError, match=r"no subtitles of these films; name them .* such as four\.srt"):
        subtitles_of(str(tmp_path), {"four": "four.mp4"})


def test_one_file_is_of_one_film_and_is_read_first(tmp_path: Path):
    (tmp_path / "a.srt").write_text(LINE)
    with pytest.raises(ConfigError, match="there are 2 films; give a folder"):
        subtitles_of(str(tmp_path / "a.srt"), {"a": "a.mp4", "b": "b.mp4"})
    with pytest.raises(SourceError, match="No such file"):
        subtitles_of(str(tmp_path / "b.srt"), {"a": "a.mp4"})


def test_results_know_their_subtitles(tmp_path: Path):
    (tmp_path / "a.srt").write_text(LINE)
    one = identity(str(tmp_path / "a.srt"))
    (tmp_path / "a.srt").write_text(LINE * 2)
    assert one != identity(str(tmp_path / "a.srt"))
    assert identity(None) == {}
    assert identity(STREAM) == {"subtitles": STREAM}


def test_a_film_without_a_stream_is_done_without(tmp_path: Path, capsys):
    film = film_with(tmp_path / "a.mkv")
    assert read_lines(film, STREAM).times.shape == (0, 2)
    assert capsys.readouterr().out.startswith(f"note: {film} has no subtitles of its own")
    film_with(film, (LINE, "srt", "default"))
    found = read_lines(film, STREAM)
    assert (found.times.tolist(), found.words) == ([[0.5, 2.9]], ("Over two cuts.",))


class Fixed(ColourChange):
    """The same probabilities whatever is seen."""

    def probability(self, features: np.ndarray, seconds: np.ndarray | None = None) -> np.ndarray:
        return np.array([0.5, 0.3, 0.4, 0.0])

    def features(self, shots: Iterator[tuple[bytes, ...]]) -> Iterator[np.ndarray]:
        return (np.zeros(1) for _ in shots)


def test_a_boundary_moves_out_of_a_line(film_file: Path, tmp_path: Path):
    (tmp_path / "a.srt").write_text(LINE)
    detector = SceneDetector(Fixed())
    seen, heard = (detector(film_file, scenes=2, subtitles=path) for path in (None, tmp_path / "a.srt"))
    assert [film.ends for film in (seen, heard)] == [(0,), (2,)]
    assert [shot.probability for shot in heard.shots] == [0.4, 0.3, 0.5, 0.0]
    assert heard.method == f"{seen.method}, and when somebody speaks"


def test_results_are_kept_until_the_subtitles_change(film_file: Path, tmp_path: Path, capsys):
    shutil.copy(film_file, tmp_path / "film.mp4")
    (tmp_path / "film.srt").write_text(LINE)
    argv = ["scenes", str(tmp_path / "film.mp4"), "--baseline", "--out", str(tmp_path / "out")]
    said = []
    for text, more in ((LINE, ["--subtitles", str(tmp_path)]), (LINE, ["--subtitles", str(tmp_path / "film.srt")])):
        (tmp_path / "film.srt").write_text(text)
        assert cli.main([*argv, *more]) == 0
        said.append(capsys.readouterr().out)
    assert ["(unchanged)" in text for text in said] == [False, True]
    (tmp_path / "film.srt").write_text(LINE.replace("0,500", "3,000").replace("2,900", "4,900"))
    made_by = []
    for more in (["--subtitles", str(tmp_path)], []):
        assert cli.main([*argv, *more]) == 0
        assert "(unchanged)" not in capsys.readouterr().out
        made_by.append(json.loads((tmp_path / "out" / "film" / "scenes.json").read_text())["made_by"])
    assert ["subtitles_sha256" in made for made in made_by] == [True, False]


def test_subtitles_of_corrected_scenes_are_refused(capsys):
    assert cli.main(["scenes", "film.mp4", "--corrections", "a.json", "--subtitles", "a.srt"]) == 1
    assert "corrections and subtitles" in capsys.readouterr().err


WORDLESS = {
    "neither file nor stream": ([], "text_encoder: it reads the words of subtitles; give them with --subtitles"),
    "a fine-tuned model": (
        ["--subtitles", "a.srt", "--checkpoint", "best.ckpt"],
        "text_encoder and checkpoint: the model was not trained on words; leave one of them out",
    ),
    "the baseline": (["--subtitles", "a.srt", "--baseline"], "text_encoder: the baseline reads no words; leave it out"),
    "corrections": (
        ["--corrections", "a.json"],
        "corrections and text_encoder: corrections say which scenes there are",
    ),
}


@pytest.mark.parametrize("kind", WORDLESS)
def test_a_text_encoder_that_would_read_nothing_is_refused(kind: str, capsys):
    argv, why = WORDLESS[kind]
    assert cli.main(["scenes", "film.mp4", "--text-encoder", "hf:model", *argv]) == 1
    assert why in capsys.readouterr().err


class Reads(Fixed):
    """Remembers the words that it is given."""

    words_by = "hf:model"

    def probability(
        self, features: np.ndarray, seconds: np.ndarray | None = None, words: list[str] | None = None
    ) -> np.ndarray:
        self.words = words
        return super().probability(features, seconds)


def test_a_model_reads_the_words_of_every_shot(film_file: Path, tmp_path: Path, capsys):
    model = Reads()
    detector = SceneDetector(model)
    seen = detector(film_file)
    assert (model.words, seen.method) == (None, model.method)
    (tmp_path / "a.srt").write_text(LINE.replace("2,900", "1,900"))
    heard = detector(film_file, subtitles=tmp_path / "a.srt")
    assert model.words == ["Over two cuts."] * 3 + [""]
    assert heard.method == f"{seen.method}, and when somebody speaks, and the words (by hf:model)"
    (tmp_path / "a.sup").write_bytes(pgs((0.5, True), (2.9, False)))
    heard = detector(film_file, subtitles=tmp_path / "a.sup")
    assert (model.words, heard.method) == (None, f"{seen.method}, and when somebody speaks")
    note = f"note: {tmp_path / 'a.sup'}: subtitles without words, as images are; only their times are used\n"
    assert note in capsys.readouterr().out
