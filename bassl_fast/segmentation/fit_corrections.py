"""`bassl-fast finetune --data.corrections`: corrected films -> a checkpoint of the similarity head for `scenes`."""

from __future__ import annotations

from statistics import mean
from typing import Any

import torch
import yaml

from bassl_fast.checkpoints import checkpoint
from bassl_fast.runtime.run_folder import RunFolder
from pipelines.views import TestViews
from shard_tools.errors import ConfigError, masked
from shard_tools.storage.atomic import write_atomically

from .corrections import corrected_films
from .features import COLOURS
from .fitting import BEST
from .model import SceneBoundary, section_of
from .similarity import SimilarityModel
from .teaching import Taught, teach


def fit_corrections(folder: str, out: str, recipe: dict[str, Any] | None) -> str:
    """Adapt the weights of the package to the corrected films in `folder`; path or address of the checkpoint.

    Raises:
        SourceError, FeatureError: see `corrected_films`, `teach`.
        ConfigError: `out` holds a finished run.
    """
    run = RunFolder(out)
    if run.has(BEST):
        raise ConfigError(f"{run.where(BEST)}: this run exists; choose another --out or delete it")
    films = corrected_films(folder)
    taught = teach(films, SimilarityModel.load())
    run.path.mkdir(parents=True, exist_ok=True)
    write_atomically(run.path / "config.yaml", yaml.safe_dump(recipe, sort_keys=False).encode())
    content = _content(taught) | {"trained_on": {"corrections": [film.name for film in films]}, "recipe": recipe}
    checkpoint.save(run.path / BEST, content)
    run.publish()
    print(f"{len(films)} corrected film{'s' * (len(films) > 1)}: {_said(taught)}")
    print(f"checkpoint: {masked(run.where(BEST))} (for bassl-fast scenes --checkpoint)", flush=True)
    return run.where(BEST)


def _content(taught: Taught) -> dict[str, Any]:
    model = SceneBoundary(None, 0, "similar")
    coefficients = torch.from_numpy(taught.head.coefficients)
    with torch.no_grad():
        for parameter, values in ((model.head.weight, coefficients[:-1]), (model.head.bias, coefficients[-1:])):
            parameter.zero_()
            parameter[1:] = values
    return {
        "model": section_of(model, TestViews(), None, [COLOURS]),
        "state_dict": model.state_dict(),
        "checkpoint_sha256": COLOURS,
        "best_epoch": 0,
        "best_epoch_from": None,
        "threshold": taught.threshold,
        "threshold_from": "corrected",
    }


def _said(taught: Taught) -> str:
    """What was learnt, for people."""
    if not taught.gains:
        return "threshold adapted; weights need two or more films with several scenes"
    rises = sum(gain > 0 for gain in taught.gains)
    found = f"each scored by what the others teach, average precision {mean(taught.gains):+.1f} points"
    found += f" (higher in {rises} of {len(taught.gains)})"
    return f"{found}: weights and threshold adapted" if taught.adapted else f"{found}: weights kept, threshold adapted"
