"""`bassl-fast evaluate`: a fine-tuned checkpoint and features -> scores, metrics and a report."""

from __future__ import annotations

from bassl_fast.metrics.protocols import Protocol


def evaluate(
    finetuned: str,
    features: list[str] | str,
    out: str | None = None,
    split: str = "test",
    threshold: float | None = None,
    protocol: Protocol = "movienet",
    tolerance: str = "3s",
    annotations: str | None = None,
    reference_quirks: bool = False,
    pages: int = 3,
    comparison: str | None = None,
    notes: str | None = None,
) -> dict[str, float]:
    """Score the films of a split; write `scores/<film>.csv`, `metrics.json` and `report.html`; return the metrics.

    Args:
        finetuned: checkpoint that `bassl-fast finetune` wrote; path or address.
        features: folder or address that `bassl-fast extract` wrote to; for all heads but crn also several. The
            heads similarity and film take features of any encoder, also of others than they were trained on.
        out: folder or address for the results; `evaluate-<split>/` beside the checkpoint if left out.
        split: "train", "val" or "test".
        threshold: probability from which a shot is a boundary; the checkpoint's own if left out.
        protocol: which scores to print, as papers on a data set report them: "movienet"; "bbc" and "ovsd", with
            coverage, overflow and F-score; "bbc_annotators", their mean over all annotators; or "tolerance".
        tolerance: how far a predicted boundary may be from a true one, for protocol tolerance: seconds ("3s"), or
            frames at 24 a second ("12f").
        annotations: folder of BBC's annotations as published, for protocol bbc_annotators.
        reference_quirks: score as the published code does, to compare with its numbers; the default threshold is then
            0.5.
        pages: films shown with thumbnails in the report, worst first; about 15 MB for a film of 1,500 shots. The
            metrics always cover all films.
        comparison: JSON file with rows `{"name": ..., column: value}` for a table in the report.
        notes: text file appended to the report, such as credits of the films.

    Raises:
        CheckpointError, FeatureError: one cannot be used, or they do not belong together.
        ConfigError, SourceError: options that do not go together, or annotations of other films.
    """
    from .scoring import Scoring, evaluate_films  # here, so that `--help` does not wait for torch

    how = Scoring(threshold, protocol, tolerance, annotations, reference_quirks)
    return evaluate_films(finetuned, features, out, split, how, pages, comparison, notes)
