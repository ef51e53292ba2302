"""Protocols: which scores the papers on a data set report, and how they average them.

movienet          MovieNet-SSeg (BaSSL, section 4): scores of `scenes`, all shots together or a mean over films
bbc               BBC Planet Earth, one annotator (Baraldi et al., ACM Multimedia 2015): coverage, overflow, F-score
bbc_annotators    the same against every annotator, then the mean (Baraldi et al., IEEE Transactions on Multimedia
                  19(5), 2017)
ovsd              Open Video Scene Detection (Rotman et al., ISM 2016): as bbc
tolerance         precision, recall, F1 and AP of boundaries within a tolerance in seconds or frames
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from shard_tools.errors import ConfigError

from . import grouping, scenes
from .scenes import Metric
from .tolerance import read_tolerance, tolerant_metrics

Protocol = Literal["movienet", "bbc", "bbc_annotators", "ovsd", "tolerance"]
_GROUPING = grouping.METRICS | {name: scenes.METRICS[name] for name in ("miou", "mean_ap", "ap", "f1")}


def metrics_of(protocol: Protocol, tolerance: str = "3s") -> dict[str, Metric]:
    """Name -> metric of a protocol.

    Args:
        tolerance: such as "3s" or "12f", for the protocol of that name.

    Raises:
        ConfigError: unknown protocol, or not a tolerance.
    """
    if protocol not in get_args(Protocol):
        raise ConfigError(f"protocol {protocol}: choose one of {', '.join(get_args(Protocol))}")
    if protocol == "movienet":
        return dict(scenes.METRICS)
    return tolerant_metrics(read_tolerance(tolerance)) if protocol == "tolerance" else dict(_GROUPING)


def mean_over_annotators(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every score over the annotators that it is defined for."""
    names = dict.fromkeys(name for one in found for name in one)
    values = {name: [one[name] for one in found if name in one] for name in names}
    return {name: sum(scores) / len(scores) for name, scores in values.items()}
