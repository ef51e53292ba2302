"""Where the curves of a training run go, by name.

    csv             metrics.csv in the run's folder
    tensorboard     tensorboard/ in the run's folder
    wandb           Weights & Biases, set by its environment: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE
    mlflow          MLflow, set by its environment: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME

Only process 0 writes. The run's number in wandb and mlflow is kept in loggers.json, so a resumed run continues it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from bassl_fast.runtime.run_folder import RunFolder
from shard_tools.errors import ConfigError, MissingDependency
from shard_tools.storage.atomic import write_atomically
from shard_tools.storage.untrusted import one_line, parse_json

from .options import LoggerName

_log = logging.getLogger(__name__)

NUMBERS = "loggers.json"
PROJECT = "bassl-fast"  # of wandb, and experiment of mlflow, if the environment names none


class TensorBoard(TensorBoardLogger):
    """TensorBoard's logger without its hparams.yaml, which is empty here, and for which Lightning imports s3fs."""

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


class MLFlow(MLFlowLogger):
    """MLflow's logger; a server that fails does not stop the training."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        # In a folder, `loss` would be a file and `loss/ssm` a file below it.
        named = {name.replace("/", "."): value for name, value in metrics.items()}
        try:
            super().log_metrics(named, step)
        except Exception as error:  # whatever the library raises
            _log.warning("training.loggers mlflow: step %s is not logged (%s)", step, one_line(error))


def local_loggers(folder: Path) -> list[Logger]:
    """Curves as `metrics.csv` and for TensorBoard."""
    return [_csv(folder), _tensorboard(folder)]


def open_loggers(run: RunFolder, names: Sequence[LoggerName], resume: bool) -> list[Logger]:
    """The loggers of a run; those of wandb and mlflow on process 0 only.

    Args:
        resume: continue the wandb and mlflow runs of an earlier start.

    Raises:
        MissingDependency: the package of a logger is not installed.
        ConfigError: its environment is not valid.
    """
    makers = {"csv": _csv, "tensorboard": _tensorboard}
    found = [makers[name](run.path) for name in names if name in makers]
    services = [name for name in names if name not in makers]
    if not services or rank_zero_only.rank:  # type: ignore[attr-defined]
        return found
    numbers = _numbers(run) if resume else {}
    run.path.mkdir(parents=True, exist_ok=True)  # or wandb writes to a temporary folder
    for name in services:
        with _named(name):
            found.append((_wandb if name == "wandb" else _mlflow)(run, numbers.get(name)))
    return found


def begin(run: RunFolder, loggers: Iterable[Logger], recipe: dict[str, Any]) -> None:
    """Start the wandb and mlflow runs and keep their numbers; on process 0 only.

    Args:
        recipe: resolved configuration, shown with a new run.

    Raises:
        ConfigError: a service cannot be reached, or refuses.
    """
    earlier, numbers = _numbers(run), {}
    for name, logger in _services(loggers):
        with _named(name):
            numbers[name] = logger.experiment.id if name == "wandb" else logger.run_id  # type: ignore[attr-defined]
            if numbers[name] != earlier.get(name):
                logger.log_hyperparams(recipe)
    if numbers:
        write_atomically(run.path / NUMBERS, (json.dumps(earlier | numbers, indent=1) + "\n").encode())


def end(loggers: Iterable[Logger]) -> None:
    """End the run of wandb, which lasts as long as its process otherwise; Lightning ends the others."""
    for name, logger in _services(loggers):
        if name == "wandb" and logger._experiment is not None:  # type: ignore[attr-defined]
            logger.experiment.finish()  # type: ignore[attr-defined]


def _numbers(run: RunFolder) -> dict[str, str]:
    """Name of a service -> number of this run there; empty if it has none."""
    run.bring(NUMBERS)
    path = run.path / NUMBERS
    try:
        found = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _services(loggers: Iterable[Logger]) -> list[tuple[str, Logger]]:
    """The loggers of wandb and mlflow, by name."""
    types = {"wandb": WandbLogger, "mlflow": MLFlow}
    return [(name, logger) for logger in loggers for name, kind in types.items() if isinstance(logger, kind)]


def _csv(folder: Path) -> Logger:
    return CSVLogger(folder, name="", version="")


def _tensorboard(folder: Path) -> Logger:
    return TensorBoard(folder, name="", version="tensorboard")


def _wandb(run: RunFolder, number: str | None) -> Logger:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return WandbLogger(Path(run.out).name, run.path, version=number or secrets.token_hex(4), project=project)


def _mlflow(run: RunFolder, number: str | None) -> Logger:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder needs no database
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    where = os.environ.get("MLFLOW_TRACKING_URI")
    return MLFlow(experiment, Path(run.out).name, where, save_dir=str(run.path / "mlflow"), run_id=number)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """While the library of a service runs: its failures name the logger and the fix."""
    try:
        yield
    except ModuleNotFoundError:
        raise MissingDependency(f"training.loggers {name}: not installed; pip install 'bassl-fast[{name}]'") from None
    except Exception as error:  # whatever the library raises
        fix = "`wandb login`, or WANDB_MODE=offline" if name == "wandb" else "check MLFLOW_TRACKING_URI"
        raise ConfigError(f"training.loggers {name}: cannot start ({one_line(error)}); {fix}") from error
