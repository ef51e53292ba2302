"""Pack: other tools read the same bytes, equal input gives equal files, and nothing half-written counts as whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from shard_tools import plugins
from shard_tools.annotations import movienet
from shard_tools.annotations.labels import ShotLabels
from shard_tools.errors import ConfigError, ShardError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.sources import detect, keyframe_folder
from shard_tools.sources.films import open_source
from shard_tools.sources.source import Scan, Source, SourceShard, film_scan
from tests.films import digests, keyframes, make_labels, picture, small_disk, write_film, write_set

pytestmark = pytest.mark.slow

FILMS = {"a b": 3, "c": (0, 2, 7, 8), "d.v1": 2, "Æ – 映": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("source"), FILMS, {"c": "test"})


@pytest.fixture(scope="module")
def packed(tmp_path_factory, source) -> Path:
    dst = tmp_path_factory.mktemp("packed") / "shards"
    pack(source, dst)
    return dst


@pytest.fixture
def copy(tmp_path, source) -> Path:
    """A copy of the source to break; times are kept."""
    return Path(shutil.copytree(source, tmp_path / "copy"))


def tars(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def assert_unfinished(dst: Path) -> None:
    """`dst` cannot be opened as a set of shards, and every tar in place is whole."""
    with pytest.raises(ShardError, match=r"not a finished set of shards|no such folder"):
        ShardIndex.open(dst)
    for tar in tars(dst):
        assert Path(tar).read_bytes().endswith(fmt.END_OF_TAR)
        with tarfile.open(tar) as archive:
            assert archive.getmembers()


# --- the bytes, read by all


def test_every_keyframe_is_where_the_index_says(packed, source):
    index, pictures = ShardIndex.open(packed), keyframes(source)
    assert len(index.frames) == len(pictures)
    for row, data, frame in zip(index.frames, pictures.values(), range(len(pictures)), strict=True):
        shard, _, offset = index.locate(frame)
        assert (row["offset"], row["size"], row["crc32"]) == (offset, len(data), zlib.crc32(data))
        assert Path(shard).read_bytes()[offset : offset + len(data)] == data


def test_labels_are_in_the_index(packed):
    index = ShardIndex.open(packed)
    for film, (name, shots) in enumerate(sorted(FILMS.items())):
        expected = make_labels(shots)
        for column in fmt.SHOT.names:
            assert index.shots_of(film)[column].tolist() == getattr(expected, column).tolist()
        assert index.sequences["split"][film] == (b"test" if name == "c" else b"train")


def test_manifest_has_bytes_and_sha256_of_every_shard(packed):
    manifest = json.loads((packed / fmt.MANIFEST).read_text())
    assert (manifest["version"], manifest["kind"]) == (1, "films")
    assert [shard["name"] for shard in manifest["shards"]] == [f"{film}.tar" for film in sorted(FILMS)]
    for shard in manifest["shards"]:
        data = (packed / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_plain_tar_lists_and_extracts_the_same_bytes(packed, source, tmp_path):
    for tar in tars(packed):
        subprocess.run(["tar", "-xf", tar, "-C", tmp_path], check=True)
    expected = {f"{f}/shot_{s:04d}.{k}.jpg": data for (f, s, k), data in keyframes(source).items()}
    assert {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*.jpg")} == expected
    listed = subprocess.run(["tar", "-tf", packed / "c.tar"], check=True, capture_output=True, text=True).stdout
    assert listed.splitlines() == [name for name in expected if name.startswith("c/")]


def test_tarfile_reads_the_same_bytes(packed, source):
    found = {}
    for path in tars(packed):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    assert found == {f"{f}/shot_{s:04d}.{k}.jpg": data for (f, s, k), data in keyframes(source).items()}


def test_webdataset_gives_every_shot_with_its_keyframes(packed, source):
    import webdataset

    pictures, seen = keyframes(source), []
    for sample in webdataset.WebDataset(tars(packed), shardshuffle=False):
        film, shot = sample["__key__"].rsplit("/shot_", 1)
        images = {key: data for key, data in sample.items() if not key.startswith("__")}
        assert images == {f"{k}.jpg": pictures[film, int(shot), k] for k in range(3)}
        seen.append((film, int(shot)))
    assert seen == sorted({(film, shot) for film, shot, _ in pictures})


def test_dali_reads_every_keyframe_through_the_idx(packed, source):
    dali = pytest.importorskip("nvidia.dali", reason="needs DALI (an extra such as cuda130)")
    paths = tars(packed)

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        return tuple(
            dali.fn.readers.webdataset(
                paths=paths,
                index_paths=[str(Path(path).with_suffix(".idx")) for path in paths],
                ext=["0.jpg", "1.jpg", "2.jpg"],
                missing_component_behavior="error",
                name="reader",
            )
        )

    reader = pipeline()
    reader.build()
    shots = reader.epoch_size("reader")
    found = [bytes(bytearray(image.at(0))) for _ in range(shots) for image in reader.run()]
    assert found == list(keyframes(source).values())


def test_the_folder_of_film_folders_packs_with_the_labels_beside_it_or_without(source, packed, tmp_path):
    pack(source / movienet.FRAMES_DIR, tmp_path / "same")
    assert digests(tmp_path / "same") == digests(packed)
    shutil.copytree(source / movienet.FRAMES_DIR, tmp_path / "films")
    pack(tmp_path / "films", tmp_path / "dst")
    index = ShardIndex.open(tmp_path / "dst")
    assert index.films == sorted(FILMS)
    assert set(index.shots["boundary"].tolist()) == {-1}
    with pytest.raises(ShardError, match=r"pack with anno/anno\.\{train,val,test\}\.ndjson"):
        index.select("train")


# --- equal input gives equal files


@pytest.mark.parametrize("workers", [1, 8])
def test_two_packs_of_equal_input_are_equal_in_every_file(source, packed, tmp_path, monkeypatch, workers):
    other, frames = tmp_path / "other", movienet.FRAMES_DIR
    for film in reversed(FILMS):  # written in another order, at other times, with other modes and litter
        (other / frames / film).mkdir(parents=True)
        for path in sorted((source / frames / film).iterdir(), reverse=True):
            new = Path(shutil.copy(path, other / frames / film))
            new.chmod(0o600)
            os.utime(new, (1e9, 1e9))
        (other / frames / film / ".DS_Store").write_bytes(b"x")
    for name in ("anno", "scene318"):
        (other / name).symlink_to(source / name)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listing(self), reverse=True))
    pack(other, tmp_path / "dst", workers=workers)
    assert digests(tmp_path / "dst") == digests(packed)


def test_keyframes_and_films_may_be_links(source, packed, tmp_path):
    frames = tmp_path / "links" / movienet.FRAMES_DIR
    frames.mkdir(parents=True)
    for film in FILMS:
        (frames / film).symlink_to(source / movienet.FRAMES_DIR / film)
    (frames / "c").unlink()
    (frames / "c").mkdir()
    for path in (source / movienet.FRAMES_DIR / "c").iterdir():
        (frames / "c" / path.name).symlink_to(path)
    pack(tmp_path / "links", tmp_path / "dst")
    assert [Path(tar).read_bytes() for tar in tars(tmp_path / "dst")] == [Path(t).read_bytes() for t in tars(packed)]


# --- broken sources


def break_empty(film: Path) -> str:
    (film / "shot_0002_img_1.jpg").write_bytes(b"")
    return r"shot_0002_img_1\.jpg: zero bytes"


def break_cut(film: Path) -> str:
    (film / "shot_0002_img_1.jpg").write_bytes(picture()[:-3])
    return r"shot_0002_img_1\.jpg: truncated JPEG"


def break_kind(film: Path) -> str:
    (film / "shot_0002_img_1.jpg").write_bytes(b"\x89PNG" + bytes(99))
    return r"shot_0002_img_1\.jpg: not a JPEG"


def break_size(film: Path) -> str:
    (film / "shot_0002_img_1.jpg").write_bytes(picture(0, (32, 48)))
    return r"shot_0002_img_1\.jpg: 32x48 pixels where the film has 48x32"


def break_missing(film: Path) -> str:
    (film / "shot_0002_img_1.jpg").unlink()
    return r"shot_0002_img_1\.jpg: key-frame missing"


def break_link(film: Path) -> str:
    (film / "shot_0002_img_1.jpg").unlink()
    (film / "shot_0002_img_1.jpg").symlink_to(film / "nowhere")
    return r"shot_0002_img_1\.jpg: No such file"


def break_folder(film: Path) -> str:
    (film / "shot_0002_img_1.jpg").unlink()
    (film / "shot_0002_img_1.jpg").mkdir()
    return r"shot_0002_img_1\.jpg: not a plain file"


def break_empty_film(film: Path) -> str:
    shutil.rmtree(film)
    film.mkdir()
    return "c: a film without shots"


def break_labels(film: Path) -> str:
    with (film.parents[1] / "anno" / "anno.test.ndjson").open("a") as file:
        file.write("{broken\n")
    return r"anno\.test\.ndjson:5: not an annotation line"


BREAKS = [
    break_empty,
    break_cut,
    break_kind,
    break_size,
    break_missing,
    break_link,
    break_folder,
    break_empty_film,
    break_labels,
]


@pytest.mark.parametrize("break_film", BREAKS)
def test_a_broken_source_stops_the_pack_which_resumes_once_it_is_fixed(copy, source, packed, tmp_path, break_film):
    film, dst = copy / movienet.FRAMES_DIR / "c", tmp_path / "dst"
    reason = break_film(film)
    with pytest.raises(SourceError, match=reason) as error:
        pack(copy, dst, workers=1)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.tmp"))
    assert_unfinished(dst)
    done = {tar: os.stat(tar).st_mtime_ns for tar in tars(dst)}
    assert (str(dst / "a b.tar") in done) == (break_film is not break_labels)
    assert str(dst / "c.tar") not in done
    shutil.rmtree(copy)
    shutil.copytree(source, copy)
    pack(copy, dst)
    assert digests(dst) == digests(packed)
    assert {tar: os.stat(tar).st_mtime_ns for tar in done} == done


# --- stopped packs


def test_notes_and_manifest_are_written_after_the_bytes_they_describe(source, tmp_path, monkeypatch):
    """A machine that fails may lose whatever was not flushed, so record every flush and rename in order."""
    dst, events, fsync, replace = tmp_path / "dst", [], os.fsync, os.replace

    def flush(fd: int) -> None:
        fsync(fd)
        events.append(("flushed", os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), dst)))

    def rename(old: Path, new: Path) -> None:
        replace(old, new)
        events.append(("named", os.path.relpath(new, dst)))

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    pack(source, dst, workers=1)
    for film in FILMS:
        shard, note, idx, place = (
            events.index(event)
            for event in (
                ("flushed", f".pack/{film}.tar.tmp"),
                ("named", f".pack/{film}.npz"),
                ("named", f"{film}.idx"),
                ("named", f"{film}.tar"),
            )
        )
        assert shard < note < idx < place
        assert place < events.index(("flushed", "."))
    manifest = [("flushed", f"{fmt.MANIFEST}.tmp"), ("named", fmt.MANIFEST)]
    assert events[-4:] == [("flushed", "."), *manifest, ("flushed", ".")]


def stop_before_the_index(copy: Path, dst: Path) -> None:
    """Pack all films of `copy`, then fail: shot times are read last."""
    times = copy / "scene318" / "shot_movie318" / "d.v1.txt"
    good = times.read_bytes()
    times.write_text("broken\n")
    with pytest.raises(SourceError, match=r"d\.v1\.txt:1: not a shot line"):
        pack(copy, dst)
    times.write_bytes(good)
    assert len(tars(dst)) == len(list((copy / movienet.FRAMES_DIR).iterdir()))


def test_a_film_deleted_from_the_source_is_deleted_from_the_set(copy, source, packed, tmp_path):
    write_film(copy, "gone", 2)
    stop_before_the_index(copy, tmp_path / "dst")
    assert (tmp_path / "dst" / "gone.tar").exists()
    shutil.rmtree(copy / movienet.FRAMES_DIR / "gone")
    pack(copy, tmp_path / "dst")
    assert digests(tmp_path / "dst") == digests(packed)


def test_a_film_changed_since_the_stopped_pack_is_packed_again(copy, tmp_path):
    stop_before_the_index(copy, tmp_path / "dst")
    changed = copy / movienet.FRAMES_DIR / "c" / "shot_0007_img_1.jpg"
    size = changed.stat().st_size
    changed.write_bytes(picture(12345) + bytes(size)[: max(0, min(60, size - len(picture(12345))))])
    pack(copy, tmp_path / "dst")
    pack(copy, tmp_path / "fresh")
    assert digests(tmp_path / "dst") == digests(tmp_path / "fresh")


def test_damaged_notes_of_a_stopped_pack_only_cost_time(copy, packed, tmp_path):
    dst = tmp_path / "dst"
    stop_before_the_index(copy, dst)
    notes = sorted((dst / ".pack").glob("*.npz"))
    notes[0].write_bytes(b"")
    notes[1].write_bytes(notes[1].read_bytes()[:-40])
    os.truncate(dst / "d.v1.tar", 1024)
    (dst / "a b.idx").unlink()
    pack(copy, dst)
    assert digests(dst) == digests(packed)


def test_a_disk_that_fails_at_any_write_is_one_line_and_the_pack_resumes(source, packed, tmp_path, monkeypatch):
    dst, fsync, flushes = tmp_path / "dst", os.fsync, 3 * len(FILMS) + 5
    for good in range(flushes):
        left = [None] * good

        def failing(fd: int, left: list = left) -> None:
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left.pop()
            fsync(fd)

        monkeypatch.setattr(os, "fsync", failing)
        shutil.rmtree(dst, ignore_errors=True)
        with pytest.raises(ShardError, match="No space left on device") as error:
            pack(source, dst, workers=1)
        assert "\n" not in str(error.value)
        assert not list(dst.rglob("*.tmp"))
        assert_unfinished(dst)
    monkeypatch.undo()
    pack(source, dst, workers=1)
    assert digests(dst) == digests(packed)


def test_a_full_disk_is_one_line_and_with_more_room_the_pack_resumes(source, packed, tmp_path):
    with small_disk(tmp_path / "disk", "48k") as disk:
        with pytest.raises(
            ShardError,
            match="No space left on device; make room or choose another disk, then run the same",
        ):
            pack(source, disk / "dst")
        assert not list(disk.rglob("*.tmp"))
        assert_unfinished(disk / "dst")
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        pack(source, disk / "dst")
        assert digests(disk / "dst") == digests(packed)


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from shard_tools.packing.pack import pack

source, dst, random_kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid

def dies(at):  # SIGKILL at event number `at`: an open, rename, removal, new folder, or half-way through a write
    left = at
    def count(torn=None):
        nonlocal left
        if left == 0:
            if torn is not None and os.path.isfile(f"/proc/self/fd/{torn}"):
                os.ftruncate(torn, os.fstat(torn).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    def hook(event, args):
        if event in EVENTS and str(args[0]).startswith((source, dst)):
            count()
    sys.addaudithook(hook)
    os.fsync = count
    pack(source, f"{dst}/{at}", workers=1)

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

at = 0
while (code := wait(child(lambda: dies(at)))) == -signal.SIGKILL:
    at += 1
assert code == 0
for kill in range(random_kills):
    pid = child(lambda: pack(source, f"{dst}/random{kill}"))
    time.sleep(random.uniform(0, 0.04))
    os.kill(pid, signal.SIGKILL)
    wait(pid)
print(at)
"""


def test_a_pack_killed_at_any_moment_ends_with_the_same_bytes(tmp_path):
    source, dst, random_kills = tmp_path / "source", tmp_path / "dst", 20
    write_set(source, {"a b": 1, "c": (1, 3)}, images=1)
    pack(source, tmp_path / "undisturbed")
    expected = digests(tmp_path / "undisturbed")
    dst.mkdir()
    command = [sys.executable, "-c", KILLER, source, dst, str(random_kills)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    kills = int(run.stdout)
    assert kills > 30
    for name in [*map(str, range(kills)), *(f"random{i}" for i in range(random_kills))]:
        if (dst / name / fmt.MANIFEST).exists():  # killed while it tidied up: the set is whole
            ShardIndex.open(dst / name)
            shutil.rmtree(dst / name / ".pack", ignore_errors=True)
        else:
            if (dst / name).exists():
                assert_unfinished(dst / name)
            pack(source, dst / name)
        assert digests(dst / name) == expected, name


BY_PROCESSES = """
import sys
from shard_tools.packing import workers
from shard_tools.packing.pack import pack
if __name__ == "__main__":
    workers._WORTH_PROCESSES = 0
    pack(sys.argv[1], sys.argv[2], workers=3)
"""


def test_processes_pack_the_same_bytes_and_die_with_the_pack(source, packed, tmp_path):
    script = tmp_path / "by_processes.py"
    script.write_text(BY_PROCESSES)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, script, source]
    subprocess.run([*command, tmp_path / "dst"], check=True, env=environment, timeout=60)
    assert digests(tmp_path / "dst") == digests(packed)
    for kill in range(8):
        dst = tmp_path / f"killed{kill}"
        running = subprocess.Popen([*command, dst], env=environment)
        time.sleep(0.2 + 0.15 * kill)
        running.kill()
        running.wait()
        if not (dst / fmt.MANIFEST).exists():
            pack(source, dst, workers=1)
        shutil.rmtree(dst / ".pack", ignore_errors=True)
        assert digests(dst) == digests(packed), kill


# --- where packs may go


def test_a_finished_set_is_not_touched(source, packed):
    before = digests(packed)
    with pytest.raises(ShardError, match="already holds a finished set"):
        pack(source, packed)
    assert digests(packed) == before


def test_a_foreign_tar_is_not_overwritten(source, tmp_path):
    (tmp_path / "c.tar").write_bytes(b"precious")
    with pytest.raises(ShardError, match=r"c\.tar: not of this pack"):
        pack(source, tmp_path)
    assert (tmp_path / "c.tar").read_bytes() == b"precious"


def test_foreign_files_beside_the_shards_stay(source, tmp_path):
    for name in ("other.tar", "README"):
        (tmp_path / name).write_bytes(b"mine")
    pack(source, tmp_path)
    assert {(tmp_path / name).read_bytes() for name in ("other.tar", "README")} == {b"mine"}


def test_shards_may_be_inside_the_source(copy, packed):
    pack(copy, copy / "shards")
    assert digests(copy / "shards") == digests(packed)


@pytest.mark.parametrize("place", [".", "shards", "c/shards"])
def test_shards_among_the_film_folders_are_refused(copy, tmp_path, place):
    before = digests(copy)
    (tmp_path / "link").symlink_to(copy)
    for root in (copy, tmp_path / "link"):
        with pytest.raises(ShardError, match="among the film folders"):
            pack(copy, root / movienet.FRAMES_DIR / place)
    with pytest.raises(ShardError, match="contains the source"):
        pack(copy / movienet.FRAMES_DIR, copy / movienet.FRAMES_DIR)
    assert digests(copy) == before


@pytest.mark.parametrize("place", ["file", "file/shards"])
def test_a_place_that_cannot_be_a_folder_is_one_line(source, tmp_path, place):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ShardError, match=r"file.*: (Not a directory|File exists); a file is in the place of a folder"):
        pack(source, tmp_path / place)


def test_a_second_pack_into_the_same_folder_is_refused_while_the_first_runs(source, packed, tmp_path, monkeypatch):
    dst, read = tmp_path / "dst", keyframe_folder.list_keyframes
    refusals = []

    def second(film: Path):
        if not refusals:
            refusals.append("")
            with pytest.raises(ShardError, match="another pack is writing here") as error:
                pack(source, dst)
            refusals[0] = str(error.value)
        return read(film)

    monkeypatch.setattr(keyframe_folder, "list_keyframes", second)
    pack(source, dst, workers=1)
    assert refusals[0]
    assert digests(dst) == digests(packed)


@pytest.mark.parametrize("folders", [[], ["240P_frames"], ["240P_frames/f"], ["anno"]])
def test_an_empty_source_is_refused_before_anything_is_written(tmp_path, folders):
    (tmp_path / "src").mkdir()
    for folder in folders:
        (tmp_path / "src" / folder).mkdir(parents=True)
    with pytest.raises(SourceError, match=r"(not a key-frame|an empty) folder"):
        pack(tmp_path / "src", tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


def test_a_source_may_bring_its_own_labels(source, packed, tmp_path, monkeypatch):
    """As a plug-in does: the films of a key-frame folder, with labels that no annotation file holds."""
    of_files = ShardIndex.open(packed)
    labels = {}
    for number, film in enumerate(of_files.films):
        shots = of_files.shots_of(number)["shot"].astype(int)
        ones = np.ones(len(shots), np.int32)
        labels[film] = ShotLabels(shots, ones.astype(np.int8), 5 * ones, 7 * ones, 9 * ones, "val")

    def opener(request: detect.Request) -> Source:
        return Source(fmt.FILMS, open_source(request.source), [], 0.0, {}, labels)

    monkeypatch.setattr(detect, "OPENERS", [opener, *detect.OPENERS])
    pack(source, tmp_path / "dst")
    index = ShardIndex.open(tmp_path / "dst")
    assert np.array_equal(index.frames[:], of_files.frames[:])
    assert set(index.sequences["split"]) == {b"val"}
    assert [index.shots[name].tolist() for name in ("boundary", "scene", "start", "end")] == [
        [value] * len(index.shots) for value in (1, 5, 7, 9)
    ]
    del labels["c"]
    with pytest.raises(SourceError, match="labels for exactly its 4 shots; fix its plug-in"):
        pack(source, tmp_path / "other")


def _scan_that_fails() -> Scan:
    raise KeyError("film")


def _scan_without_its_file() -> Scan:
    return film_scan("a", "", lambda: Path("gone.jpg").read_bytes())


@pytest.mark.parametrize(
    ("scan", "said"),
    [
        (_scan_that_fails, r"plug-in mine: failed \(KeyError: 'film'\); fix or remove it"),
        (_scan_without_its_file, r"gone.jpg: No such file or directory; check the path"),
    ],
)
def test_a_plug_in_that_fails_while_it_reads_is_named_in_one_line(tmp_path, monkeypatch, scan, said):
    shards = [SourceShard(name, scan) for name in "ab"]
    source = Source(fmt.FILMS, shards, [], 0.0, {}, {})
    monkeypatch.setitem(plugins._registered["sources"], "mine", lambda request: source)
    with pytest.raises((ConfigError, ShardError), match=said) as error:
        pack(tmp_path / "any", tmp_path / "dst")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(plugins._registered["sources"], "mine", lambda request: "films")
    with pytest.raises(ConfigError, match="plug-in mine: returned str, not a Source; fix or remove it"):
        pack(tmp_path / "any", tmp_path / "other")


def test_many_random_films_pack_to_what_was_written(tmp_path):
    rng = random.Random(7)
    films = {f"film {i}": sorted(rng.sample(range(40), rng.randint(1, 5))) for i in range(12)}
    for seed, (film, shots) in enumerate(films.items()):
        write_film(tmp_path, film, shots, images=seed % 4 + 1, size=(16 + 8 * seed, 16), seed=seed)
    pack(tmp_path, tmp_path / "dst", workers=3)
    index, pictures = ShardIndex.open(tmp_path / "dst"), keyframes(tmp_path)
    for frame, ((film, shot, image), data) in enumerate(pictures.items()):
        shard, member, offset = index.locate(frame)
        assert member == fmt.member_name(film, shot, image)
        assert Path(shard).read_bytes()[offset : offset + len(data)] == data
    assert index.sequences["frames_per_shot"].tolist() == [list(films).index(film) % 4 + 1 for film in index.films]
