"""The report page, parsed back: what it shows is what the scores say, and it asks the network for nothing."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from bassl_fast.metrics import FilmScores, scene_metrics
from bassl_fast.report import FilmPage, clock, mark_of, shrink, write_report
from shard_tools.errors import FeatureError, PictureError


class Page(HTMLParser):
    """All start tags with their attributes, and the text by the tag it stands in."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.open, self.texts = html, [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], "a tag is not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def of(self, tag: str, cls: str = "") -> list[dict]:
        return [a for t, a in self.tags if t == tag and (not cls or cls in a.get("class", "").split())]

    def text(self, tag: str) -> list[str]:
        return [text for t, text in self.texts if t == tag]


def picture(width=426, height=240, seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=50)
    return out.getvalue()


def film_page(boundary, probability, name="tt0000001", pictures=True, seconds=60) -> FilmPage:
    start = np.arange(len(boundary)) * 24 * seconds
    scores = FilmScores(name, probability, boundary, start, start + 24 * seconds - 1)
    return FilmPage(name, [picture(seed=i) for i in range(len(boundary))] if pictures else [], scores)


# hit at 1, miss at 3, false alarm at 4, and an unlabelled shot that is predicted at 6
FILM = film_page([0, 1, 0, 1, 0, 0, -1, 0], [0.1, 0.9, 0.2, 0.3, 0.8, 0.1, 0.6, 0.5 - 1e-9])


def write(tmp_path, films=(FILM,), metrics=None, threshold=0.5, curves=None, title="Report", **more) -> Page:
    path = tmp_path / "report.html"
    write_report(path, title, list(films), metrics or {}, threshold, curves or {}, **more)
    return Page(path.read_text(encoding="utf-8"))


def test_shots_and_boundaries_are_those_of_the_data(tmp_path):
    page = write(tmp_path)
    shots = page.of("figure", "shot")
    assert [s["data-shot"] for s in shots] == list("01234567")
    assert [s["data-mark"] for s in shots] == ["", "hit", "", "miss", "false-alarm", "", "predicted", ""]
    assert len(page.of("div", "scene")) == 4  # predicted after shots 1, 4 and 6
    assert page.text("time") == [f"00:0{i}:00" for i in range(8)]
    assert [t for t in page.text("span") if t.startswith("scene")] == [f"scene {i}" for i in (1, 2, 3, 4)]
    legend = {"hit: true and predicted (1)", "miss: true, not predicted (1)", "false alarm: predicted, not true (1)"}
    assert legend < set(page.text("li"))


def test_marks_differ_in_shape_and_in_words(tmp_path):
    page = write(tmp_path)
    uses = Counter(a["href"] for a in page.of("use"))
    assert uses == {"#hit": 2, "#miss": 2, "#false-alarm": 2, "#predicted": 2}  # on the shot and in the legend
    assert {a["id"] for a in page.of("symbol")} == {"hit", "miss", "false-alarm", "predicted"}
    titles = [s["title"] for s in page.of("figure", "shot")]
    assert titles[3] == "shot 3, 00:03:00, probability 0.30, miss: true, not predicted"


def test_thumbnails_are_small_jpegs(tmp_path):
    images = write(tmp_path).of("img")
    assert len(images) == 8
    for attributes in images:
        data = attributes["src"].removeprefix("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            assert (image.format, image.size) == ("JPEG", (128, 72))


def test_shrink_never_enlarges():
    assert shrink(picture(64, 36))[1:] == (64, 36)
    assert shrink(picture(2, 400))[1:] == (1, 72)
    grey = io.BytesIO()
    Image.new("L", (100, 100)).save(grey, "JPEG")
    assert shrink(grey.getvalue())[1:] == (72, 72)


@pytest.mark.parametrize(
    ("threshold", "scenes", "dots"), [(0.05, 8, 8), (0.5, 4, 3), (0.6, 4, 3), (0.61, 3, 2), (1, 1, 0)]
)
def test_threshold_decides_scenes_and_stands_on_the_curve(tmp_path, threshold, scenes, dots):
    page = write(tmp_path, threshold=threshold)
    assert len(page.of("div", "scene")) == scenes
    assert len(page.of("path", "over")) == dots
    level = f"M0 {40 * (1 - threshold):.1f}H100"
    assert [a["d"] for a in page.of("path", "threshold")].count(level) == 8


def test_the_curve_runs_through(tmp_path):
    lines = [re.findall(r"[\d.]+", a["d"]) for a in write(tmp_path).of("path", "line") if a["d"].startswith("M0 ")]
    assert len(lines) == 8
    assert [line[5] for line in lines[:-1]] == [line[1] for line in lines[1:]]  # ends where the next one starts
    assert [float(line[3]) for line in lines] == pytest.approx(40 * (1 - FILM.scores.probability), abs=0.06)


def test_everything_is_escaped(tmp_path):
    nasty = "<script>alert('1')</script> & \"x\""
    page = write(
        tmp_path,
        [film_page([0, 1, 0], [0.1, 0.9, 0.1], nasty)],
        metrics={nasty: 1.0},
        curves={nasty: [(0, 1.0), (1, 2.0)]},
        title=nasty,
        comparison=[{"name": nasty, nasty: nasty}],
        notes=[nasty],
    )
    assert not page.of("script")
    assert page.text("h1") == page.text("title") == [nasty]
    assert sum(text == nasty for _, text in page.texts) == 10


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    page = write(
        tmp_path, metrics=scene_metrics([FILM.scores]), curves={"loss": [(0, 2.0), (9, 1.0)]}, notes=["https://x.org"]
    )
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,")), (tag, attributes)
    style = page.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["href"][1:] for _, a in page.tags if "href" in a} <= ids


def test_films_stand_worst_first(tmp_path):
    good = film_page([0, 1, 0], [0.1, 0.9, 0.1], "good")
    bad = film_page([0, 1, 0], [0.9, 0.1, 0.8], "bad", pictures=False)
    quiet = film_page([0, 0, 0], [0.1, 0.1, 0.1], "quiet")
    unknown = film_page([-1, -1], [0.1, 0.9], "unknown")
    page = write(tmp_path, [quiet, good, bad, unknown])
    rows = [text for tag, text in page.texts if tag in ("th", "a") and text in ("good", "bad", "quiet", "unknown")]
    assert rows == ["bad", "good", "quiet"]
    assert [a["href"] for a in page.of("a")] == ["#film-1", "#film-0"]  # no strip of "bad" to go to
    assert [a["id"] for a in page.of("section", "film")] == ["film-0", "film-1", "film-3"]


def test_metrics_and_comparison(tmp_path):
    rows = [{"name": "chance", "ap": (9.0, 0.5), "f1": None}, {"name": "ours", "ap": 56.264, "f1": float("nan")}]
    page = write(tmp_path, metrics={"miou": 48.683, "ap": 74.0, "extra": 1.5}, comparison=rows)
    assert [t for t in page.text("td") if t[0].isdigit()][:3] == ["74.00", "48.68", "1.50"]  # in our order
    assert [t for t in page.text("td") if t in ("9.00", "56.26", "–")] == ["9.00", "–", "56.26", "–"]
    assert "± 0.50" in page.text("span")


def test_precision_recall_has_a_dot_at_the_threshold(tmp_path):
    page = write(tmp_path)
    assert len(page.of("circle", "dot")) == 1
    assert "threshold 0.50: precision 0.50, recall 0.50" in " ".join(page.text("figcaption"))
    assert not write(tmp_path, threshold=0.95).of("circle", "dot")  # nothing predicted
    unknown = film_page([-1, -1], [0.1, 0.9])
    assert not any(a.get("id") == "pr" for a in write(tmp_path, [unknown]).of("figure"))


def test_training_curves(tmp_path):
    long = [(i, float(np.sin(i / 1e4))) for i in range(100_000)]
    curves = {"loss": long, "flat": [(0, 0.0), (5, 0.0)], "one": [(3, 2.0)], "nan": [(0, float("nan"))], "none": []}
    page = write(tmp_path, [], curves=curves)
    labels = [a["aria-label"] for a in page.of("svg") if a.get("role") == "img"]
    assert labels == ["loss against step", "flat against step", "one against step"]
    assert len(page.html) < 40_000  # points closer than half a pixel are left out
    assert "nan" not in page.html.split("</style>")[1]


def test_a_page_with_next_to_nothing_on_it(tmp_path):
    page = write(tmp_path, [])
    assert page.text("h2") == []
    assert page.text("p") == ["0 films · 0 shots · 0 predicted at threshold 0.50"]


def test_unknown_times_and_own_numbers(tmp_path):
    unknown = np.full(2, -1)
    page = FilmPage("tt1", [picture()] * 2, FilmScores("tt1", [0.1, 0.2], [0, 0], unknown, unknown))
    assert write(tmp_path, [page]).text("time") == []
    page = FilmPage("tt1", page.thumbnails, FilmScores("tt1", [0.1, 0.2], [0, 0], np.array([0, 89422]), unknown))
    page.shot_numbers = [7, 9]
    parsed = write(tmp_path, [page])
    assert parsed.text("time") == ["00:00:00", "01:02:05"]
    assert parsed.text("b") == ["7", "9"]


def test_errors_name_film_and_shot(tmp_path):
    short = film_page([0, 1, 0], [0.1, 0.9, 0.1])
    short.thumbnails = short.thumbnails[:2]
    with pytest.raises(FeatureError, match="tt0000001: 2 thumbnails for 3"):
        write(tmp_path, [short])
    for bad in (b"", b"not a picture", picture()[:2000]):
        with pytest.raises(PictureError, match="tt0000001: key-frame of shot 1"):
            write(tmp_path, [FilmPage("tt0000001", [picture(), bad, picture()], short.scores)])
    assert list(tmp_path.iterdir()) == []


def test_an_old_page_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    write_report(path, "old", [], {}, 0.5, {})
    old = path.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(path, "new", [], {}, 0.5, {})
    assert path.read_text() == old
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00:00"), (59.99, "00:00:59"), (36000, "10:00:00"), (-1, "")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_mark_of():
    cases = {(1, True): "hit", (1, False): "miss", (0, True): "false-alarm", (-1, True): "predicted"}
    assert all(mark_of(*case) == mark for case, mark in cases.items())
    assert mark_of(0, False) == mark_of(-1, False) == ""
