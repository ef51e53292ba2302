"""Plots of benchmarks that wrote JSON, as SVG.

python -m benchmarks.plots benchmarks/results/loader.json docs/loader.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = ("#2a5a9b", "#c4622d", "#3d8b57", "#8a4fa0", "#77706a")
# Text stays text, and equal figures give equal bytes.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bassl-fast",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the plot of a report, the JSON of `benchmarks.cost`, `loader`, `quality`, `scale` or `real_films`."""
    with matplotlib.rc_context(STYLE):
        PLOTS[report["benchmark"]](report).savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")


def loader(report: dict[str, Any]) -> Figure:
    """Views a second of every contestant: a bar to the median, a line from the slowest to the fastest round."""
    contestants = list(report["contestants"].values())
    names, rates = [one["name"] for one in contestants], [one["views_per_s"] for one in contestants]
    middle = [rate["median"] for rate in rates]
    errors = [
        [m - r["min"] for m, r in zip(middle, rates, strict=True)],
        [r["max"] - m for m, r in zip(middle, rates, strict=True)],
    ]
    figure = Figure(figsize=(6.4, 0.5 + 0.32 * len(names)))
    axes = figure.subplots()
    colours = [COLOURS[0] if name.startswith("ours") else "#9aa5b1" for name in names]
    axes.barh(names, middle, xerr=errors, color=colours, height=0.7)
    for i, one in enumerate(contestants):
        label = f"{middle[i]:.0f}, {one['ratio']['median']:.1f} x"
        axes.annotate(label, (rates[i]["max"], i), (6, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_title(
        f"views/s on {report['settings']['threads']} cores ({report['machine']['cpu']}), min to max round", fontsize=9
    )
    return figure


def quality(report: dict[str, Any]) -> Figure:
    """AP of every fine-tuning by row: a dot each, a colour for each set of films, a line at their mean."""
    rows = report["ap"]
    figure = Figure(figsize=(6.8, 0.6 + 0.34 * len(rows)))
    axes = figure.subplots()
    for y, draws in enumerate(rows.values()):
        for i, aps in enumerate(draws):
            at, colour = y + 0.18 * (i - (len(draws) - 1) / 2), COLOURS[i % len(COLOURS)]
            axes.plot(aps, [at] * len(aps), "o", color=colour, alpha=0.6, markersize=4, markeredgewidth=0)
            axes.plot(mean(aps), at, "|", color=colour, markersize=9, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="#ddd")
    axes.set_xlabel("average precision, percent")
    return figure


def scale(report: dict[str, Any]) -> Figure:
    """Figures of a loader over the number of films, relative to those with the fewest."""
    films = {int(count): figures for count, figures in report["films"].items()}
    counts = sorted(films)
    figure = Figure(figsize=(5, 3.2))
    axes = figure.subplots()
    for name, colour in zip(
        ("open_s", "first_batch_s", "windows_per_s", "memory_mb", "open_files"), COLOURS, strict=True
    ):
        values = [films[count][name] for count in counts]
        label = f"{name.replace('_', ' ')}: {values[0]:.3g} to {values[-1]:.3g}"
        axes.plot(counts, [value / values[0] for value in values], "o-", color=colour, markersize=3, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g} x")
    axes.grid(axis="y", color="#ddd")
    axes.set_xlabel("films")
    axes.set_ylabel(f"relative to {counts[0]:,} films")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    return figure


def real_films(report: dict[str, Any]) -> Figure:
    """Mean AP of every model, a panel a set of films; a line where seeds vary."""
    sets = sorted({row["set"] for row in report["rows"]})
    most = max(sum(row["set"] == name for row in report["rows"]) for name in sets)
    figure = Figure(figsize=(5 * len(sets), 0.8 + 0.26 * most), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        rows = [row for row in report["rows"] if row["set"] == name]
        labels = [f"{row['model']}: {' + '.join(row['kinds'])}".removesuffix(": ") for row in rows]
        colours = [COLOURS[0] if row["model"].startswith("similarity") else "#9aa5b1" for row in rows]
        spread = [row.get("mean_ap_stdev", 0) for row in rows]
        axes.barh(labels, [row["mean_ap"] for row in rows], xerr=spread, color=colours, height=0.7)
        axes.invert_yaxis()
        axes.set_title(f"{name}, {max(row['films'] for row in rows)} films", fontsize=9)
        axes.set_xlabel("mean average precision, percent")
    return figure


def cost(report: dict[str, Any]) -> Figure:
    """AP of the first head by recipe, against the first recipe on the same films and seed, with its standard error."""
    recipes = report["recipes"]
    head = report["settings"]["heads"][0]
    first = {(run["draw"], run["seed"]): run[head] for run in next(iter(recipes.values()))}
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    labels = {"passes": "encoder passes", "processor_seconds": "processor seconds"}
    for axes, (key, label) in zip(figure.subplots(1, 2, sharey=True), labels.items(), strict=True):
        for i, (name, runs) in enumerate(recipes.items()):
            gains = [run[head] - first[run["draw"], run["seed"]] for run in runs]
            error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0
            work = mean(run[key] for run in runs)
            axes.errorbar(work, mean(gains), error, fmt="o", color=f"C{i}", markersize=4, capsize=2, label=name)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{label} of pretraining")
        axes.grid(axis="y", color="#ddd")
    figure.axes[0].set_ylabel("points of AP more than the first")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=8)
    return figure


PLOTS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "cost": cost,
    "loader": loader,
    "quality": quality,
    "scale": scale,
    "real_films": real_films,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="JSON of benchmarks.cost, loader, quality, scale or real_films")
    parser.add_argument("svg", type=Path, help="file to write")
    args = parser.parse_args()
    draw(json.loads(args.report.read_text(encoding="utf-8")), args.svg)


if __name__ == "__main__":
    main()
