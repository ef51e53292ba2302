"""The CPU cores of this process: how many it may use, and which are near its GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

ROOT = Path("/")


@cache
def cores() -> int:
    """Cores that this process may use, by its affinity and by the quota of its container; before `bind_to_gpu`."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, int(quota() or allowed)))


def quota(root: Path = ROOT) -> float | None:
    """Cores' worth of time that control groups (Docker --cpus, Kubernetes limits) allow; None if they do not limit it.

    Args:
        root: of the file system.
    """
    found = [*_quotas_v2(root), *_quotas_v1(root)]
    return min(found, default=None)


def bind_to_gpu(device: torch.device) -> None:
    """Let this thread, and those that it starts, run only on the cores near the GPU `device`."""
    cores()  # counted first
    at: Any = torch.cuda.get_device_properties(device)
    if not hasattr(at, "pci_bus_id"):  # torch before 2.8
        return
    near = cores_near(f"{at.pci_domain_id:04x}:{at.pci_bus_id:02x}:{at.pci_device_id:02x}.0")
    if both := near & os.sched_getaffinity(0):
        os.sched_setaffinity(0, both)


def cores_near(address: str, root: Path = ROOT) -> set[int]:
    """Cores of the NUMA node of a PCI address; none if it is not known."""
    try:
        listed = (root / "sys/bus/pci/devices" / address / "local_cpulist").read_text().strip()
    except OSError:
        return set()
    spans = [span.partition("-") for span in listed.split(",") if span]
    return {core for first, _, last in spans for core in range(int(first), int(last or first) + 1)}


def _groups(root: Path, controller: str) -> Iterator[str]:
    """Paths of this process's control group, and of those it is in, as far as they can be seen."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            # In a container the path may be the host's, while only the container's own group is mounted, as "/".
            yield from map(str, [Path(path), *Path(path).parents])


def _quotas_v2(root: Path) -> Iterator[float]:
    for path in _groups(root, ""):
        try:
            most, period = (root / "sys/fs/cgroup" / path.lstrip("/") / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if most != "max":
            yield int(most) / int(period)


def _quotas_v1(root: Path) -> Iterator[float]:
    for path in _groups(root, "cpu"):
        folder = root / "sys/fs/cgroup/cpu" / path.lstrip("/")
        try:
            most, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        except (OSError, ValueError):
            continue
        if most > 0:
            yield most / period
