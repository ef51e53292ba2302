"""The report page, parsed back and used in a browser: it shows the scores, at any threshold."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from bassl_fast.metrics.scenes import FilmScores, scene_metrics
from bassl_fast.report.films import FilmPage, shrink
from bassl_fast.report.page import earlier_blocks, write_report
from bassl_fast.scenes.film import choose_ends
from shard_tools.errors import FeatureError, PictureError
from tests.browser import Browser, open_browser

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """All start tags with their attributes, and the text by the tag it is in."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

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
        if data.strip() and not {"style", "script"} & set(self.open):
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def of(self, tag: str, cls: str = "") -> list[dict]:
        return [a for t, a in self.tags if t == tag and (not cls or cls in a.get("class", "").split())]

    def films(self) -> list[dict]:
        """The data that the script draws."""
        pieces = self.html.split('class="film-data">')[1:]
        return [json.loads(piece.split("</script>")[0]) for piece in pieces]

    def images(self) -> list[bytes]:
        """Those of all films, as JPEG."""
        blocks = [block.split(">")[1].split("</script")[0] for block in self.html.split('class="images"')[1:]]
        return [base64.b64decode(line, validate=True) for block in blocks for line in block.split("\n")]

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


def test_data_are_those_of_the_scores(tmp_path):
    (film,) = write(tmp_path).films()
    assert film["number"] == list(range(8))
    assert film["label"] == FILM.scores.boundary.tolist()
    assert film["probability"] == FILM.scores.probability.tolist()
    assert film["ends"] == [1, 4, 6]
    assert film["start"] == [60 * i for i in range(8)]
    assert film["end"] == [60 * i for i in range(1, 9)]
    (film,) = write(tmp_path, [FilmPage("f", FILM.thumbnails * 3, FILM.scores, ends=[2], shortest=9.0)]).films()
    assert (film["per_shot"], film["ends"], film["shortest"]) == (3, [2], 9.0)


def test_thumbnails_are_small_jpegs(tmp_path):
    images = write(tmp_path).images()
    assert len(images) == 8
    for data in images:
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("JPEG", (320, 180))


def test_images_of_an_earlier_page_are_taken_again(tmp_path):
    first, film = write(tmp_path), FilmPage("tt0000001", [b"no image"] * 8, FILM.scores)
    film.shrunk = earlier_blocks(tmp_path / "report.html", film)
    film.thumbnails = [FILM.thumbnails[0], *film.thumbnails[1:]]  # the first says how large they are
    assert write(tmp_path, [film]).images() == first.images()
    assert earlier_blocks(tmp_path / "report.html", FilmPage("f", [b""] * 7, FILM.scores)) is None
    assert earlier_blocks(tmp_path / "none.html", film) is None
    (tmp_path / "report.html").write_text(
        (tmp_path / "report.html").read_text().replace('data-made="180-', 'data-made="90-')
    )
    assert earlier_blocks(tmp_path / "report.html", film) is None


def test_shrink_never_enlarges():
    assert shrink(picture(64, 36), 72)[1:] == (64, 36)
    assert shrink(picture(2, 400), 72)[1:] == (1, 72)
    grey = io.BytesIO()
    Image.new("L", (100, 100)).save(grey, "JPEG")
    assert shrink(grey.getvalue(), 72)[1:] == (72, 72)


def test_everything_is_escaped(tmp_path):
    nasty = "</script><script>alert('1')</script> & \"x\""
    page = write(
        tmp_path,
        [film_page([0, 1, 0], [0.1, 0.9, 0.1], nasty)],
        metrics={nasty: 1.0},
        curves={nasty: [(0, 1.0), (1, 2.0)]},
        title=nasty,
        comparison=[{"name": nasty, nasty: nasty}],
        notes=[nasty],
    )
    assert [a.get("class") for a in page.of("script")] == ["film-data", "images", None]  # a film, and our own script
    assert page.films()[0]["name"] == nasty
    assert page.text("h1") == page.text("title") == [nasty]
    assert sum(text == nasty for _, text in page.texts) == 9


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    page = write(
        tmp_path, metrics=scene_metrics([FILM.scores]), curves={"loss": [(0, 2.0), (9, 1.0)]}, notes=["https://x.org"]
    )
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object"}
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,")), (tag, attributes)
    (policy,) = [a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    style = page.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["href"][1:] for _, a in page.tags if "href" in a} <= ids


def test_films_are_sorted_by_ap(tmp_path):
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


def test_precision_recall_of_every_threshold(tmp_path):
    (figure,) = [a for a in write(tmp_path).of("figure") if a.get("id") == "pr"]
    curve = json.loads(figure["data-curve"])
    assert [row for row in curve if row[0] == 0.8] == [[0.8, 0.5, 0.5]]
    unknown = film_page([-1, -1], [0.1, 0.9])
    assert not any(a.get("id") == "pr" for a in write(tmp_path, [unknown]).of("figure"))


def test_training_curves(tmp_path):
    long = [(i, float(np.sin(i / 1e4))) for i in range(100_000)]
    curves = {"loss": long, "flat": [(0, 0.0), (5, 0.0)], "one": [(3, 2.0)], "nan": [(0, float("nan"))], "none": []}
    page = write(tmp_path, [], curves=curves)
    labels = [a["aria-label"] for a in page.of("svg") if a.get("role") == "img"]
    assert labels == ["loss against step", "flat against step", "one against step"]
    assert len(page.html) < 40_000  # points closer than half a pixel are left out
    assert "nan" not in page.html.split("</style>")[1].lower()


def test_a_page_with_next_to_nothing_on_it(tmp_path):
    page = write(tmp_path, [])
    assert page.text("h2") == []
    assert page.text("p") == ["0 films · 0 shots · 0 predicted at threshold 0.50"]


def test_unknown_times_and_own_numbers(tmp_path):
    unknown = np.full(2, -1)
    page = FilmPage("tt1", [picture()] * 2, FilmScores("tt1", [0.1, 0.2], [0, 0], unknown, unknown))
    assert write(tmp_path, [page]).films()[0]["start"] == pytest.approx([-1 / 24, -1 / 24])
    page.shot_numbers, page.seconds = np.array([7, 9]), np.array([[0, 1.5], [1.5, 2]])
    (film,) = write(tmp_path, [page]).films()
    assert (film["number"], film["start"], film["end"]) == ([7, 9], [0, 1.5], [1.5, 2])


def test_errors_name_film_and_shot(tmp_path):
    short = film_page([0, 1, 0], [0.1, 0.9, 0.1])
    short.thumbnails = short.thumbnails[:2]
    with pytest.raises(FeatureError, match="tt0000001: 2 thumbnails and 3 numbers for 3"):
        write(tmp_path, [short])
    for bad in (b"", b"not an image", picture()[:2000]):
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


# In a browser


@pytest.fixture(scope="module")
def browser():
    with open_browser(network=True) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, tmp_path) -> Browser:
    """The report of one film of three key-frames a shot."""
    film = FilmPage("tt0000001", FILM.thumbnails * 3, FILM.scores)
    write_report(tmp_path / "report.html", "Report", [film], scene_metrics([FILM.scores]), 0.5, {})
    browser.open(tmp_path / "report.html")
    yield browser
    assert browser.complaints() == []
    assert [address for address in browser.requests() if not address.startswith("file:")] == []


def scenes_of(page: Browser) -> list[int]:
    return [int(number) for number in page.attributes(".shot", "data-scene")]


def test_marks_and_scenes_are_those_of_the_data(page: Browser):
    assert page.attributes(".shot", "data-shot") == list("01234567")
    assert page.attributes(".shot", "data-mark") == ["", "hit", "", "miss", "false-alarm", "", "predicted", ""]
    assert scenes_of(page) == [1, 1, 2, 2, 2, 3, 3, 4]
    assert [name for name in page.texts(".name") if name] == [f"scene {i}" for i in (1, 2, 3, 4)]
    assert page.texts(".caption time") == [f"00:0{i}:00:00" for i in range(8)]
    assert page.attributes(".frame use", "href") == ["#hit", "#miss", "#false-alarm", "#predicted"]
    assert page.attributes(".shot", "title")[3] == "shot 3, 00:03:00:00, probability 0.30, miss: true, not predicted"
    legend = {"hit: true and predicted (1)", "miss: true, not predicted (1)", "false alarm: predicted, not true (1)"}
    assert legend < set(page.texts(".legend li"))
    assert page.attributes(".overview .scenes", "data-scenes") == ["3", "4"]  # true, predicted
    assert "2 true boundaries: 1 found, 1 missed, 1 false alarm · precision 50" in page.one(".facts").text


@pytest.mark.parametrize("threshold", [0.05, 0.25, 0.6, 0.61, 1.0])
def test_the_slider_regroups_the_scenes(page: Browser, threshold):
    page.slide("#threshold", threshold)
    predicted = FILM.scores.predicted(threshold)
    assert scenes_of(page) == np.concatenate([[1], 1 + np.cumsum(predicted[:-1])]).tolist()
    wanted = {(1, True): "hit", (1, False): "miss", (0, True): "false-alarm", (-1, True): "predicted"}
    pairs = zip(FILM.scores.boundary.tolist(), predicted.tolist(), strict=True)
    assert page.attributes(".shot", "data-mark") == [wanted.get(pair, "") for pair in pairs]
    assert page.one("#threshold-value").text == f"{threshold:.2f}"
    metrics, said = scene_metrics([FILM.scores], threshold), page.one("#pr figcaption").text
    assert f"recall {metrics['recall'] / 100:.2f}" in said or "nothing is predicted" in said
    page.one("#reset").click()
    assert scenes_of(page) == [1, 1, 2, 2, 2, 3, 3, 4]


def test_a_click_shows_three_key_frames_and_the_time(page: Browser):
    assert not page.one("#detail").is_displayed()
    page.all(".shot")[4].click()
    assert page.one("#detail-title").text == "Shot 4, scene 2"
    assert "00:04:00:00 – 00:05:00:00 · 60.0 s · probability 0.800" in page.one("#detail-facts").text
    assert "false alarm" in page.one("#detail-facts").text
    assert page.attributes("#detail img", "src") == page.driver.execute_script(
        "return [0, 1, 2].map((k) => films[0].picture(4, k))"
    )
    page.one("#detail-after").click()
    assert page.one("#detail-title").text == "Shot 5, scene 3"
    page.press("ESCAPE")
    assert not page.one("#detail").is_displayed()


def test_everything_goes_by_key(page: Browser):
    def chosen() -> str:
        return page.one('.shot[aria-selected="true"]').get_attribute("data-shot")

    page.press("ARROW_RIGHT", "ARROW_RIGHT")
    assert chosen() == "2"
    page.press("ENTER")
    assert page.one("#detail-title").text == "Shot 2, scene 2"
    steps = (("PAGE_DOWN", "5"), ("PAGE_DOWN", "7"), ("PAGE_DOWN", "7"), ("PAGE_UP", "5"), ("ARROW_LEFT", "4"))
    for key, shot in (*steps, ("PAGE_UP", "2"), ("PAGE_UP", "0"), ("PAGE_UP", "0"), ("END", "7"), ("HOME", "0")):
        page.press(key)
        assert chosen() == shot, key
    page.press("]", "]")
    assert page.one("#threshold-value").text == "0.52"
    page.press("0", "[")
    assert page.one("#threshold-value").text == "0.49"
    assert page.attributes(".shot", "data-mark")[-1] == "false-alarm"  # just below 0.5
    assert scenes_of(page)[-1] == 4
    wide = page.all(".shot")[0].size["width"]
    page.press("+", "+", "+", "+")
    assert page.all(".shot")[0].size["width"] > wide


@pytest.mark.parametrize("width", [400, 900, 1600])
def test_nothing_is_wider_than_the_window(page: Browser, width):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    page.all(".shot")[1].click()
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_scenes_of_a_least_length_regroup_as_in_python(browser: Browser, tmp_path):
    rng = np.random.default_rng(0)
    seconds = np.concatenate([[0], np.cumsum(rng.uniform(1, 20, 40))])
    unknown = np.full(40, -1)
    scores = FilmScores("f", rng.uniform(0, 1, 40).round(1), unknown, unknown, unknown)
    film = FilmPage("f", [picture()] * 40, scores, seconds=np.stack([seconds[:-1], seconds[1:]], 1), shortest=25.0)
    film.ends = choose_ends(scores.probability, seconds[1:], 0.5, shortest=25.0)
    write_report(tmp_path / "report.html", "f", [film], {}, 0.5, {})
    browser.open(tmp_path / "report.html")
    for threshold in (None, 0.05, 0.3, 0.5, 0.9):
        if threshold is not None:
            browser.slide("#threshold", threshold)
        ends = choose_ends(scores.probability, seconds[1:], threshold or 0.5, shortest=25.0)
        scenes = np.array(scenes_of(browser))
        assert np.flatnonzero(np.diff(scenes)).tolist() == ends
    assert browser.complaints() == []


def test_a_film_without_times_is_drawn_by_number(browser: Browser, tmp_path):
    unknown = np.full(3, -1)
    film = FilmPage("f", [picture()] * 3, FilmScores("f", [0.1, 0.9, 0.2], unknown, unknown, unknown))
    write_report(tmp_path / "report.html", "f", [film], {}, 0.5, {})
    browser.open(tmp_path / "report.html")
    assert browser.all("time") == []
    browser.all(".shot")[2].click()
    assert browser.one("#detail-facts").text == "probability 0.200"
    assert browser.complaints() == []


def test_paper_shows_the_films_and_no_controls(page: Browser):
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not page.one(".toolbar").is_displayed()
    assert page.one(".strip").is_displayed()
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_dark_where_the_system_is_dark(page: Browser):
    colours = []
    for scheme in ("light", "dark"):
        page.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        colours.append(page.one("body").value_of_css_property("background-color"))
    assert colours == ["rgba(255, 255, 255, 1)", "rgba(21, 23, 26, 1)"]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
