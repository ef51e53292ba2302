"""Scores and scenes of films as one HTML file to look at: no script, no network, pictures inside.

    write_report(path, title, films, metrics, threshold, curves)

Each film is a strip of its key-frames in shot order, grouped in the predicted scenes, with the true boundaries and the
probability curve on it. Layout and colours stand in `report.css`; this file says what is on the page.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from PIL import Image

from shard_tools.errors import FeatureError, PictureError
from shard_tools.movienet import FPS

from .metrics import FilmScores, per_film, precision_recall

THUMBNAIL_HEIGHT = 72  # pixels
CURVE_HEIGHT = 40  # units of the viewBox of one shot's piece of the probability curve, which is 100 wide
PLOT = (320, 220)  # pixels
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
MARKS = {  # what happened at the end of a shot -> how the legend says it, and its symbol in a 12 x 12 box
    "hit": (
        "hit: true and predicted",
        '<circle cx="6" cy="6" r="5.2" class="disc"/><path d="M3.4 6.2 5.3 8 8.7 4.2"/>',
    ),
    "miss": ("miss: true, not predicted", '<circle cx="6" cy="6" r="4.3" class="ring"/>'),
    "false-alarm": ("false alarm: predicted, not true", '<path d="M2.2 2.2 9.8 9.8M9.8 2.2 2.2 9.8"/>'),
    "predicted": ("predicted, truth unknown", '<path d="M6 1 11 6 6 11 1 6Z" class="disc"/>'),
}


@dataclass
class FilmPage:
    """What the page shows of one film.

    Attributes:
        film: heading of its strip.
        thumbnails: JPEG bytes of the middle key-frame of each shot, any size; empty for a film that stands in the
            tables and in the curve but is not drawn (a strip costs about 3 KB a shot).
        scores: probability, truth and times of its `[S]` shots.
        shot_numbers: `[S]` numbers to print, if they are not 0..S-1.
    """

    film: str
    thumbnails: Sequence[bytes]
    scores: FilmScores
    shot_numbers: Sequence[int] | None = None

    def times(self) -> list[str]:
        """`[S]` start of each shot as hh:mm:ss, "" where unknown."""
        return [clock(frame / FPS) for frame in self.scores.start]


def write_report(
    path: Path,
    title: str,
    films: Sequence[FilmPage],
    metrics: Mapping[str, float],
    threshold: float,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    comparison: Sequence[Mapping[str, object]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the page to `path`, whole or not at all. What is empty or undefined is left off the page.

    Args:
        films: drawn in this order; the table of films puts the worst AP first.
        metrics: of `scene_metrics`, in percent; other keys are printed under their own name.
        threshold: a shot is a predicted boundary when its probability is at least this.
        curves: series of training, name -> (step, value) in order.
        comparison: a row each, the same keys in all: "name", then columns; a cell is a number, (mean, spread), or text.
        notes: paragraphs at the end, such as the attribution of the films.

    Raises:
        FeatureError: a film with another number of thumbnails, times or numbers than scores.
        PictureError: a thumbnail that is not a picture, named by film and shot.
    """
    sections = (
        _scores(films, metrics, threshold),
        _comparison(comparison or ()),
        _film_table(films, threshold),
        "".join(_film(page, index, threshold) for index, page in enumerate(films) if page.thumbnails),
        _training(curves),
        _section("Notes", "".join(f"<p>{escape(note)}</p>" for note in notes), "notes"),
    )
    css = resources.files("bassl_fast").joinpath("report.css").read_text(encoding="utf-8")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The page asks for nothing from anywhere, and a browser holds it to that.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n{_symbols()}"
        f"<header><h1>{escape(title)}</h1>{_summary(films, threshold)}</header>\n<main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main>\n</body>\n</html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def clock(seconds: float) -> str:
    """hh:mm:ss, rounded down; "" for a negative (unknown) time."""
    whole = math.floor(seconds)
    return "" if whole < 0 else f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def shrink(jpeg: bytes, height: int = THUMBNAIL_HEIGHT) -> tuple[bytes, int, int]:
    """A smaller JPEG at most `height` pixels high, with its width and height. Never enlarges."""
    with Image.open(io.BytesIO(jpeg)) as image:
        image.draft("RGB", (4 * height, 2 * height))  # lets the decoder skip pixels nobody will see
        image = image.convert("RGB")
    if image.height > height:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=70, optimize=True)
    return out.getvalue(), *image.size


def mark_of(label: int, predicted: bool) -> str:
    """Key of `MARKS` for the end of a shot with boundary `label` (1, 0, -1), "" where there is nothing to mark."""
    if label == 1:
        return "hit" if predicted else "miss"
    return "" if not predicted else "false-alarm" if label == 0 else "predicted"


# The sections of the page


def _section(heading: str, body: str, name: str) -> str:
    return f'<section id="{name}"><h2>{escape(heading)}</h2>{body}</section>' if body else ""


def _summary(films: Sequence[FilmPage], threshold: float) -> str:
    shots = sum(len(f.scores.boundary) for f in films)
    truth = sum(int((f.scores.boundary == 1).sum()) for f in films)
    predicted = sum(int(f.scores.predicted(threshold).sum()) for f in films)
    labelled = any(f.scores.labelled.any() for f in films)
    parts = [_count(len(films), "film"), _count(shots, "shot")]
    parts += [_count(truth, "true boundary", "true boundaries")] if labelled else []
    parts += [f"{predicted:,} predicted at threshold {threshold:.2f}"]
    return f"<p>{' · '.join(parts)}</p>"


def _scores(films: Sequence[FilmPage], metrics: Mapping[str, float], threshold: float) -> str:
    rows = []
    for key in [*(key for key in METRICS if key in metrics), *(key for key in metrics if key not in METRICS)]:
        name, meaning = METRICS.get(key, (key, ""))
        rows.append(f'<tr><th scope="row">{escape(name)} <small>{meaning}</small></th>{_cell(metrics[key])}</tr>')
    table = f'<table class="metrics"><tbody>{"".join(rows)}</tbody></table>' if rows else ""
    return _section("Scores, percent", table + _precision_recall([f.scores for f in films], threshold), "scores")


def _precision_recall(films: Sequence[FilmScores], threshold: float) -> str:
    if not any((f.boundary == 1).any() for f in films):
        return ""
    precision, recall, thresholds = precision_recall(films)
    at = int(np.searchsorted(thresholds, threshold))  # thresholds rise; past the last one nothing is predicted
    caption, dot = "Precision and recall over all shots", None
    if at < len(thresholds):
        dot = (float(recall[at]), float(precision[at]))
        caption += f"; the dot is threshold {threshold:.2f}: precision {dot[1]:.2f}, recall {dot[0]:.2f}"
    plot = _plot(list(zip(recall.tolist(), precision.tolist(), strict=True)), "recall", "precision", (0, 1), dot)
    return f'<figure class="plot" id="pr">{plot}<figcaption>{caption}</figcaption></figure>'


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


def _film(page: FilmPage, index: int, threshold: float) -> str:
    """The strip of one film: a group a predicted scene, a figure a shot."""
    scores = page.scores
    count = len(scores.boundary)
    times, numbers = page.times(), list(page.shot_numbers if page.shot_numbers is not None else range(count))
    for what, got in (("thumbnails", len(page.thumbnails)), ("start times", len(times)), ("numbers", len(numbers))):
        if got != count:
            raise FeatureError(f"{page.film}: {got} {what} for {count} scored shots; take them from the same shards")
    predicted = scores.predicted(threshold)
    marks = [mark_of(int(label), bool(is_end)) for label, is_end in zip(scores.boundary, predicted, strict=True)]
    pictures = [_picture(page, shot) for shot in range(count)]
    # Halfway to the neighbour the pieces of the curve meet.
    probability = scores.probability
    padded = np.concatenate([probability[:1], probability, probability[-1:]])
    halfway = (padded[1:] + padded[:-1]) / 2  # [S + 1]

    groups: list[list[str]] = []
    for shot in range(count):
        starts = shot == 0 or predicted[shot - 1]
        if starts:
            groups.append([])
        name = f'<span class="name">scene {len(groups)}</span>' if starts else ""
        said = f"shot {numbers[shot]}{', ' + times[shot] if times[shot] else ''}, probability {probability[shot]:.2f}"
        said += f", {MARKS[marks[shot]][0]}" if marks[shot] else ""
        groups[-1].append(
            f'<figure class="shot" data-shot="{numbers[shot]}" data-mark="{marks[shot]}" title="{escape(said)}">'
            f'{name}<div class="frame">{pictures[shot][0]}{_symbol(marks[shot])}</div>'
            f"{_curve_piece(halfway[shot], probability[shot], halfway[shot + 1], threshold)}"
            f"<figcaption><b>{numbers[shot]}</b> <time>{times[shot]}</time></figcaption></figure>"
        )
    scenes = "".join(
        f'<div class="scene" role="group" aria-label="predicted scene {i}">{"".join(shots)}</div>'
        for i, shots in enumerate(groups, 1)
    )
    width, height = pictures[0][1:] if pictures else (16, 9)
    facts = [_count(count, "shot"), _count(len(groups), "predicted scene")]
    if scores.labelled.any():
        facts.append(_count(int((scores.boundary == 1).sum()), "true boundary", "true boundaries"))
    return (
        f'<section class="film" id="film-{index}"><h2>{escape(page.film)}</h2><p>{" · ".join(facts)}</p>'
        f"{_legend(marks, threshold)}"
        f'<div class="strip" style="--aspect: {width} / {height}">{scenes}</div></section>'
    )


def _picture(page: FilmPage, shot: int) -> tuple[str, int, int]:
    try:
        jpeg, width, height = shrink(page.thumbnails[shot])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{page.film}: key-frame of shot {shot} is not a picture ({error}); run `bassl-fast verify` on them"
        ) from None
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="" loading="lazy" decoding="async">', width, height


def _curve_piece(left: float, middle: float, right: float, threshold: float) -> str:
    """The probability curve over one shot, from halfway to the shot before to halfway to the shot after."""
    start, peak, stop, level = (f"{CURVE_HEIGHT * (1 - value):.1f}" for value in (left, middle, right, threshold))
    dot = f'<path class="over" d="M50 {peak}h0"/>' if middle >= threshold else ""
    return (
        f'<svg class="curve" viewBox="0 0 100 {CURVE_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="area" d="M0 {CURVE_HEIGHT}V{start}L50 {peak}L100 {stop}V{CURVE_HEIGHT}Z"/>'
        f'<path class="threshold" d="M0 {level}H100"/>'
        f'<path class="line" d="M0 {start}L50 {peak}L100 {stop}"/>{dot}</svg>'
    )


def _legend(marks: Sequence[str], threshold: float) -> str:
    items = [f"<li>{_symbol(key)}{MARKS[key][0]} ({marks.count(key)})</li>" for key in MARKS if key in marks]
    items.append(
        '<li><svg class="key" viewBox="0 0 24 12" aria-hidden="true"><path class="threshold" d="M0 6H24"/></svg>'
        f"threshold {threshold:.2f} on the probability, 0 to 1</li>"
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _symbols() -> str:
    """The marks, drawn once; `_symbol` points to them."""
    symbols = "".join(f'<symbol id="{key}" viewBox="0 0 12 12">{shape}</symbol>' for key, (_, shape) in MARKS.items())
    return f'<svg class="symbols" aria-hidden="true">{symbols}</svg>\n'


def _symbol(mark: str) -> str:
    return f'<svg class="mark {mark}" aria-hidden="true"><use href="#{mark}"/></svg>' if mark else ""


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
    dot: tuple[float, float] | None = None,
) -> str:
    """A line through `points` (x, y) with labelled axes. `span`: both axes from .. to, else what the points cover."""
    width, height = PLOT
    left, right, top, bottom = 46, width - 10, 22, height - 36
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
    circle = f'<circle class="dot" cx="{x_of(dot[0]):.1f}" cy="{y_of(dot[1]):.1f}" r="4.5"/>' if dot else ""
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
