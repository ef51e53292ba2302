"""Measured unit costs, and the formatting of amounts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shard_tools.errors import ConfigError
from shard_tools.storage.untrusted import one_line, parse_json

COSTS = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class Cost:
    """The measured cost of a unit of work: on which machine, when, and by which command."""

    value: float
    unit: str
    machine: str
    date: str
    command: str


class Costs:
    """Unit costs by name, from a file that `benchmarks/costs.py` wrote.

    Raises:
        ConfigError: it cannot be read, or is not a file of costs.
    """

    def __init__(self, path: Path) -> None:
        self.used: dict[str, str] = {}  # name -> the cost and its source, in words
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
            self._known = {name: Cost(**cost) for name, cost in found.items()}
            for name, cost in self._known.items():
                if not 0 < float(cost.value) < float("inf"):
                    raise ValueError(f"{name}: {cost.value} is not a cost")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; make it with `python -m benchmarks.costs`") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}: not a file of costs ({one_line(error)}); make it with `python -m benchmarks.costs`"
            ) from None

    def gpus(self) -> set[str]:
        """Names of the GPUs whose rate of views was measured."""
        return {name.removeprefix("views ") for name in self._known if name.startswith("views ")} - {"cpu-core"}

    def get(self, name: str) -> float | None:
        """A cost, recorded as used; None if it was not measured."""
        if (cost := self._known.get(name)) is None:
            return None
        self.used[name] = f"{name}: {cost.value:.6g} {cost.unit} ({cost.machine}, {cost.date}, {cost.command})"
        return float(cost.value)


def unknown(value: float | None, benchmark: str) -> str:
    """How to measure a cost that is not known; empty if it is."""
    if value is not None:
        return ""
    return f": measure it with `python -m benchmarks.{benchmark}`, then `python -m benchmarks.costs`, and give --costs"


def in_bytes(value: float | None) -> str:
    if value is None:
        return "unknown"
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {unit}"
    return f"{value / 1000:.3g} kB"


def in_time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.3g} s"
