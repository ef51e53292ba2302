"""Corrections by hand: read, checked, and written as a film's results."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bassl_fast import cli
from bassl_fast.scenes import detector, exports
from bassl_fast.scenes.corrections import check_same_film, correct, is_corrected, read_corrections
from bassl_fast.scenes.jobs import _summary
from bassl_fast.scenes.text import plain, single_line
from bassl_fast.segmentation.corrections import corrected_films
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


def without(document: dict, *keys: str) -> dict:
    return {key: value for key, value in document.items() if key not in keys}


def test_boundaries_that_differ_from_the_results_are_corrected_listed_or_not(found: dict):
    made = film([0.1, 0.9, 0.2, 0.8, 0.3])  # found: scenes end at shots 1 and 3
    by_text = without(edited(found, [1, 2], NAMES), "corrected", "by_hand")
    after = correct(made, by_text, found)
    assert (after.ends, after.corrected, after.by_hand) == ((1, 2), {2, 3}, True)
    assert correct(made, {**by_text, "corrected": [0, 2]}, found).corrected == {0, 2, 3}
    again = json.loads(exports.scenes_json(after, {}, {}))
    assert correct(made, again, again) == after
    undone = edited(again, [1, 3], NAMES)  # a correction that is taken back is none
    assert correct(made, {**undone, "corrected": []}, again).corrected == set()


def test_another_threshold_is_taken_over_and_its_boundaries_are_not_edits(found: dict):
    made = film([0.1, 0.9, 0.2, 0.8, 0.3])
    slid = {**edited(found, [1, 2, 3], ["", "", "", ""]), "threshold": 0.2, "corrected": []}
    after = correct(made, slid, found)
    assert (after.ends, after.corrected) == ((1, 2, 3), set())
    assert is_corrected(json.loads(exports.scenes_json(after, {}, {})))
    assert correct(made, {**edited(slid, [1, 3], ["", "", ""]), "corrected": []}, found).corrected == {2}


def test_what_counts_as_corrected(found: dict):
    assert not is_corrected(found)
    assert not is_corrected(without(found, "corrected", "by_hand"))
    assert is_corrected({**found, "by_hand": True})
    older = without(found, "by_hand")
    assert is_corrected({**older, "corrected": [1]})
    assert is_corrected({**older, "scenes": [{**found["scenes"][0], "name": "At night"}, *found["scenes"][1:]]})


def test_names_are_one_line_and_notes_are_plain_text():
    assert single_line("\u00a0a \r\n\tb\u2028c\x00\x7f ") == "a b c"
    assert single_line("half \ud800") == "half \ufffd"
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
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0 ftypisom")
    for path, said in (
        (tmp_path / "c.json", "c.json: not JSON; give the file saved from the report"),
        (tmp_path / "film.mp4", "film.mp4: not JSON; give the file saved from the report"),
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


def test_the_summary_says_where_damage_is_listed():
    made = film([0.1, 0.9])
    made = replace(made, shots=(made.shots[0], replace(made.shots[1], damaged=26)))
    said = _summary(made, "out/film/report.html", False)
    assert "26 packets or pictures of film.mp4 are damaged; scenes.json says in which shots" in said
    assert "by hand" not in said
    assert "by hand" in _summary(replace(made, by_hand=True), "out/film/report.html", False)


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
        assert "kept as corrected by hand" in said
        assert f"delete {results} to" in said
        assert digests(results) == whole
    assert scenes(film_path, "--baseline", "--split", "copy", "--out", out) == 0
    assert len(list((results / "clips").iterdir())) == 3
    assert [row["name"] for row in document_of(results)["scenes"]] == NAMES
    said = refused(capsys, "scenes", film_path, "--out", out)
    assert "holds scenes corrected by hand" in said
    assert "delete it to lose" in said
    draw_video(film_path, [24, 24])
    assert "another film than the results are of" in refused(
        capsys, "scenes", film_path, "--corrections", corrections, "--out", out
    )
    assert [row["name"] for row in document_of(results)["scenes"]] == NAMES
    shutil.rmtree(results)
    assert "no results of this film yet" in refused(
        capsys, "scenes", film_path, "--corrections", corrections, "--out", out
    )


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [None, 0.0], ids=["text editor", "slider"])
def test_scenes_without_a_list_of_corrections_are_kept_too(results: Path, tmp_path: Path, capsys, threshold):
    film_path, out = tmp_path / "film.mp4", tmp_path / "out"
    document = document_of(results)
    (end,) = (row["last_shot"] for row in document["scenes"][:-1])
    ends = [end - 1 or 2] if threshold is None else [0, 1, 2]
    changed = without(edited(document, ends, [""] * (len(ends) + 1)), "corrected", "by_hand")
    changed |= {} if threshold is None else {"threshold": threshold, "threshold_from": "chosen in the report"}
    assert scenes(film_path, "--corrections", write(tmp_path / "c.json", changed), "--out", out) == 0
    edits = "2 edited boundaries" if threshold is None else "0 edited boundaries"
    assert edits in capsys.readouterr().out
    assert scenes(film_path, "--baseline", "--scenes", "2", "--out", out) == 0
    assert "kept as corrected by hand" in capsys.readouterr().out
    after = document_of(results)
    assert [row["last_shot"] for row in after["scenes"][:-1]] == ends
    assert after["by_hand"] is True
    assert [one.name for one in corrected_films(out)] == ["film"]


@pytest.mark.slow
def test_corrections_take_a_start_timecode(results: Path, tmp_path: Path, capsys):
    argv = [tmp_path / "film.mp4", "--corrections", write(tmp_path / "c.json", document_of(results))]
    argv += ["--out", tmp_path / "out", "--start_timecode"]
    sheet = (results / "sheets" / "scene-001.jpg").read_bytes()
    assert scenes(*argv, "01:00:00:00") == 0
    after = document_of(results)
    assert (after["start_timecode"], after["asked"]["start_timecode"]) == ("01:00:00:00", "01:00:00:00")
    assert after["scenes"][0]["start_timecode"] == "01:00:00:00"
    assert (results / "sheets" / "scene-001.jpg").read_bytes() != sheet
    assert "time code 'soon': not hh:mm:ss:ff" in refused(capsys, "scenes", *argv, "soon")


@pytest.mark.slow
def test_a_film_whose_name_differs_in_case_is_named(results: Path, tmp_path: Path, capsys):
    corrections = write(tmp_path / "c.json", {**document_of(results), "film": "Film"})
    said = refused(capsys, "scenes", tmp_path / "film.mp4", "--corrections", corrections, "--out", tmp_path / "out")
    assert "Film: no results of this film yet (" in said
    assert "c.json says 'Film', the film given is 'film'); run without --corrections first" in said


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
