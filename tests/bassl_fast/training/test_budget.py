"""What makes the host wait for a GPU is counted in a step of training, on a CPU, by what is dispatched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from bassl_fast import cli
from bassl_fast.training import run
from tests.bassl_fast.conftest import PRETRAIN, Project

pytestmark = pytest.mark.slow

# Operators that wait for the device, or copy a new tensor to it.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "unique2", "lift_fresh", "equal"}
METHODS = ("tolist", "numpy", "cpu")  # these are not dispatched on a CPU
SPIED = 3  # the step


class Budget(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            at is not None and at.dtype == torch.bool for at in args[1]
        )
        if name in WAITING or masks:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def count_methods(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count, while `budget` is entered, what is not dispatched on a CPU."""
    for name in METHODS:
        plain = getattr(torch.Tensor, name)

        def counting(tensor: torch.Tensor, *args: Any, name: str = name, plain: Any = plain, **kwargs: Any) -> Any:
            if torch.utils._python_dispatch._get_current_dispatch_mode() is budget:
                budget.found[name] += 1
            return plain(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counting)


class Spy(Callback):
    """Counts from the begin of a step to that of the next: forward, backward, optimiser, callbacks, the next batch."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == SPIED:
            self.budget.__enter__()
        if trainer.global_step == SPIED + 1:
            self.budget.__exit__(None, None, None)


READ = {"tolist": 2}  # the losses of the step before, to check and to show


@pytest.mark.parametrize("method", ["BaSSLShotCoL", "SCE", "BYOL", "SCRL"])
def test_no_step_waits_for_the_gpu(method: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    budget = Budget()
    monkeypatch.setattr(run, "progress_callbacks", lambda late: (False, [Spy(budget)]))
    count_methods(budget, monkeypatch)
    small = PRETRAIN["method"]["init_args"] if method.startswith("BaSSL") else {"views": {"size": 64}}
    small = small | ({"second": {"size": 64}} if method in ("SCE", "BYOL", "SCRL") else {})
    small = small | ({"queue": 64} if method == "SCE" else {})
    recipe = PRETRAIN | {"method": {"class_path": f"bassl_fast.methods.{method}", "init_args": small}}
    recipe["optimiser"] = {"name": "lars", "lr": 0.1, "lr_batch": 0}
    recipe["training"] = {"steps": 200, "precision": "32-true", "validate_every": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(Spy, "on_train_batch_end", stop, raising=False)
    argv = ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]
    assert cli.main([*argv, "--out", str(tmp_path / "run")]) == 0
    assert budget.found == READ


def stop(self: Spy, trainer: pl.Trainer, *_: Any) -> None:
    trainer.should_stop = trainer.global_step > SPIED + 1
