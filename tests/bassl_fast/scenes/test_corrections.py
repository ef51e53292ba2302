"""Corrections by hand: read, checked, and written as a film's results."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from bassl_fast import cli
from bassl_fast.scenes import detector, exports
from bassl_fast.scenes.corrections import check_same_film, correct, one_line, plain, read_corrections
from shard_tools.errors import SourceError
from tests.films import digests
from tests.refused import refused
from tests.servers import BUCKET, s3_server, use_s3
from tests.videos import draw_video

from .test_film import film

NAMES = ["", 'At the "bar", night', "é中 = ; # \\ <b>&</b> | a"]


def scenes(*argv: object) -> int:
    return cli.main(["scenes", *map(str, argv)])


def document_of(folder: Path) -> dict:
    return json.loads((folder / "scenes.json").read_text(encoding="utf-8"))


def edited(document: dict, ends: list[int], names: list[str], note: str = "") -> dict:
    """A document of results with other scenes."""
    last = len(document["shots"]) - 1
    bounds = zip([0, *(end + 1 for end in ends)], [*ends, last], strict=True)
    rows = [
        {"first_shot": a, "last_shot": b, "name": name, "note": note}
        for (a, b), name in zip(bounds, names, strict=True)
    ]
    return {**document, "scenes": rows, "corrected": ends}


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def found() -> dict:
    made = film([0.1, 0.9, 0.2, 0.8, 0.3]).regrouped(0.5, "given")
    return json.loads(exports.scenes_json(made, {}, {"split": False}))


def test_a_film_takes_scenes_names_and_notes(found: dict, tmp_path: Path):
    made = film([0.1, 0.9, 0.2, 0.8, 0.3])
    document = read_corrections(write(tmp_path / "c.json", edited(found, [0, 3], NAMES, " two\r\nlines ")))
    check_same_film("c.json", document, found)
    after = correct(made, document)
    assert (after.ends, after.corrected) == ((0, 3), {0, 3})
    assert [scene.name for scene in after.scenes] == NAMES
    assert {scene.note for scene in after.scenes} == {"two\nlines"}
    assert (after.threshold, after.threshold_from, after.shots) == (0.5, "given", made.shots)
    again = json.loads(exports.scenes_json(after, {}, {"split": False}))
    assert correct(made, again) == after


def test_names_are_one_line_and_notes_are_plain_text():
    assert one_line("\u00a0a \r\n\tb\u2028c\x00\x7f ") == "a b c"
    assert one_line("half \ud800") == "half \ufffd"
    assert plain("\n a\r\nb\rc\x00d\u2029 \n") == "a\nb\nc d"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: [], "not the scenes of a film"),
        (lambda d: {k: v for k, v in d.items() if k != "scenes"}, "not the scenes of a film"),
        (lambda d: {**d, "scenes": [{}]}, "missing or of the wrong kind"),
        (lambda d: {**d, "scenes": 3}, "missing or of the wrong kind"),
        (lambda d: {**d, "min_scene": None}, "missing or of the wrong kind"),
        (lambda d: {**d, "scenes": d["scenes"][1:]}, "a scene should begin at shot 0, not at 2"),
        (lambda d: {**d, "scenes": d["scenes"][:-1]}, "its scenes end at shot 3 of 5"),
        (lambda d: {**d, "scenes": [{"first_shot": 0, "last_shot": 9}]}, "a shot that is not one of the 5"),
        (lambda d: {**d, "corrected": [-1]}, "a shot that is not one of the 5"),
        (lambda d: {**d, "corrected": [1.5]}, "a shot that is not one of the 5"),
        (lambda d: {**d, "corrected": [True]}, "a shot that is not one of the 5"),
        (lambda d: {**d, "scenes": [{**row, "name": 3} for row in d["scenes"]]}, "a name or note is not text"),
        (lambda d: {**d, "film": None}, "a name or note is not text"),
    ],
)
def test_what_is_wrong_with_corrections_is_said_in_a_line(found: dict, tmp_path: Path, change, said):
    with pytest.raises(SourceError, match="export corrections again") as error:
        read_corrections(write(tmp_path / "c.json", change(found)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path):
    (tmp_path / "c.json").write_bytes(b"\xff{")
    for path, said in (
        (tmp_path / "c.json", "not JSON"),
        (tmp_path / "none.json", "cannot be read"),
        (tmp_path, "cannot"),
    ):
        with pytest.raises(SourceError, match=said):
            read_corrections(path)


def test_corrections_of_another_film_or_of_other_shots(found: dict):
    with pytest.raises(SourceError, match="corrections of 'other', not of 'film'"):
        check_same_film("c.json", {**found, "film": "other"}, found)
    with pytest.raises(SourceError, match="it has 4 shots, the results 5"):
        check_same_film("c.json", {**found, "shots": found["shots"][1:]}, found)
    with pytest.raises(SourceError, match="it has other shots"):
        check_same_film("c.json", {**found, "shots": found["shots"][::-1]}, found)


# The command


@pytest.fixture
def results(film_file: Path, tmp_path: Path) -> Path:
    """Of a film of four shots, found as two scenes."""
    shutil.copy(film_file, tmp_path / "film.mp4")
    assert scenes(tmp_path / "film.mp4", "--baseline", "--scenes", "2", "--out", tmp_path / "out") == 0
    return tmp_path / "out" / "film"


@pytest.mark.slow
def test_all_files_are_written_again_without_the_film(results: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(detector, "cut_shots", None)  # decoding now fails
    before = document_of(results)
    images = digests(results / "keyframes")
    corrections = write(tmp_path / "c.json", edited(before, [0, 2], NAMES, "at\nnight"))
    (tmp_path / "film.mp4").unlink()
    started = time.monotonic()
    assert scenes(tmp_path / "film.mp4", "--corrections", corrections, "--out", tmp_path / "out") == 0
    assert time.monotonic() - started < 1
    assert "film: 3 scenes of 4 shots, 2 edited boundaries, 2 names" in capsys.readouterr().out
    after = document_of(results)
    assert [row["name"] for row in after["scenes"]] == NAMES
    assert (after["corrected"], after["shots"], after["made_by"]) == ([0, 2], before["shots"], before["made_by"])
    assert digests(results / "keyframes") == images
    assert len(list((results / "sheets").iterdir())) == 3
    assert "At the bar, night".replace('"', "") in (results / "scenes.csv").read_text().replace('"', "")
    assert [path.name for path in results.parent.iterdir()] == ["film"]


@pytest.mark.slow
def test_what_was_corrected_is_kept_by_later_runs(results: Path, tmp_path: Path, capsys):
    film_path, out = tmp_path / "film.mp4", tmp_path / "out"
    corrections = write(tmp_path / "c.json", edited(document_of(results), [0, 2], NAMES))
    assert scenes(film_path, "--corrections", corrections, "--out", out) == 0
    whole = digests(results)
    for options in (["--scenes", "2"], ["--threshold", "0.1"], ["--min-scene", "2"]):
        assert scenes(film_path, "--baseline", *options, "--out", out) == 0
        said = capsys.readouterr().out
        assert f"kept as corrected by hand; delete {results} to find its scenes again" in said
        assert digests(results) == whole
    assert scenes(film_path, "--baseline", "--split", "copy", "--out", out) == 0
    assert len(list((results / "clips").iterdir())) == 3
    assert [row["name"] for row in document_of(results)["scenes"]] == NAMES
    said = refused(capsys, "scenes", film_path, "--out", out)
    assert "holds scenes corrected by hand" in said
    assert "delete it to lose the corrections" in said
    draw_video(film_path, [24, 24])
    assert "changed since its scenes were found" in refused(
        capsys, "scenes", film_path, "--corrections", corrections, "--out", out
    )
    assert [row["name"] for row in document_of(results)["scenes"]] == NAMES
    shutil.rmtree(results)
    assert "no results of this film yet" in refused(
        capsys, "scenes", film_path, "--corrections", corrections, "--out", out
    )


@pytest.mark.slow
def test_corrections_that_do_not_fit_the_command(results: Path, tmp_path: Path, capsys):
    corrections = write(tmp_path / "c.json", document_of(results))
    whole = digests(results)

    def said(*argv: object) -> str:
        return refused(capsys, "scenes", *argv, "--corrections", corrections, "--out", tmp_path / "out")

    film_path = tmp_path / "film.mp4"
    for option in (["--threshold", "0.5"], ["--scenes", "3"], ["--min-scene", "3"], ["--detail", "fine"]):
        assert "corrections say which scenes there are; leave one of them out" in said(film_path, *option)
    assert "give one film at a time" in said(film_path, film_path)
    assert "corrections of 'film', not of 'other'" in said(tmp_path / "other.mp4")
    assert digests(results) == whole


@pytest.mark.slow
def test_results_behind_an_address_are_corrected_there(results: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "s3" / BUCKET).mkdir(parents=True)
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    corrections = write(tmp_path / "c.json", edited(document_of(results), [0, 2], NAMES))
    film_path, there = tmp_path / "film.mp4", tmp_path / "s3" / BUCKET / "scenes" / "film"
    with s3_server(tmp_path / "s3") as port:
        use_s3(monkeypatch, port)
        out = ["--out", f"s3://{BUCKET}/scenes"]
        assert scenes(film_path, "--baseline", "--scenes", "2", *out) == 0
        assert scenes(film_path, "--corrections", corrections, *out) == 0
    assert [row["name"] for row in document_of(there)["scenes"]] == NAMES
    assert len(list((there / "keyframes").iterdir())) == 12
