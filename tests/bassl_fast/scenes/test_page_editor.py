"""The page of a film, used in a browser: edits, what is kept of them, the files it saves, the player."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Keys

from bassl_fast import cli
from bassl_fast.report.page import write_report
from bassl_fast.scenes import exports
from bassl_fast.scenes.corrections import correct, read_corrections
from bassl_fast.scenes.film import FilmScenes
from bassl_fast.scenes.page import film_page
from shard_tools.video.timing import Timing
from tests.browser import Browser, open_browser
from tests.films import picture

from .test_film import film

pytestmark = pytest.mark.slow

HOSTILE = 'A "b", c = d; e # \\ f <i>&amp;</i> | é中文 🎬'
ASKED = {"split": False, "threshold": 0.5}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


def found(rate: Fraction = Fraction(25), shots: int = 12, **changes) -> FilmScenes:
    rng = np.random.default_rng(0)
    probability, seconds = rng.uniform(0, 0.45, shots), rng.uniform(0.1, 400, shots)
    probability[[1, 8]], seconds[-1] = (0.9, 0.7), 0.003  # the last shot is shorter than a frame
    made = film(probability.tolist(), seconds.tolist(), rate)
    keyframes = [tuple(picture((3 * i + k) % 64, (96, 54)) for k in range(3)) for i in range(shots)]
    made = replace(made, shots=tuple(replace(shot, keyframes=k) for shot, k in zip(made.shots, keyframes, strict=True)))
    return replace(made.regrouped(0.5, "given"), **changes)


def write(folder: Path, made: FilmScenes) -> Path:
    document = exports.scenes_json(made, {"baseline": "colour change"}, ASKED)
    write_report(folder / "report.html", made.name, [film_page(made, document, folder)], {}, made.threshold, {})
    return folder / "report.html"


@pytest.fixture
def forgetful(browser: Browser) -> Iterator[Browser]:
    """A browser in which a test leaves nothing behind."""
    yield browser
    browser.driver.execute_script("localStorage.clear()")
    assert [line for line in browser.complaints() if "film.mp4" not in line] == []


@pytest.fixture
def page(forgetful: Browser, tmp_path: Path) -> Browser:
    forgetful.open(write(tmp_path, found()))
    return forgetful


def ends(browser: Browser) -> list[int]:
    return browser.driver.execute_script("return [...films[0].isEnd.keys()].filter((i) => films[0].isEnd[i])")


def marks(browser: Browser) -> list[str]:
    return browser.attributes(".shot", "data-mark")


def names(browser: Browser) -> list[str]:
    return [name for name in browser.texts(".name") if name]


def edge(browser: Browser, shot: int):
    return browser.all(".shot")[shot].find_element("css selector", ".edge")


FOUND, FREE = [1, 8], 5  # shots that end a scene, one that does not


def test_a_click_between_shots_sets_and_removes_a_boundary(page: Browser):
    assert ends(page) == FOUND
    edge(page, FREE).click()
    assert ends(page) == sorted([*FOUND, FREE])
    assert marks(page)[FREE] == "set"
    assert page.one("#edits").text == "1 edit"
    edge(page, FOUND[0]).click()
    assert ends(page) == sorted([*FOUND[1:], FREE])
    assert marks(page)[FOUND[0]] == "removed"
    assert {"set by hand (1)", "removed by hand (1)"} < set(page.texts(".legend li"))
    edge(page, FREE).click()  # as it was found: no edit any more
    assert page.one("#edits").text == "1 edit"
    assert marks(page)[FREE] == ""


def test_what_is_edited_holds_at_any_threshold(page: Browser):
    edge(page, FREE).click()
    edge(page, FOUND[0]).click()
    page.slide("#threshold", 1)
    assert ends(page) == [FREE]
    page.slide("#threshold", 0)
    assert ends(page) == [i for i in range(11) if i != FOUND[0]]
    page.one("#reset").click()
    assert ends(page) == sorted([*FOUND[1:], FREE])


def test_undo_and_redo(page: Browser):
    def press(key: str, *held: str) -> None:
        keys = ActionChains(page.driver)
        for one in (Keys.CONTROL, *held):
            keys.key_down(one)
        keys.send_keys(key)
        for one in (Keys.CONTROL, *held):
            keys.key_up(one)
        keys.perform()

    edge(page, FREE).click()
    edge(page, FOUND[0]).click()
    page.one("#undo").click()
    assert ends(page) == sorted([*FOUND, FREE])
    press("z")
    assert ends(page) == FOUND
    assert not page.one("#undo").is_enabled()
    press("z", Keys.SHIFT)
    assert ends(page) == sorted([*FOUND, FREE])
    page.one("#redo").click()
    assert ends(page) == sorted([*FOUND[1:], FREE])
    assert not page.one("#redo").is_enabled()
    page.one("#undo").click()
    edge(page, FREE).click()
    assert not page.one("#redo").is_enabled()  # another edit took its place


def test_keys_split_merge_and_move(page: Browser):
    page.driver.execute_script("show(films[0], arguments[0], false)", FREE)
    page.press("s")
    assert ends(page) == sorted([*FOUND, FREE - 1])
    page.press("s", "b")
    assert ends(page) == sorted([*FOUND, FREE])
    page.press("m")
    assert ends(page) == FOUND
    page.press("b")
    ActionChains(page.driver).key_down(Keys.ALT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.ALT).perform()
    assert ends(page) == sorted([*FOUND, FREE + 1])
    assert page.driver.current_url.startswith("file:")  # not a page back


def test_a_boundary_is_dragged_with_the_name_of_its_scene(page: Browser):
    edge(page, FREE).click()
    page.driver.execute_script("films[0].editor.write('names', arguments[0], 'Named')", FREE + 1)
    target = page.all(".shot")[FREE - 1]
    drag = ActionChains(page.driver).click_and_hold(edge(page, FREE)).move_by_offset(-10, 0)
    drag.move_to_element_with_offset(target, 30, 0).release().perform()
    assert ends(page) == sorted([*FOUND, FREE - 1])
    assert page.all(".shot")[FREE].find_element("css selector", ".name").text.endswith("Named")
    page.one("#undo").click()
    assert ends(page) == sorted([*FOUND, FREE])
    first = ActionChains(page.driver).click_and_hold(edge(page, FREE)).move_by_offset(-10, 0)
    first.move_to_element_with_offset(page.all(".shot")[0], -30, 0).release().perform()
    assert ends(page) == [1, 2, 8]  # no further than the boundary before


def test_scenes_are_named_and_noted(page: Browser):
    page.all(".shot")[0].click()
    page.press("n")
    field = page.one("#scene-name")
    assert page.driver.switch_to.active_element == field
    field.send_keys("At the bar ")
    assert names(page)[0] == "1 At the bar"
    field.send_keys("m, b and s", Keys.ENTER)
    assert names(page)[0] == "1 At the bar m, b and s"
    page.one("#scene-note").send_keys("first\nsecond")
    assert ends(page) == FOUND  # letters in a field are no keys of the editor
    assert "✎" in names(page)[0]
    assert page.one("#edits").text == "2 edits"
    page.one("#undo").click()
    page.one("#undo").click()
    assert names(page)[0] == "scene 1"
    assert field.get_attribute("value") == ""


def test_joined_scenes_keep_name_and_notes(page: Browser):
    page.driver.execute_script(
        "const e = films[0].editor; e.write('names', arguments[0], 'N'); e.write('notes', 0, 'a');"
        "e.write('notes', arguments[0], 'b');"
        "e.toggle(arguments[0] - 1)",
        FOUND[0] + 1,
    )
    rows = page.driver.execute_script("return scenesOf(films[0])")
    assert (rows[0]["name"], rows[0]["note"]) == ("N", "a\nb")


def test_edits_survive_a_reload_and_can_be_reset(page: Browser):
    edge(page, FREE).click()
    page.driver.execute_script("films[0].editor.write('names', 0, arguments[0])", HOSTILE)
    page.slide("#threshold", 0.123456)
    after = ends(page)
    page.driver.refresh()
    assert ends(page) == after
    assert names(page)[0] == f"1 {HOSTILE}"
    assert page.one("#threshold-value").text == "0.12"
    page.one("#reset-edits").click()
    page.driver.switch_to.alert.dismiss()
    assert page.one("#edits").text == "2 edits"
    page.one("#reset-edits").click()
    page.driver.switch_to.alert.accept()
    page.one("#reset").click()
    assert ends(page) == FOUND
    assert page.driver.execute_script("return localStorage.length") == 0
    page.driver.refresh()
    assert (ends(page), names(page)[0]) == (FOUND, "scene 1")


def test_another_film_has_its_own_edits(page: Browser, tmp_path: Path):
    edge(page, FREE).click()
    page.open(write(tmp_path, found(shots=13)))
    assert page.one("#edits").text == ""


def test_edits_from_before_the_page_was_written_again_are_offered(page: Browser, tmp_path: Path):
    edge(page, FREE).click()
    page.driver.execute_script("films[0].editor.write('names', 0, 'Old')")
    made = found()
    once = replace(made, ends=tuple(sorted([*FOUND, FREE])), corrected=frozenset([FREE]), names={0: "Old"})
    page.open(write(tmp_path, once))
    assert not page.one("#older").is_displayed()  # it has them all
    page.open(write(tmp_path, replace(once, names={0: "New"})))
    assert names(page)[0] == "1 New"
    page.one("#older-use").click()
    assert names(page)[0] == "1 Old"
    assert not page.one("#older").is_displayed()
    page.one("#undo").click()
    assert names(page)[0] == "1 New"


@pytest.mark.parametrize(
    "kept", ["{", "3", '{"pins": 1}', '{"pins": [[99, true], [1, "x"]], "names": [[0, 3]], "notes": []}']
)
def test_storage_of_another_version_is_ignored(page: Browser, kept: str):
    page.driver.execute_script("localStorage.setItem(films[0].editor.store, arguments[0])", kept)
    page.driver.refresh()
    assert (ends(page), names(page)[0]) == (FOUND, "scene 1")


def test_a_browser_that_stores_nothing(browser: Browser, tmp_path: Path):
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied'); } })"
    script = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    try:
        browser.open(write(tmp_path, found()))
        edge(browser, FREE).click()
        assert ends(browser) == sorted([*FOUND, FREE])
        assert browser.one("#edits").text == "1 edit, not kept by this browser: save them"
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert [line for line in browser.complaints() if "film.mp4" not in line] == []


def edit(browser: Browser) -> None:
    """Two boundaries edited, names and notes that files must escape."""
    browser.driver.execute_script(
        "const e = films[0].editor; e.toggle(arguments[0]); e.toggle(arguments[1]); e.toggle(10);"
        "e.write('names', 0, arguments[2]); e.write('notes', 0, arguments[3]);"
        "e.write('names', 11, '=1+1'); e.write('notes', arguments[0], ', ');",
        FREE,
        FOUND[0],
        f" {HOSTILE}\n",
        f'{HOSTILE}\r\n"second", line\n',
    )


def saved(browser: Browser) -> dict[str, str]:
    return browser.driver.execute_script(
        "return Object.fromEntries(Object.keys(SAVES).map((name) => [name, textOf(films[0], name)]))"
    )


TIMINGS = [
    Timing(Fraction(25)),
    Timing(Fraction(30000, 1001), drop=True, begin=2.033).starting_at("10:00:00;00"),
    Timing(Fraction(24000, 1001), begin=0.0214).starting_at("01:00:00:00"),
    Timing(Fraction(60)),
]


@pytest.mark.parametrize("timing", TIMINGS, ids=lambda timing: f"{float(timing.rate):.5g}")
@pytest.mark.parametrize("threshold", [None, 0, 1, 0.12345], ids=str)
def test_files_of_the_page_are_those_of_python(
    forgetful: Browser, tmp_path: Path, timing: Timing, threshold: float | None
):
    made = found(timing.rate, timing=timing)
    forgetful.open(write(tmp_path, made))
    edit(forgetful)
    if threshold is not None:
        forgetful.slide("#threshold", threshold)
    files = saved(forgetful)
    (tmp_path / "corrected.json").write_text(files["corrected.json"], encoding="utf-8")
    document = read_corrections(tmp_path / "corrected.json")
    after = correct(made, document)
    assert after.names[0] == HOSTILE
    assert after.threshold == (made.threshold if threshold is None else round(threshold, 4))
    wanted = exports.texts(after) | {"corrected.json": exports.scenes_json(after, {"baseline": "colour change"}, ASKED)}
    assert files == {name: wanted[name] for name in files}
    assert len(files) == 8
    forgetful.open(write(tmp_path, after))  # and the next page has what was corrected
    assert saved(forgetful) == files


def test_the_button_saves_the_bytes_that_the_command_writes(browser: Browser, film_file: Path, tmp_path: Path):
    shutil.copy(film_file, tmp_path / "film.mp4")
    argv = ["scenes", str(tmp_path / "film.mp4"), "--out", str(tmp_path / "out")]
    assert cli.main([*argv, "--baseline", "--threshold", "0.4"]) == 0
    folder = tmp_path / "out" / "film"
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    browser.open(folder / "report.html")
    browser.driver.execute_script("localStorage.clear()")
    browser.all(".shot")[2].click()
    browser.press("s")
    browser.one("#scene-name").send_keys(HOSTILE.replace("🎬", "!"))
    browser.one("#scene-note").send_keys('two\n"lines", = ;')
    browser.one("#save summary").click()
    buttons = browser.all("#saves button")
    for button in buttons:
        button.click()
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "saved").glob("film-*[!d]"))) < len(buttons) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "bassl-fast scenes film.mp4 --corrections film-corrected.json" in browser.one("#save").text
    assert cli.main([*argv, "--corrections", str(tmp_path / "saved" / "film-corrected.json")]) == 0
    for path in (tmp_path / "saved").iterdir():
        name = path.name.removeprefix("film-").replace("corrected.json", "scenes.json")
        assert path.read_bytes() == (folder / name).read_bytes(), name
    assert len(json.loads((folder / "scenes.json").read_text())["corrected"]) == 1
    browser.open(folder / "report.html")
    assert browser.one("#edits").text == "3 edits"
    browser.driver.execute_script("localStorage.clear()")


# The player


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds that every browser plays."""
    path = tmp_path_factory.mktemp("clip") / "a film é#%.webm"
    source = ["-f", "lavfi", "-i", "testsrc=s=160x90:r=25:d=4", "-c:v", "libvpx", "-g", "5"]
    subprocess.run(["ffmpeg", "-v", "error", *source, str(path)], check=True)
    return path


def player(browser: Browser, what: str):
    return browser.driver.execute_script(f"return films[0].editor.player.{what}")


def until(browser: Browser, what: str) -> None:
    deadline = time.monotonic() + 10
    while not player(browser, what):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("moved", [False, True])
def test_the_chosen_shot_is_played_to_its_end(browser: Browser, clip: Path, tmp_path: Path, moved: bool):
    """Also when page and film were moved together, or the page alone."""
    (tmp_path / "film" / "results").mkdir(parents=True)
    source = shutil.copy(clip, tmp_path / "film")
    made = replace(found(), source=str(source))
    lengths = [0.0, 1.0, 2.2, 3.0, 4.0]
    shots = [replace(made.shots[i], start=a, end=b) for i, (a, b) in enumerate(pairwise(lengths))]
    report = write(tmp_path / "film" / "results", replace(made, shots=tuple(shots), ends=(0,)))
    if moved:
        (tmp_path / "film").rename(tmp_path / "elsewhere")
        report = tmp_path / "elsewhere" / "results" / "report.html"
    browser.open(report)
    browser.all(".shot")[1].click()
    until(browser, "ready")
    assert player(browser, "video.paused")
    browser.press(" ")
    until(browser, "video.paused === false")
    until(browser, "video.paused")
    assert 2.1 < player(browser, "video.currentTime") < 2.2
    browser.press("ARROW_RIGHT")
    assert 2.2 < player(browser, "video.currentTime") < 2.24
    assert browser.one("#play").is_displayed()
    browser.press("ESCAPE")
    assert not browser.one("#detail").is_displayed()
    assert browser.complaints() == []


def test_a_film_that_the_browser_cannot_play(browser: Browser, film_file: Path, tmp_path: Path):
    for source in (film_file, tmp_path / "gone.mp4"):
        browser.open(write(tmp_path, replace(found(), source=str(source))))
        browser.all(".shot")[1].click()
        until(browser, "failed")
        assert f"{source.name} cannot be played here" in browser.one("#player-says").text
        assert not browser.one("#play").is_displayed()
        assert len(browser.all("#detail-pictures img")) == 3
        assert browser.all("video") == []
    browser.complaints()


def test_only_shots_near_the_window_are_in_the_page(browser: Browser, tmp_path: Path):
    browser.open(write(tmp_path, found(shots=1200)))
    assert len(browser.all(".shot")) < 400
    browser.press("END")
    assert browser.one('.shot[aria-selected="true"]').get_attribute("data-shot") == "1199"
    assert len(browser.all(".shot")) < 400
    chosen, height = (
        browser.one('.shot[aria-selected="true"]').rect,
        browser.driver.execute_script("return scrollY + innerHeight"),
    )
    assert chosen["y"] + chosen["height"] <= height
    browser.driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert len(browser.all(".shot")) == 1200
    browser.driver.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert len(browser.all(".shot")) < 400
    assert browser.complaints() == []
