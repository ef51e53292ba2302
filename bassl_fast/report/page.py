"""Scenes of films, and scores where the truth is known, as one HTML file to look at: no network, pictures inside.

    write_report(path, title, films, metrics, threshold, curves)

Tables and plots are written here. The films are drawn by `report.js` from the data that `_film_data` puts on the page,
for they change with the threshold; layout and colours stand in `report.css`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from importlib import resources
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from PIL import Image

from bassl_fast.metrics.scenes import FilmScores, per_film, precision_recall
from shard_tools.annotations.movienet import FPS
from shard_tools.errors import FeatureError, PictureError

PICTURE_HEIGHTS = ((2000, 180), (4000, 120), (math.inf, 90))  # at most so many pictures on the page: height in pixels
PLOT = (320, 220)  # pixels
_BOX = (46, PLOT[0] - 10, 22, PLOT[1] - 36)  # left, right, top, bottom of what it plots
METRICS = {  # key of scene_metrics -> name, meaning
    "ap": ("AP", "average precision, all shots ranked together"),
    "mean_ap": ("mean AP", "average precision of each film, averaged"),
    "auc": ("AUC", "area under the ROC curve, all shots"),
    "f1": ("F1", "harmonic mean of precision and recall at the threshold"),
    "recall": ("recall", "true boundaries found, averaged over films"),
    "recall_at_3s": ("recall@3s", "found within 5 shots and 3 seconds"),
    "miou": ("mIoU", "overlap of true and predicted scenes in time"),
    "acc": ("accuracy", "shots labelled right"),
    "acc1": ("accuracy on boundaries", "boundary shots labelled right"),
    "acc0": ("accuracy elsewhere", "other shots labelled right"),
}
SYMBOLS = {  # what happened at the end of a shot, in a 12 x 12 box; `SAYS` in report.js says it in words
    "hit": '<circle cx="6" cy="6" r="5.2" class="disc"/><path d="M3.4 6.2 5.3 8 8.7 4.2"/>',
    "miss": '<circle cx="6" cy="6" r="4.3" class="ring"/>',
    "false-alarm": '<path d="M2.2 2.2 9.8 9.8M9.8 2.2 2.2 9.8"/>',
    "predicted": '<path d="M6 1 11 6 6 11 1 6Z" class="disc"/>',
}
KEYS = (
    ("← →", "shot before, after"),
    ("↑ ↓", "row before, after"),
    ("Page Up, Page Down", "scene before, after"),
    ("Home, End", "first, last shot"),
    ("Enter", "key-frames of the shot"),
    ("Esc", "close them"),
    ("+ -", "zoom"),
    ("[ ]", "threshold down, up"),
    ("0", "threshold as it was"),
)


@dataclass
class FilmPage:
    """What the page shows of one film.

    Attributes:
        film: heading of its strip.
        thumbnails: JPEG bytes of the key-frames of every shot in order, one or as many for each, any size; empty for a
            film that stands in the tables and in the curve but is not drawn.
        scores: probability, truth and times of its `[S]` shots.
        shot_numbers: `[S]` numbers to print, if they are not 0..S-1.
        seconds: `[S, 2]` start and end of each shot, if they are not those of `scores`.
        ends: shots that end a scene, if they are not all those of `threshold`.
        shortest: seconds that a scene lasts at least when the threshold is moved.
        rate: frames a second, for timecodes.
    """

    film: str
    thumbnails: Sequence[bytes]
    scores: FilmScores
    shot_numbers: Sequence[int] | None = None
    seconds: np.ndarray | None = None
    ends: Sequence[int] | None = None
    shortest: float = 0.0
    rate: Fraction = Fraction(FPS)


def write_report(
    path: Path,
    title: str,
    films: Sequence[FilmPage],
    metrics: Mapping[str, float],
    threshold: float,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    comparison: Sequence[Mapping[str, object]] | None = None,
    notes: Sequence[str] = (),
    subtitle: str = "",
) -> None:
    """Write the page to `path`, whole or not at all. What is empty or undefined is left off the page.

    Args:
        films: drawn in this order; the table of films puts the worst AP first.
        metrics: of `scene_metrics`, in percent; other keys are printed under their own name.
        threshold: a shot is a predicted boundary when its probability is at least this; where the page opens.
        curves: series of training, name -> (step, value) in order.
        comparison: a row each, the same keys in all: "name", then columns; a cell is a number, (mean, spread), or text.
        notes: paragraphs at the end, such as the attribution of the films.
        subtitle: what made the page; left out, it counts films, shots and boundaries.

    Raises:
        FeatureError: a film whose thumbnails or numbers do not go with its scores.
        PictureError: a thumbnail that is not a picture, named by film and shot.
    """
    drawn = [(index, page) for index, page in enumerate(films) if page.thumbnails]
    height = next(h for most, h in PICTURE_HEIGHTS if sum(len(page.thumbnails) for _, page in drawn) <= most)
    moves = drawn or any((page.scores.boundary == 1).any() for page in films)  # with the threshold
    sections = (
        _scores(films, metrics),
        _comparison(comparison or ()),
        _film_table(films, threshold),
        _toolbar(threshold) if moves else "",
        "".join(_film(page, index, title, threshold, height) for index, page in drawn),
        _training(curves),
        _section("Notes", "".join(f"<p>{escape(note)}</p>" for note in notes), "notes"),
    )
    script = _resource("report.js") if moves else ""
    # The page asks for nothing from anywhere and runs our script alone, and a browser holds it to that.
    ours = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{ours}'"
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_resource('report.css')}</style>\n</head>\n<body>\n{_symbols()}"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle) or _summary(films, threshold)}</p></header>\n<main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main>\n"
        + (f"{_DETAIL}<script>{script}</script>\n" if moves else "")
        + "</body>\n</html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def shrink(jpeg: bytes, height: int) -> tuple[bytes, int, int]:
    """A smaller JPEG at most `height` pixels high, with its width and height. Never enlarges."""
    with Image.open(io.BytesIO(jpeg)) as image:
        # Lets the decoder skip pixels nobody will see.
        image.draft("RGB", (max(1, round(image.width * height / image.height)), height))
        image = image.convert("RGB")
    if image.height > height:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=70, optimize=True)
    return out.getvalue(), *image.size


# The sections of the page


def _section(heading: str, body: str, name: str) -> str:
    return f'<section id="{name}"><h2>{escape(heading)}</h2>{body}</section>' if body else ""


def _summary(films: Sequence[FilmPage], threshold: float) -> str:
    parts = [_count(len(films), "film"), _count(sum(len(f.scores.boundary) for f in films), "shot")]
    if any(f.scores.labelled.any() for f in films):
        truth = sum(int((f.scores.boundary == 1).sum()) for f in films)
        parts.append(_count(truth, "true boundary", "true boundaries"))
    predicted = sum(int(f.scores.predicted(threshold).sum()) for f in films)
    parts.append(f"{predicted:,} predicted at threshold {threshold:.2f}")
    return " · ".join(parts)


def _scores(films: Sequence[FilmPage], metrics: Mapping[str, float]) -> str:
    rows = []
    for key in [*(key for key in METRICS if key in metrics), *(key for key in metrics if key not in METRICS)]:
        name, meaning = METRICS.get(key, (key, ""))
        rows.append(f'<tr><th scope="row">{escape(name)} <small>{meaning}</small></th>{_cell(metrics[key])}</tr>')
    table = f'<table class="metrics"><tbody>{"".join(rows)}</tbody></table>' if rows else ""
    return _section("Scores, percent", table + _precision_recall([f.scores for f in films]), "scores")


def _precision_recall(films: Sequence[FilmScores]) -> str:
    """The curve; its dot is moved to the threshold by the script."""
    if not any((f.boundary == 1).any() for f in films):
        return ""
    precision, recall, thresholds = precision_recall(films)
    plot = _plot(list(zip(recall.tolist(), precision.tolist(), strict=True)), "recall", "precision", (0, 1), dot=True)
    # A dot moved by half a pixel is the same dot: thresholds that share one are left out but for the highest.
    places = np.rint(2 * PLOT[0] * np.stack([precision, recall], 1)[:-1])
    kept = np.append((places[1:] != places[:-1]).any(1), True)
    rows = np.stack([thresholds, precision[:-1], recall[:-1]], 1)[kept].tolist()
    left, right, top, bottom = _BOX
    box = {"left": left, "right": right, "top": top, "bottom": bottom}
    return (
        f'<figure class="plot" id="pr" data-box="{escape(json.dumps(box))}" data-curve="{json.dumps(rows)}">{plot}'
        '<figcaption>Precision and recall over all shots<span class="at"></span></figcaption></figure>'
    )


def _comparison(rows: Sequence[Mapping[str, object]]) -> str:
    if not rows:
        return ""
    columns = [key for key in rows[0] if key != "name"]
    head = ["", *(METRICS[key][0] if key in METRICS else key for key in columns)]
    body = [[row["name"], *(row.get(key) for key in columns)] for row in rows]
    spread = any(isinstance(cell, tuple | list) for row in body for cell in row)
    note = "<p>Mean ± spread over runs.</p>" if spread else ""
    return _section("Comparison", note + _table(head, body), "comparison")


def _film_table(films: Sequence[FilmPage], threshold: float) -> str:
    labelled = [(i, f) for i, f in enumerate(films) if f.scores.labelled.any()]
    rows = per_film([f.scores for _, f in labelled], threshold)
    order = sorted(range(len(rows)), key=lambda i: rows[i].get("ap", math.inf))  # undefined last
    columns = ["shots", "boundaries", "predicted", "hits", "ap", "f1", "recall", "recall_at_3s", "miou"]
    columns = [key for key in columns if any(key in row for row in rows)]
    head = ["film", *("true" if key == "boundaries" else METRICS.get(key, (key,))[0] for key in columns)]
    body = [[labelled[i][1].film, *(rows[i].get(key) for key in columns)] for i in order]
    links = [f"#film-{labelled[i][0]}" if labelled[i][1].thumbnails else None for i in order]
    return _section("Films, worst first", _table(head, body, links) if rows else "", "films")


def _training(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    figures = []
    for name, series in curves.items():
        points = [(float(step), float(value)) for step, value in series if math.isfinite(value)]
        if points:
            last = f"last: {_number(points[-1][1])} at step {_number(points[-1][0])}"
            figures.append(
                f'<figure class="plot">{_plot(points, "step", name)}<figcaption>{last}</figcaption></figure>'
            )
    return _section("Training", f'<div class="multiples">{"".join(figures)}</div>' if figures else "", "training")


# One film


def _toolbar(threshold: float) -> str:
    keys = "".join(f"<dt>{key}</dt><dd>{meaning}</dd>" for key, meaning in KEYS)
    return (
        "<noscript><p>The films are drawn by a script of this page; allow it to run to see them.</p></noscript>"
        '<div class="toolbar" role="group" aria-label="view">'
        '<span class="control"><label for="threshold">threshold</label>'
        f'<input type="range" id="threshold" min="0" max="1" step="any" data-first="{threshold!r}">'
        '<output id="threshold-value" for="threshold"></output><button type="button" id="reset">reset</button></span>'
        '<span class="control"><label for="zoom">zoom</label>'
        '<input type="range" id="zoom" min="28" max="360" step="any"></span>'
        f"<details><summary>keys</summary><dl>{keys}</dl></details></div>"
    )


_DETAIL = (
    '<aside id="detail" aria-label="key-frames of the chosen shot" hidden><div id="detail-head">'
    '<h2 id="detail-title"></h2><p id="detail-facts"></p><span class="buttons">'
    '<button type="button" id="detail-before" aria-label="shot before">‹</button>'
    '<button type="button" id="detail-after" aria-label="shot after">›</button>'
    '<button type="button" id="detail-close" aria-label="close">✕</button></span></div>'
    '<div id="detail-pictures"></div></aside>\n'
)


def _film(page: FilmPage, index: int, title: str, threshold: float, height: int) -> str:
    """A film's heading, where the page's is not its own, and data; the script draws it."""
    heading = "" if page.film == title else f"<h2>{escape(page.film)}</h2>"
    # The only way out of a script element is its end tag.
    data = json.dumps(_film_data(page, threshold, height), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<section class="film" id="film-{index}">{heading}'
        f'<script type="application/json" class="film-data">{data}</script></section>'
    )


def _film_data(page: FilmPage, threshold: float, height: int) -> dict[str, object]:
    """What the script draws: arrays `[S]` (times in seconds, -1 unknown) and `pictures`, `per_shot` of each shot."""
    scores = page.scores
    count = len(scores.boundary)
    numbers = list(range(count)) if page.shot_numbers is None else [int(number) for number in page.shot_numbers]
    if len(numbers) != count or len(page.thumbnails) % count:
        raise FeatureError(
            f"{page.film}: {len(page.thumbnails)} thumbnails and {len(numbers)} numbers for {count} scored shots; "
            "take them from the same shards"
        )
    seconds = page.seconds
    if seconds is None:
        seconds = np.stack([scores.start, np.where(scores.end < 0, -1, scores.end + 1)], 1) / FPS
    ends = np.flatnonzero(scores.predicted(threshold)) if page.ends is None else page.ends
    per_shot = len(page.thumbnails) // count
    pictures = [_picture(page, i // per_shot, jpeg, height) for i, jpeg in enumerate(page.thumbnails)]
    _, width, tall = pictures[0]
    return {
        "name": page.film,
        "aspect": f"{width} / {tall}",
        "rate": float(page.rate),
        "shortest": page.shortest,
        "number": numbers,
        "start": seconds[:, 0].tolist(),
        "end": seconds[:, 1].tolist(),
        "probability": scores.probability.tolist(),
        "label": scores.boundary.tolist(),
        "ends": [int(end) for end in ends],
        "per_shot": per_shot,
        "pictures": [data for data, _, _ in pictures],
    }


def _picture(page: FilmPage, shot: int, jpeg: bytes, height: int) -> tuple[str, int, int]:
    try:
        small, width, tall = shrink(jpeg, height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{page.film}: key-frame of shot {shot} is not a picture ({error}); run `bassl-fast verify` on them"
        ) from None
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode('ascii')}", width, tall


def _resource(name: str) -> str:
    return resources.files("bassl_fast.report").joinpath(name).read_text(encoding="utf-8")


def _symbols() -> str:
    """The marks, drawn once; the script points to them."""
    symbols = "".join(f'<symbol id="{key}" viewBox="0 0 12 12">{shape}</symbol>' for key, shape in SYMBOLS.items())
    return f'<svg class="symbols" aria-hidden="true">{symbols}</svg>\n'


# Tables and plots


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _number(value: float) -> str:
    """Four digits, or all of a whole number below a million."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.4g}"


def _cell(value: object) -> str:
    """A table cell: a count, a percentage with two digits, (mean, spread), a text, or a dash for what is undefined."""
    if isinstance(value, tuple | list):
        mean, spread = value
        return f'<td class="number">{mean:.2f}<span class="spread"> ± {spread:.2f}</span></td>'
    if value is None or value != value:  # NaN
        return '<td class="number">–</td>'
    if isinstance(value, Integral):
        return f'<td class="number">{value:,}</td>'
    return f'<td class="number">{value:.2f}</td>' if isinstance(value, Real) else f"<td>{escape(str(value))}</td>"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], links: Sequence[str | None] = ()) -> str:
    """A table whose first column names the row, as a link where `links` has one."""
    body = []
    for i, (name, *cells) in enumerate(rows):
        label = escape(str(name))
        if i < len(links) and links[i]:
            label = f'<a href="{escape(links[i])}">{label}</a>'
        body.append(f'<tr><th scope="row">{label}</th>{"".join(map(_cell, cells))}</tr>')
    heads = "".join(f'<th scope="col">{escape(str(text))}</th>' for text in head)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _plot(
    points: Sequence[tuple[float, float]],
    x_label: str,
    y_label: str,
    span: tuple[float, float] | None = None,
    dot: bool = False,
) -> str:
    """A line through `points` (x, y) with labelled axes. `span`: both axes from .. to, else what the points cover."""
    width, height = PLOT
    left, right, top, bottom = _BOX
    (x0, x1), (y0, y1) = (span, span) if span else (_range(axis) for axis in zip(*points, strict=True))

    def x_of(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (right - left)

    def y_of(y: float) -> float:
        return bottom - (y - y0) / (y1 - y0) * (bottom - top)

    # Half a pixel is all one can see: points that round to the one before are left out.
    seen = [(round(2 * x_of(x)) / 2, round(2 * y_of(y)) / 2) for x, y in points]
    seen = [xy for i, xy in enumerate(seen) if i == 0 or xy != seen[i - 1]]
    line = "L".join(f"{x:g} {y:g}" for x, y in seen)
    grid, texts = "", ""
    for tick in _ticks(y0, y1):
        grid += f"M{left} {y_of(tick):.1f}H{right}"
        texts += f'<text x="{left - 6}" y="{y_of(tick) + 4:.1f}" class="end">{_number(tick)}</text>'
    for tick in _ticks(x0, x1):
        grid += f"M{x_of(tick):.1f} {bottom}v4"
        texts += f'<text x="{x_of(tick):.1f}" y="{bottom + 17}" class="middle">{_number(tick)}</text>'
    circle = '<circle class="dot" r="4.5" style="visibility: hidden"/>' if dot else ""
    if len(seen) == 1:
        circle = f'<circle class="dot" cx="{seen[0][0]:g}" cy="{seen[0][1]:g}" r="3"/>'
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(y_label)} against {escape(x_label)}">'
        f'<path class="grid" d="{grid}"/><path class="axis" d="M{left} {bottom}H{right}"/>{texts}'
        f'<text x="0" y="10" class="label">{escape(y_label)}</text>'
        f'<text x="{right}" y="{height - 2}" class="label end">{escape(x_label)}</text>'
        f'<path class="line" d="M{line}"/>{circle}</svg>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """What an axis covers: the values, and more where they are all the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """At most `count` + 1 round numbers (1, 2 or 5 times a power of ten apart) between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if step * m * count >= (high - low) * 0.999)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
