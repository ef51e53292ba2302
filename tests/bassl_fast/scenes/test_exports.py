"""Exports, read back by the libraries of the tools they are for."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction

import av
import opentimelineio
import pytest
from PIL import Image, ImageChops

from bassl_fast.scenes import exports
from bassl_fast.scenes.film import FilmScenes, Scene
from bassl_fast.scenes.sheet import draw, sheets_of, title_of
from shard_tools.video.facts import MediaFacts
from shard_tools.video.timing import Timing
from tests.films import picture

from .test_film import film

RATES = [Fraction(24), Fraction(30000, 1001), Fraction(25)]


def found(rate=Fraction(24)) -> FilmScenes:
    return film([0.1, 0.9, 0.2, 0.8, 0.3], [10, 2.5, 7.25, 3.125, 4000], rate).regrouped(0.5, "given")


def test_csv_has_a_row_a_scene():
    rows = list(csv.DictReader(io.StringIO(exports.FORMATS["scenes.csv"](found()))))
    assert [row["scene"] for row in rows] == ["1", "2", "3"]
    assert [(row["start"], row["end"]) for row in rows] == [
        ("0.000", "12.500"),
        ("12.500", "22.875"),
        ("22.875", "4022.875"),
    ]
    assert [(row["first_shot"], row["last_shot"]) for row in rows] == [("0", "1"), ("2", "3"), ("4", "4")]
    assert [row["probability"] for row in rows] == ["0.900", "0.800", ""]
    assert rows[1]["start_timecode"] == "00:00:12:12"


def test_json_holds_everything_and_is_read_back(tmp_path):
    made = replace(found(), media=MediaFacts(96, 64, (2, 1), 48000, "A1"))
    document = json.loads(exports.scenes_json(made, {"model": "m"}, {"threshold": 0.5}))
    assert document["scenes"][1]["first_frame"] == document["shots"][2]["first_frame"] == 300
    assert document["scenes"][2]["probability"] is None
    assert [shot["probability"] for shot in document["shots"]] == [0.1, 0.9, 0.2, 0.8, 0.3]
    (tmp_path / exports.KEYFRAMES).mkdir()
    for shot in range(5):
        for i in range(3):
            (tmp_path / exports.KEYFRAMES / f"shot_{shot:04d}_img_{i}.jpg").write_bytes(bytes([shot, i]))
    again = exports.read_film(tmp_path, document).regrouped(0.5, "given")
    assert [(s.start, s.end, s.first, s.last, s.probability) for s in again.shots] == [
        (s.start, s.end, s.first, s.last, s.probability) for s in made.shots
    ]
    assert again.ends == made.ends
    assert again.media == made.media == MediaFacts(96, 64, (2, 1), 48000, "A1")
    assert "media" in document
    assert again.shots[4].keyframes == (b"\4\0", b"\4\1", b"\4\2")


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_edl_is_read_by_the_library(rate):
    made = found(rate)
    edl = exports.FORMATS["scenes.edl"](made)
    timeline = opentimelineio.adapters.read_from_string(edl, "cmx_3600", rate=round(rate))
    clips = list(timeline.find_clips())
    assert len(clips) == 3
    assert {clip.name for clip in clips} == {"film.mp4"}
    starts = [round(scene.start * rate) for scene in made.scenes]
    assert [round(clip.source_range.start_time.value) for clip in clips] == starts
    assert sum(round(clip.source_range.duration.value) for clip in clips) == round(made.duration * rate)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_otio_is_read_by_the_library(rate):
    made = found(rate)
    timeline = opentimelineio.adapters.read_from_string(exports.FORMATS["scenes.otio"](made), "otio_json")
    clips = list(timeline.find_clips())
    assert [clip.name for clip in clips] == ["Scene 1", "Scene 2", "Scene 3"]
    ends = [clip.source_range.end_time_exclusive().to_seconds() for clip in clips]
    assert ends == pytest.approx([scene.end for scene in made.scenes], abs=0.51 / float(rate))
    assert clips[0].media_reference.target_url.endswith("/film.mp4")
    assert timeline.duration().value == round(made.duration * rate)


def test_chapters_are_read_by_ffmpeg(tmp_path):
    path = tmp_path / "chapters.ffmetadata"
    path.write_text(exports.FORMATS["chapters.ffmetadata"](found()))
    with av.open(str(path), format="ffmetadata") as container:
        chapters = container.chapters()
    assert [chapter["metadata"]["title"] for chapter in chapters] == ["Scene 1", "Scene 2", "Scene 3"]
    assert [chapter["start"] for chapter in chapters] == [0, 12500, 22875]
    assert exports.FORMATS["chapters.txt"](found()) == "0:00 Scene 1\n0:12 Scene 2\n0:22 Scene 3\n"


def test_a_new_format_is_one_entry(monkeypatch):
    monkeypatch.setitem(exports.FORMATS, "count.txt", lambda film: str(len(film.scenes)))
    assert exports.texts(found()) == {name: text_of(found()) for name, text_of in exports.FORMATS.items()}
    assert exports.texts(found())["count.txt"] == "3"


def contact_sheets(scene: Scene, timing: Timing) -> list[tuple[str, bytes]]:
    return [(sheet.name, draw(sheet, timing)) for sheet in sheets_of(scene, timing)]


@pytest.mark.parametrize(("shots", "size"), [(1, (256, 192)), (4, (1000, 192)), (5, (1000, 374)), (17, (1248, 738))])
def test_a_contact_sheet_holds_every_shot(shots, size):
    scene = film([0.1] * shots).scenes[0]
    for shot in scene.shots:
        object.__setattr__(shot, "keyframes", (b"", picture(shot.number, (320, 214)), b""))
    ((name, jpeg),) = contact_sheets(scene, Timing(Fraction(24)))
    with Image.open(io.BytesIO(jpeg)) as sheet:
        assert (name, sheet.format, sheet.width) == ("scene-001.jpg", "JPEG", size[0])
        assert sheet.height == 30 + -(-shots // (shots if shots <= 4 else max(4, -(-(shots**0.5) // 1)))) * (160 + 22)


def test_a_contact_sheet_shows_time_codes_of_the_film_and_no_name():
    """A name may be in letters that the font lacks."""
    made = film([0.1] * 4)
    for shot in made.shots:
        object.__setattr__(shot, "keyframes", (_grey(shot.number),))
    (plain,) = contact_sheets(made.scenes[0], made.timing)
    assert contact_sheets(replace(made, names={0: "B\u00e4ren"}).scenes[0], made.timing) == [plain]
    ((_, later),) = contact_sheets(made.scenes[0], made.timing.starting_at("01:00:00:00"))
    changed = ImageChops.difference(*(Image.open(io.BytesIO(jpeg)).convert("L") for jpeg in (plain[1], later)))
    changed = changed.point(lambda value: 255 * (value > 60))
    _, top, right, bottom = changed.getbbox()
    assert top < 22  # the title
    assert bottom > 200  # and the shots
    assert right > 3 * 248  # of each


def test_a_contact_sheet_is_that_of_its_shots_whatever_the_number_of_its_scene(tmp_path):
    made = film([0.1, 0.9, 0.8, 0.1])
    for shot in made.shots:
        object.__setattr__(shot, "keyframes", (_grey(shot.number),))
    before, after = (made.regrouped(threshold, "").scenes[-1] for threshold in (0.5, 0.85))
    assert (before.number, after.number) == (3, 2)
    ((_, sheet),), ((_, other),) = contact_sheets(before, made.timing), contact_sheets(after, made.timing)
    assert sheet != other  # it holds shot 2, too
    moved = replace(before, number=7)
    assert contact_sheets(moved, made.timing) == [("scene-007.jpg", sheet)]
    (tmp_path / "a.jpg").write_bytes(sheet)
    assert title_of(tmp_path / "a.jpg") == next(sheets_of(moved, made.timing)).title
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert title_of(tmp_path / "b.jpg") == ""


def test_contact_sheets_of_a_long_scene_are_pages_that_hold_every_shot():
    scene = film([0.1] * 250).scenes[0]
    for shot in scene.shots:
        object.__setattr__(shot, "keyframes", (_grey(shot.number),))
    found = {}
    for name, jpeg in contact_sheets(scene, Timing(Fraction(24))):
        with Image.open(io.BytesIO(jpeg)) as sheet:
            found[name] = sheet.size
            page, columns = int(name[-5]), (sheet.width - 8) // 248
            for i in range(100 if page < 3 else 50):
                x, y = 8 + i % columns * 248 + 120, 30 + i // columns * 202 + 90
                assert sheet.getpixel((x, y))[0] == pytest.approx(100 * (page - 1) + i, abs=2)
    assert found == {
        "scene-001-1.jpg": (8 + 10 * 248, 30 + 10 * 202),
        "scene-001-2.jpg": (8 + 10 * 248, 30 + 10 * 202),
        "scene-001-3.jpg": (8 + 8 * 248, 30 + 7 * 202),
    }


def _grey(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (level, level, level)).save(out, "JPEG", quality=95)
    return out.getvalue()


def test_how_a_shot_begins_is_kept_and_may_be_missing(tmp_path):
    """Results written before it was kept have no `transition`."""
    (tmp_path / exports.KEYFRAMES).mkdir()
    for shot in range(2):
        for i in range(3):
            (tmp_path / exports.KEYFRAMES / f"shot_{shot:04d}_img_{i}.jpg").touch()
    made = film([0.1, 0.9])
    made = replace(made, shots=(made.shots[0], replace(made.shots[1], transition="dissolve")))
    document = json.loads(exports.scenes_json(made, {}, {}))
    assert [shot["transition"] for shot in document["shots"]] == [None, "dissolve"]
    assert [shot.transition for shot in exports.read_film(tmp_path, document).shots] == [None, "dissolve"]
    for shot in document["shots"]:
        del shot["transition"]
    assert [shot.transition for shot in exports.read_film(tmp_path, document).shots] == [None, None]
