"""Drivers, quotas and cores, from files as they are on machines that we do not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bassl_fast.runtime import cores, hardware
from bassl_fast.training.launch import check_gpus
from shard_tools.errors import ConfigError

VERSION = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n"


def write(root: Path, **files: str) -> Path:
    """Files by their path, with __ for /."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_driver_is_read_where_there_is_a_gpu(tmp_path: Path):
    assert hardware.driver_version(tmp_path) == ""
    write(tmp_path, proc__driver__nvidia__version=VERSION)
    assert hardware.driver_version(tmp_path) == ""  # a container without GPUs
    write(tmp_path, dev__nvidiactl="", dev__nvidia0="")
    assert hardware.driver_version(tmp_path) == "535.104.05"
    write(tmp_path, proc__driver__nvidia__version=OPEN)
    assert hardware.driver_version(tmp_path) == "580.65.06"


@pytest.mark.parametrize(
    ("driver", "wheel", "cuda", "says"),
    [
        ("535.104.05", "2.13.0+cu130", "13.0", ("535.104.05", "2.13.0+cu130", "driver 580", "bassl-fast[cuda120]")),
        ("470.57", "2.13.0+cu130", "13.0", ("driver 580", "bassl-fast[cuda110]")),
        ("390.157", "2.10.0+cu128", "12.8", ("390.157", "driver 525 or newer; update the driver, or set")),
        ("580.65.06", "2.13.0+cpu", None, ("built without CUDA", "install a CUDA build")),
        ("580.65.06", "2.13.0+cu130", "13.0", ("new enough", "nvidia-smi")),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_refused_with_the_fix(driver: str, wheel: str, cuda: str, says: tuple[str, ...]):
    found = hardware.why_unusable(driver, wheel, cuda)
    assert all(part in found for part in (*says, "CUDA_VISIBLE_DEVICES=")), found


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU that torch can use")
@pytest.mark.parametrize("visible", [None, "", "-1", "0"])
def test_training_stops_unless_the_gpu_was_hidden(
    visible: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(hardware, "driver_version", lambda: "535.104.05")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    hardware.say_device.cache_clear()
    if visible in ("", "-1"):
        hardware.say_device()
        assert "no GPU found: running on the CPU" in capsys.readouterr().out
    else:
        with pytest.raises(ConfigError, match=r"535\.104\.05"):
            hardware.say_device()
    hardware.say_device.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU that torch can use")
@pytest.mark.parametrize(
    ("amx", "avx", "name", "words"),
    [
        (True, True, "bf16-mixed", "bfloat16, by AMX"),
        (False, True, "bf16-mixed", "bfloat16, by AVX-512"),
        (False, False, "32-true", "float32"),
    ],
)
def test_auto_takes_what_the_cpu_computes_fast_and_says_so(
    amx: bool, avx: bool, name: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert hardware.precision("32-true") == "32-true"
    assert not capsys.readouterr().out
    hardware._auto.cache_clear()
    assert [hardware.precision("auto") for _ in range(2)] == [name] * 2
    hardware._auto.cache_clear()
    assert capsys.readouterr().out.count(f"precision auto: {words}") == 1


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__cpu.max": "max 100000\n"}, None),
        ({"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__cpu.max": "250000 100000\n"}, 2.5),
        # The host's path in a container that sees only its own group.
        ({"proc__self__cgroup": "0::/kubepods/pod1\n", "sys__fs__cgroup__cpu.max": "400000 100000\n"}, 4.0),
        (
            {
                "proc__self__cgroup": "0::/a/b\n",
                "sys__fs__cgroup__a__cpu.max": "300000 100000\n",
                "sys__fs__cgroup__a__b__cpu.max": "600000 100000\n",
            },
            3.0,
        ),
        (
            {
                "proc__self__cgroup": "4:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n",
                "sys__fs__cgroup__cpu__docker__x__cpu.cfs_quota_us": "150000\n",
                "sys__fs__cgroup__cpu__docker__x__cpu.cfs_period_us": "100000\n",
            },
            1.5,
        ),
        (
            {
                "proc__self__cgroup": "4:cpu,cpuacct:/\n",
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "-1\n",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_quota_of_a_container(files: dict[str, str], quota: float | None, tmp_path: Path):
    assert cores.quota(write(tmp_path, **files)) == quota


def test_threads_share_the_cores_of_the_quota(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "quota", lambda: 1.9)
    cores.cores.cache_clear()
    assert hardware.threads(0) == 1
    assert hardware.threads(3) == 3
    cores.cores.cache_clear()


def test_cores_near_a_gpu(tmp_path: Path):
    folder = tmp_path / "sys/bus/pci/devices/0000:1b:00.0"
    folder.mkdir(parents=True)
    (folder / "local_cpulist").write_text("0-2,8,10-11\n")
    assert cores.cores_near("0000:1b:00.0", tmp_path) == {0, 1, 2, 8, 10, 11}
    assert cores.cores_near("0000:ff:00.0", tmp_path) == set()


def test_more_processes_than_gpus_are_refused():
    check_gpus(8, 8)
    check_gpus(2, 0)  # on a CPU
    with pytest.raises(ConfigError, match=r"sees 1 GPUs.*--gres=gpu:8"):
        check_gpus(8, 1)
