"""The machine of a measurement."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nvidia.dali import __version__ as dali_version

# By package name; those not installed are left out.
LIBRARIES = ("torch", "pillow", "numpy", "webdataset", "ffcv", "numba", "spdl_io", "spdl_core")


def machine() -> dict[str, object]:
    """Processor, cores, load, date and versions, for the JSON of a benchmark."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {"python": platform.python_version(), "dali": dali_version}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],  # processes running or waiting, mean of the last minute
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions,
    }
