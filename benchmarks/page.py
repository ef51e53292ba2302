"""The page of a film: seconds until it is open in chromium, and until an edit is on the screen.

The film has as many shots as a long one, of noise and gradients, three key-frames each; its scenes are made up. The
page is opened from a file in a new browser each time. It is open when its script has run and two frames were painted.
An edit (a boundary set or removed in the middle, by a click) shows when the frame after it was painted. Medians.

    python -m benchmarks.page --out benchmarks/results/page.json
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from bassl_fast.report.page import write_report
from bassl_fast.scenes import exports
from bassl_fast.scenes.film import FilmScenes, SceneShot
from bassl_fast.scenes.page import film_page
from benchmarks.machine import machine
from shard_tools.video.timing import Timing
from tests.browser import open_browser

PAINTED = "requestAnimationFrame(() => requestAnimationFrame(() => %s))"
EDIT = """
const done = arguments[0], film = films[0], i = Math.floor(film.count / 2);
show(film, i, false);
const click = () => {
  const edge = film.shots.get(i).querySelector(".edge"), started = performance.now();
  edge.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true, button: 0 }));
  document.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  const script = performance.now() - started;
  const channel = new MessageChannel();  // its message comes after the frame
  requestAnimationFrame(() => {
    channel.port1.onmessage = () => done([script, performance.now() - started]);
    channel.port2.postMessage(0);
  });
};
requestAnimationFrame(() => requestAnimationFrame(click));
"""


def make_film(shots: int) -> FilmScenes:
    """A film of so many shots, whose key-frames are a few hundred different ones of 240 lines."""
    rng = np.random.default_rng(0)
    keyframes = [_image(rng) for _ in range(min(300, 3 * shots))]
    probability = rng.beta(0.5, 4, shots)
    rows = [
        SceneShot(
            i,
            4.0 * i,
            4.0 * (i + 1),
            96 * i,
            96 * i + 95,
            float(p),
            [keyframes[(3 * i + k) % len(keyframes)] for k in range(3)],
        )
        for i, p in enumerate(probability)
    ]
    film = FilmScenes("film", "film.mp4", Timing(Fraction(24)), tuple(rows), (), 1.0, "", 0.0, "made up")
    return film.regrouped(0.3, "given")


def _image(rng: np.random.Generator) -> bytes:
    rough = Image.fromarray(rng.integers(0, 256, (9, 16, 3), np.uint8)).resize((426, 240), Image.Resampling.BICUBIC)
    pixels = np.asarray(rough) + rng.normal(0, 6, (240, 426, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def measure(page: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round."""
    found: dict[str, list[float]] = {"open": [], "edit": [], "edit_script": []}
    for _ in range(rounds):
        with open_browser() as browser:
            browser.driver.get("about:blank")
            started = time.perf_counter()
            browser.open(page)
            browser.driver.execute_async_script(PAINTED % "arguments[0]()")
            found["open"].append(time.perf_counter() - started)
            for _ in range(4):
                script, painted = browser.driver.execute_async_script(EDIT)
                found["edit_script"].append(script / 1000)
                found["edit"].append(painted / 1000)
            assert browser.complaints() == []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bassl-fast-page-") as scratch:
        page, film = Path(scratch) / "report.html", make_film(args.shots)
        started = time.perf_counter()
        drawn = film_page(film, exports.scenes_json(film, {}, {"split": False}), page.parent)
        write_report(page, film.name, [drawn], {}, film.threshold, {})
        found = {"write": [time.perf_counter() - started], **measure(page, args.rounds)}
        megabytes = page.stat().st_size / 1e6
    seconds = {name: median(values) for name, values in found.items()}
    print(f"{args.shots} shots, {len(film.scenes)} scenes, {megabytes:.0f} MB, written in {seconds['write']:.0f} s")
    print(f"open in {seconds['open']:.2f} s, at most {max(found['open']):.2f} s")
    print(f"an edit shows in {1000 * seconds['edit']:.0f} ms, at most {1000 * max(found['edit']):.0f} ms")
    if args.out:
        settings = {"shots": args.shots, "rounds": args.rounds}
        report = {"benchmark": "page", "settings": settings, "machine": machine(), "megabytes": megabytes}
        report |= {"seconds": seconds, "worst": {name: max(values) for name, values in found.items()}}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
