"""Broken and hostile files for everything that reads what comes from elsewhere.

Each reader is given inputs of two kinds: valid files with bytes flipped, cut, spliced, repeated, nested or with huge
numbers in them (`damaged`), and files that are well-formed but say what they should not (`hostile`, by hypothesis),
such as an index whose checksums are right and whose offsets lead out of the shard. A reader may return or raise one of
our errors (`shard_tools.errors`). Found are: any other exception, a file opened outside of the input's folder, a
program started, an address connected to, more than `SECONDS` or `MEMORY`.

    python -m tests.fuzz --inputs 100000 --out benchmarks/results/fuzz.json
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from shard_tools.errors import BasslFastError
from tests.fuzz_readers import READERS, Files, Reader

_libc = ctypes.CDLL(None)
SECONDS, MEMORY = 5, 1 << 30  # of processor and bytes, most that one input may take; ten times as long on the clock


class Hang(BaseException):
    """An input took too long."""


class Watch:
    """Notes what the interpreter does while an input is read: files opened elsewhere, programs, connections."""

    EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "os.remove")

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        libraries = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *filter(None, sys.path))}
        self._allowed = (*(f"{path}/" for path in libraries - {os.getcwd()}), f"{os.getcwd()}/", "/proc/", "/dev/null")
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith((self.folder, *self._allowed)):
                self.seen.append(f"opened {path}")
        elif event in self.EVENTS and not (event == "os.remove" and str(arguments[0]).startswith(self.folder)):
            self.seen.append(f"{event} {arguments[:2]}")

    @contextmanager
    def __call__(self, folder: Path) -> Iterator[list[str]]:
        self.seen = []
        self.folder = f"{os.path.realpath(folder)}/"
        try:
            yield self.seen
        finally:
            self.folder = None


def damaged(files: Files, rng: random.Random) -> Files:
    """Valid files, one of them changed in one to four places."""
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        length = min(len(data) - at, rng.choice((1, 2, 4, 8, 64, 512)))
        kind = rng.randrange(10)
        if kind == 0 and data:  # flips
            for _ in range(rng.choice((1, 3, 16))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:  # cut
            del data[at:]
        elif kind == 2:  # a hole
            del data[at : at + length]
        elif kind == 3:  # spliced with another place, of this or another file
            other = files[rng.choice(sorted(files))]
            begin = rng.randrange(len(other) + 1)
            data[at : at + length] = other[begin : begin + rng.choice((1, 16, 512, 4096))]
        elif kind == 4:  # huge numbers, as bytes
            data[at : at + length] = rng.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length
        elif kind == 5:  # huge numbers, as digits
            digits = [i for i in range(len(data)) if 48 <= data[i] <= 57]
            if digits:
                at = rng.choice(digits)
                data[at : at + 1] = rng.choice((b"9" * 30, b"-1", b"1e999", b"7" * 11, b"9" * 5000, b"0", b"NaN"))
        elif kind == 6:  # repeated
            data[at:at] = data[at : at + length] * rng.choice((2, 64))
        elif kind == 7:  # nested
            data[at:at] = rng.choice((b"[", b'{"a":', b"(", b"- ")) * rng.choice((10, 100_000))
        elif kind == 8:  # not text
            data[at : at + 1] = rng.choice((b"\xff\xfe", b"\0", b"\xc3\x28", "\u0661".encode(), b"\r\n", b'"', b"../"))
        else:  # whole numbers at the edges
            value = rng.choice((2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, 0, 1 << 50))
            size = rng.choice((4, 8))
            data[at : at + size] = (value % 256**size).to_bytes(size, "little")
    return {**files, name: bytes(data)}


class Fuzz:
    """Runs inputs through readers and counts what became of them."""

    def __init__(self, root: Path) -> None:
        self._root, self._watch = root, Watch()
        self.counts: dict[str, Counter[str]] = {}
        self.faults: list[dict[str, str]] = []
        self.slowest: dict[str, float] = {}

    def run(self, name: str, reader: Reader, inputs: int, first_seed: int = 0) -> None:
        """Read `inputs` inputs, three in five damaged and the others hostile."""
        self.counts[name], self.slowest[name] = Counter(), 0.0
        gc.collect()
        valid = reader.make()
        for files in valid:  # what a valid file imports and opens is not looked at
            self._write(files)
            reader.read(self._root / "input")
        hostile = 2 * inputs // 5 if reader.hostile is not None else 0
        rng = random.Random(f"{name} {first_seed}")
        for _ in range(inputs - hostile):
            files = damaged(rng.choice(valid), rng)
            self._read(name, reader, reader.seal(files) if rng.random() < 0.5 else files)
        if not hostile:
            return

        @seed(first_seed)
        @settings(
            max_examples=hostile,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(reader.hostile)
        def feed(files: Files) -> None:
            self._read(name, reader, files)

        while (left := inputs - sum(self.counts[name].values())) > 0:  # hypothesis stops early where all was tried
            before = sum(self.counts[name].values())
            feed()
            if sum(self.counts[name].values()) == before or left <= 0:
                break

    def _write(self, files: Files) -> Path:
        folder = self._root / "input"
        shutil.rmtree(folder, ignore_errors=True)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    def _read(self, name: str, reader: Reader, files: Files) -> None:
        folder = self._write(files)
        reset_peak()
        before, started, fault = peak(), time.process_time(), ""
        _alarm(SECONDS)
        try:
            with self._watch(self._root) as seen:
                try:
                    reader.read(folder)
                    outcome = "read"
                except BasslFastError as error:
                    outcome = type(error).__name__
                    str(error).encode(errors="surrogatepass")
                    if "\n" in str(error):
                        fault = f"more than one line: {error!r}"
        except (Exception, Hang) as error:
            outcome, fault = "FAULT", "".join(traceback.format_exception(error, limit=-6))
        finally:
            _alarm(0)
        self.slowest[name] = max(self.slowest[name], time.process_time() - started)
        fault = fault or "; ".join(seen)
        if not fault and (grown := peak() - before) > MEMORY:
            fault = f"took {grown >> 20} MiB"
        if fault:
            outcome = "FAULT"
            kept = self._root / "faults" / f"{name}-{len(self.faults)}"
            if len(self.faults) < 50:
                shutil.copytree(folder, kept)
                self.faults.append({"reader": name, "fault": fault, "input": str(kept)})
        self.counts[name][outcome] += 1


def _alarm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)


def peak() -> int:
    """Most bytes that this process had in memory since `reset_peak`."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """What was used before, say by other tests, must not hide what an input takes (man 5 proc, clear_refs).

    Nor may what malloc keeps: all free memory goes back to the kernel (man 3 malloc_trim).
    """
    _libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def bounded(scratch: Path) -> Iterator[None]:
    """Limit memory and time, so that a bomb or an endless loop ends; temporary files go to `scratch`."""

    def stop(*_: Any) -> None:
        raise Hang(f"more than {SECONDS} s")

    earlier = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    before, tempfile.tempdir = tempfile.tempdir, str(scratch)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        tempfile.tempdir = before
        for number, handler in earlier.items():
            signal.signal(number, handler)


def fuzz(inputs: int, root: Path, first_seed: int = 0, only: list[str] | None = None, say: bool = False) -> Fuzz:
    """`inputs` inputs in all, dealt out to the readers by their shares."""
    fuzzing = Fuzz(root)
    chosen = {name: reader for name, reader in READERS.items() if not only or name in only}
    shares = sum(reader.share for reader in chosen.values())
    with bounded(root):
        for name, reader in chosen.items():
            fuzzing.run(name, reader, -(-inputs * reader.share // shares), first_seed)
            if say:
                counts, slowest = fuzzing.counts[name], fuzzing.slowest[name]
                print(
                    f"{name:12s}{sum(counts.values()):7d} inputs, {dict(counts)}, slowest {slowest:.2f} s", flush=True
                )
    return fuzzing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=READERS, help="readers")
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    args = parser.parse_args()
    started = time.process_time()
    root = Path(tempfile.mkdtemp(prefix="bassl-fast-fuzz-"))
    found = fuzz(args.inputs, root, args.seed, args.only, say=True)
    for fault in found.faults:
        print(f"\n{fault['reader']}: {fault['input']}\n{fault['fault']}")
    print(f"{sum(sum(c.values()) for c in found.counts.values())} inputs, {time.process_time() - started:.0f} s of CPU")
    if args.out:
        from benchmarks.machine import machine

        report = {"benchmark": "fuzz", "inputs": args.inputs, "seed": args.seed, "machine": machine()}
        report |= {
            "seconds_cpu": time.process_time() - started,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        report |= {"outcomes": found.counts, "slowest_seconds": found.slowest, "faults": len(found.faults)}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not found.faults:
        shutil.rmtree(root)
    return len(found.faults) > 0


if __name__ == "__main__":
    sys.exit(main())
