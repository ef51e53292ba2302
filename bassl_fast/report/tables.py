"""Tables of the page: numbers as the text of cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

from bassl_fast.metrics.scenes import FilmScores, per_film

METRICS = {  # key of scene_metrics -> name, meaning
    "ap": ("AP", "average precision, all shots ranked together"),
    "mean_ap": ("mean AP", "average precision of each film, averaged"),
    "auc": ("AUC", "area under the ROC curve, all shots"),
    "f1": ("F1", "harmonic mean of precision and recall at the threshold"),
    "recall": ("recall", "true boundaries found, averaged over films"),
    "recall_at_3s": ("recall@3s", "found within 5 shots and 3 seconds"),
    "miou": ("mIoU", "overlap of true and predicted scenes in time"),
    "acc": ("accuracy", "shots labelled correctly"),
    "acc1": ("accuracy on boundaries", "boundary shots labelled correctly"),
    "acc0": ("accuracy elsewhere", "other shots labelled correctly"),
    "coverage": ("coverage", "largest part of a true scene within one predicted scene"),
    "overflow": ("overflow", "how much of its neighbours is in the predicted scenes of a true one; 0 is best"),
    "f_co": ("F coverage, overflow", "harmonic mean of coverage and 1 - overflow"),
    "precision_near": ("precision nearby", "predicted boundaries within the tolerance of a true one"),
    "recall_near": ("recall nearby", "true boundaries within the tolerance of a predicted one"),
    "f1_near": ("F1 nearby", "harmonic mean of the two"),
    "ap_near": ("AP nearby", "average precision, where a boundary within the tolerance counts"),
}
_FILM_COLUMNS = ("shots", "boundaries", "predicted", "hits", "ap", "f1", "recall", "recall_at_3s", "miou")


class Cell(NamedTuple):
    text: str
    number: bool = True
    spread: str = ""


class Row(NamedTuple):
    """`link`: where the name points to, or ""."""

    name: str
    cells: list[Cell]
    link: str = ""


@dataclass(frozen=True)
class Table:
    head: list[str]
    rows: list[Row]


def cell(value: object) -> Cell:
    """A count, a percentage with two digits, (mean, spread), a text, or a dash for an undefined value."""
    if isinstance(value, tuple | list):
        mean, spread = value
        return Cell(f"{mean:.2f}", spread=f"{spread:.2f}")
    if value is None or value != value:  # NaN
        return Cell("–")
    if isinstance(value, Integral):
        return Cell(f"{value:,}")
    return Cell(f"{value:.2f}") if isinstance(value, Real) else Cell(str(value), number=False)


def number(value: float) -> str:
    """Four digits, or all digits of a whole number below a million."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.4g}"


def count(number: int, one: str, many: str = "") -> str:
    """A number of things in words, such as "2 films"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def metrics_rows(metrics: Mapping[str, float]) -> list[tuple[str, str, Cell]]:
    """Name, meaning and value of every score: ours in the order of `METRICS`, then others under their own name."""
    keys = [*(key for key in METRICS if key in metrics), *(key for key in metrics if key not in METRICS)]
    return [(*METRICS.get(key, (key, "")), cell(metrics[key])) for key in keys]


def comparison_table(rows: Sequence[Mapping[str, object]]) -> Table | None:
    """A row each, the same keys in all: "name", then columns."""
    if not rows:
        return None
    columns = [key for key in rows[0] if key != "name"]
    body = [Row(str(row["name"]), [cell(row.get(key)) for key in columns]) for row in rows]
    return Table(["", *map(_title, columns)], body)


def film_table(films: Iterable[tuple[FilmScores, str]], threshold: float) -> Table | None:
    """A row a labelled film, the lowest AP first. `films`: scores, and where the film is on the page, or ""."""
    labelled = [(scores, link) for scores, link in films if scores.labelled.any()]
    found = per_film([scores for scores, _ in labelled], threshold)
    columns = [key for key in _FILM_COLUMNS if any(key in row for row in found)]
    rows = [
        Row(str(row["film"]), [cell(row.get(key)) for key in columns], link)
        for row, (_, link) in sorted(zip(found, labelled, strict=True), key=lambda pair: pair[0].get("ap", math.inf))
    ]  # undefined last
    head = ["film", *("true" if key == "boundaries" else _title(key) for key in columns)]
    return Table(head, rows) if rows else None


def _title(key: str) -> str:
    return METRICS.get(key, (key,))[0]
