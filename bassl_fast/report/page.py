"""The report page: films, their scenes, and scores where the truth is known.

    write_report(path, title, films, metrics, threshold, curves)

Python prepares the data, `report.html.jinja` is the HTML, `report.css` the layout. Films are drawn by `report.js`, as
they change with the threshold. If a film has `FilmPage.editing`, people can change its scenes (`editor.js`), play its
shots (`player.js`) and save files (`saving.js`).
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from bassl_fast.metrics.scenes import FilmScores, precision_recall
from shard_tools.storage.atomic import whole_file

from .films import FilmPage, film_data, image_blocks, made_as, thumbnail_height
from .plots import HEIGHT, WIDTH, Plot, line_plot
from .tables import comparison_table, count, film_table, metrics_rows, number

SCRIPTS = ("report.js", "editor.js", "saving.js", "player.js")
Curve = Sequence[tuple[int, float]]  # (step, value) in order


def write_report(
    path: Path,
    title: str,
    films: Sequence[FilmPage],
    metrics: Mapping[str, float],
    threshold: float,
    curves: Mapping[str, Curve],
    comparison: Sequence[Mapping[str, object]] | None = None,
    notes: Sequence[str] = (),
    subtitle: str = "",
) -> None:
    """Write the page to `path` atomically. What is empty or undefined is left off the page.

    Args:
        films: drawn in this order; the table of films puts the lowest AP first.
        metrics: of `scene_metrics`, in percent; other keys are printed under their own name.
        threshold: a shot is a predicted boundary when its probability is at least this; where the page opens.
        curves: of training, by name.
        comparison: a row each, the same keys in all: "name", then columns; a cell is a number, (mean, spread), or text.
        notes: paragraphs at the end, such as the attribution of the films.
        subtitle: what made the page; left out, it counts films, shots and boundaries.

    Raises:
        FeatureError: a film whose thumbnails or numbers do not match its scores.
        PictureError: a thumbnail that is not an image; the message names film and shot.
    """
    drawn = [film for film in films if film.thumbnails]
    places = [f"film-{i}" if film.thumbnails else "" for i, film in enumerate(films)]
    height = thumbnail_height(drawn)
    interactive = bool(drawn) or any((film.scores.boundary == 1).any() for film in films)  # moves with the threshold
    editable = any(film.editing for film in drawn)
    script = _script(editable) if interactive else ""
    html = _template().stream(  # images are made, and written, one block after another
        title=title,
        subtitle=subtitle or _summary(films, threshold),
        css=_resource("report.css"),
        script=script,
        policy=_policy(script, editable),
        metrics=metrics_rows(metrics),
        precision_recall=_precision_recall([film.scores for film in films]),
        comparison=comparison_table(comparison or ()),
        film_table=film_table(
            ((f.scores, place and f"#{place}") for f, place in zip(films, places, strict=True)), threshold
        ),
        interactive=interactive,
        editable=editable,
        threshold=threshold,
        films=zip(filter(None, places), drawn, strict=True),
        data=lambda film: film_data(film, threshold, height),
        images=lambda film: image_blocks(film, height),
        made=made_as(height),
        training=_training(curves),
        notes=notes,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as tmp:
        html.dump(str(tmp), encoding="utf-8")


def earlier_blocks(path: Path, page: FilmPage) -> list[str] | None:
    """The images of a page of this film alone, if `write_report` would make the same ones of the same thumbnails.

    Making them takes a few ms an image. None if there is no such page, or another version wrote it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    begin = f'<script type="text/plain" class="images" data-made="{made_as(thumbnail_height([page]))}">'
    blocks = [piece.partition("</script>")[0] for piece in text.split(begin)[1:]]
    images = sum(block.count("\n") + 1 for block in blocks)
    return blocks if blocks and images == len(page.thumbnails) else None


@cache
def _template():
    loader = PackageLoader("bassl_fast.report", "")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.get_template("report.html.jinja")


def _resource(name: str) -> str:
    return resources.files("bassl_fast.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _script(editable: bool) -> str:
    return "".join(map(_resource, SCRIPTS if editable else SCRIPTS[:1])) + "start();\n"


def _policy(script: str, editable: bool) -> str:
    """Content security policy, which browsers enforce: only our script runs, only the film to play is loaded."""
    ours = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    media = "; media-src file: 'self'" if editable else ""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{ours}'{media}"


def _summary(films: Sequence[FilmPage], threshold: float) -> str:
    parts = [count(len(films), "film"), count(sum(len(f.scores.boundary) for f in films), "shot")]
    if any(f.scores.labelled.any() for f in films):
        truth = sum(int((f.scores.boundary == 1).sum()) for f in films)
        parts.append(count(truth, "true boundary", "true boundaries"))
    predicted = sum(int(f.scores.predicted(threshold).sum()) for f in films)
    parts.append(f"{predicted:,} predicted at threshold {threshold:.2f}")
    return " · ".join(parts)


def _precision_recall(films: Sequence[FilmScores]) -> dict[str, Any] | None:
    """The curve, and the points that its dot moves over; None without a true boundary."""
    if not any((f.boundary == 1).any() for f in films):
        return None
    precision, recall, thresholds = precision_recall(films)
    plot = line_plot(
        list(zip(recall.tolist(), precision.tolist(), strict=True)), "recall", "precision", (0, 1), dot=True
    )
    # Moving the dot by half a pixel is invisible: of thresholds with the same place the highest is kept.
    places = np.rint(2 * max(WIDTH, HEIGHT) * np.stack([precision, recall], 1)[:-1])
    kept = np.append((places[1:] != places[:-1]).any(1), True)
    rows = np.stack([thresholds, precision[:-1], recall[:-1]], 1)[kept].tolist()
    return {"plot": plot, "rows": rows}


def _training(curves: Mapping[str, Curve]) -> Iterable[tuple[Plot, str]]:
    """A plot of every curve with a finite value, and its last value in words."""
    for name, series in curves.items():
        points = [(float(step), float(value)) for step, value in series if math.isfinite(value)]
        if points:
            last = f"last: {number(points[-1][1])} at step {number(points[-1][0])}"
            yield line_plot(points, "step", name), last
