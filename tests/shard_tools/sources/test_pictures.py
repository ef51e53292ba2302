"""Pictures in folders of classes: many share a shard, each is where the index says; what is wrong is one line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shard_tools.errors import BasslFastError, ConfigError, ShardError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.packing.repair import repair
from shard_tools.packing.verify import verify
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.sources import folders as trees
from shard_tools.sources.detect import Reading
from tests.films import digests, picture

SMALL = 20_000  # bytes a shard is cut at here
CLASSES = ["n01", "n02 a", "n02", "Æ"]  # "n02 a/..." stands before "n02/..." though "n02" comes before "n02 a"


def write_tree(
    root: Path, classes: list[str] = CLASSES, splits: tuple[str, ...] = ("train", "val"), each: int = 7
) -> Path:
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                suffix = ("JPEG", "jpg", "jpeg")[i % 3]
                data = picture(100 * s + 10 * c + i, (40 + i, 32 + c))
                (root / split / name / f"{name}_{7 * i}.{suffix}").write_bytes(data)
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory, source) -> Path:
    dst = tmp_path_factory.mktemp("packed") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "SHARD", SMALL)
        pack(source, dst, workers=1)
    return dst


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(trees, "SHARD", SMALL)


@pytest.fixture
def shards(packed, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def refused(source: Path, dst: Path, **options) -> str:
    with pytest.raises(BasslFastError) as error:
        pack(source, dst, workers=1, **options)
    assert "\n" not in str(error.value)
    assert not (dst / fmt.MANIFEST).exists()
    return str(error.value)


# --- the bytes, read by all


def test_every_picture_is_where_the_index_says_with_its_class_and_size(packed, source):
    index = ShardIndex.open(packed)
    assert (index.kind, index.classes) == ("pictures", sorted(CLASSES))
    assert {shard["name"].split("-")[0] for shard in index.shards} == {"train", "val"}
    assert len(index.shards) > 4
    assert [shard["name"] for shard in index.shards] == sorted(shard["name"] for shard in index.shards)
    found = set()
    for number, row in enumerate(index.sequences):
        shard, member, offset = index.locate(number)
        split, name = row["split"].decode(), row["name"].decode()
        (path,) = (source / split).glob(f"{name}.*")
        data = path.read_bytes()
        assert (member, row["shots"], row["frames_per_shot"], row["first_frame"]) == (f"{name}.jpg", 1, 1, number)
        assert Path(shard).read_bytes()[offset : offset + len(data)] == data
        assert index.classes[row["label"]] == path.parent.name
        assert (row["width"], row["height"]) == Image.open(path).size
        found.add(path)
    assert found == {path for path in source.rglob("*") if path.is_file()}
    assert set(index.shots.tolist()) == {(0, -1, -1, -1, -1)}


def test_select_gives_the_pictures_of_a_split(packed):
    index = ShardIndex.open(packed)
    assert set(index.sequences["split"][index.select("val")].tolist()) == {b"val"}
    assert len(index.select("train")) == len(index.select("val")) == 28
    assert index.select(None).tolist() == list(range(56))
    with pytest.raises(ShardError, match="no picture in split 'test'; there are train, val"):
        index.select("test")


def test_shards_are_cut_at_the_limit(packed):
    for shard in ShardIndex.open(packed).shards:
        assert shard["bytes"] <= SMALL + len(fmt.END_OF_TAR)


def test_webdataset_gives_every_picture(packed, source):
    import webdataset

    tars = [str(path) for path in sorted(packed.glob("train-*.tar"))]
    found = {sample["__key__"]: sample["jpg"] for sample in webdataset.WebDataset(tars, shardshuffle=False)}
    assert found == {f"{p.parent.name}/{p.stem}": p.read_bytes() for p in (source / "train").rglob("*.*")}


def test_dali_reads_every_picture_through_the_idx(packed):
    dali = pytest.importorskip("nvidia.dali", reason="needs DALI (an extra such as cuda130)")
    paths = [str(path) for path in sorted(packed.glob("*.tar"))]

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        indices = [str(Path(path).with_suffix(".idx")) for path in paths]
        jpeg = dali.fn.readers.webdataset(paths=paths, index_paths=indices, ext=["jpg"], name="reader")
        return dali.fn.decoders.image(jpeg, device="cpu")

    reader, index = pipeline(), ShardIndex.open(packed)
    reader.build()
    assert reader.epoch_size("reader") == len(index.sequences)
    shapes = [reader.run()[0].at(0).shape for _ in index.sequences]
    assert shapes == [(height, width, 3) for height, width in index.sequences[["height", "width"]].tolist()]


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_packs_the_same_bytes(source, packed, tmp_path, small, workers):
    pack(source, tmp_path / "dst", workers=workers)
    assert digests(tmp_path / "dst") == digests(packed)


def test_files_in_another_order_with_other_times_and_litter_are_the_same_bytes(source, packed, tmp_path, small):
    for path in sorted(source.rglob("*.*"), reverse=True):
        new = tmp_path / "other" / path.relative_to(source)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(path.read_bytes())
        os.utime(new, (1e9, 1e9))
    (new.parent / ".DS_Store").write_bytes(b"x")
    (new.parent / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "other" / "LICENSE").write_bytes(b"x")
    pack(tmp_path / "other", tmp_path / "dst", workers=1)
    assert digests(tmp_path / "dst") == digests(packed)


def test_a_tree_without_splits(tmp_path):
    write_tree(tmp_path / "src", splits=("",))
    pack(tmp_path / "src", tmp_path / "dst")
    index = ShardIndex.open(tmp_path / "dst")
    assert [shard["name"] for shard in index.shards] == ["all-00000.tar"]
    assert set(index.sequences["split"].tolist()) == {b""}
    with pytest.raises(ShardError, match="no picture in split 'train'; pack with lists or folders of splits"):
        index.select("train")


def test_a_class_named_train_is_a_class(tmp_path):
    write_tree(tmp_path / "src", ["bus", "train"], ("",))
    pack(tmp_path / "src", tmp_path / "dst")
    assert ShardIndex.open(tmp_path / "dst").classes == ["bus", "train"]


# --- what ImageNet holds under the names of JPEGs


def encoded(kind: str, image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


IMAGE = Image.open(io.BytesIO(picture(5, (48, 32))))
KEPT = {
    "grey": encoded("JPEG", IMAGE.convert("L")),
    "CMYK": encoded("JPEG", IMAGE.convert("CMYK")),
    "PNG": encoded("PNG", IMAGE),
    "PNG with alpha": encoded("PNG", IMAGE.convert("RGBA")),
    "PNG with a palette": encoded("PNG", IMAGE.quantize(16)),
    "something after the end": encoded("JPEG", IMAGE) + b"made by a camera" * 20,
    "turned by EXIF": encoded("JPEG", IMAGE, exif=turned()),
}


@pytest.mark.parametrize("name", KEPT)
def test_bytes_that_dali_decodes_are_kept_as_found(tmp_path, name):
    dali = pytest.importorskip("nvidia.dali", reason="needs DALI (an extra such as cuda130)")
    (tmp_path / "src" / "c").mkdir(parents=True)
    (tmp_path / "src" / "c" / "odd.JPEG").write_bytes(KEPT[name])
    pack(tmp_path / "src", tmp_path / "dst", check="decode")
    index = ShardIndex.open(tmp_path / "dst")
    shard, _, offset = index.locate(0)
    data = np.fromfile(shard, np.uint8)[offset : offset + int(index.frames[0]["size"])]
    assert data.tobytes() == KEPT[name]
    assert verify(tmp_path / "dst", "all") == []

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        jpeg = dali.fn.external_source(source=lambda: [data])
        return dali.fn.decoders.image(jpeg, device="cpu", output_type=dali.types.RGB, adjust_orientation=False)

    decoder = pipeline()
    decoder.build()
    pixels = np.asarray(decoder.run()[0].at(0))
    assert pixels.shape[:2] == tuple(index.sequences[["height", "width"]][0]) == (32, 48)
    expected = np.asarray(Image.open(io.BytesIO(KEPT[name])).convert("RGB"), np.int16)
    assert np.abs(pixels - expected).max() <= 3


REFUSED = {
    "GIF": (encoded("GIF", IMAGE), "not a JPEG"),
    "WebP": (encoded("WEBP", IMAGE), "not a JPEG"),
    "text": (b"<html>404</html>", "not a JPEG"),
    "nothing": (b"", "zero bytes"),
    "cut JPEG": (picture()[:-9], "truncated JPEG"),
    "cut PNG": (encoded("PNG", IMAGE)[:-9], "truncated PNG"),
    "cut JPEG with a thumbnail's end": (picture(3, comment=b"\xff\xd9")[:-9], "truncated JPEG"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_a_picture_is_refused_by_name(tmp_path, name):
    data, reason = REFUSED[name]
    write_tree(tmp_path / "src", ["c"], ("",))
    (tmp_path / "src" / "c" / "odd.JPEG").write_bytes(data)
    said = refused(tmp_path / "src", tmp_path / "dst")
    assert said.startswith(f"{tmp_path}/src/c/odd.JPEG: {reason}")
    assert said.endswith("; fetch this picture again or remove it")


# --- trees that are not right


def empty_class(root: Path) -> str:
    (root / "val" / "n03").mkdir()
    (root / "train" / "n03").mkdir()
    return "train/n03: a class without pictures; fill or remove its folder"


def one_split_only(root: Path) -> str:
    shutil.rmtree(root / "val" / "n02")
    return "val: no class 'n02', which"


def flat_val(root: Path) -> str:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    (root / "val" / "a.JPEG").write_bytes(picture())
    return "val: no folders of classes in it; sort its pictures"


def loose(root: Path) -> str:
    (root / "train" / "a.JPEG").write_bytes(picture())
    return "train/a.JPEG: not in the folder of a class; move it into one or away"


def other_file(root: Path) -> str:
    (root / "train" / "n01" / "boxes.txt").write_bytes(b"x")
    return "n01/boxes.txt: its name is not that of a picture"


def deeper(root: Path) -> str:
    (root / "train" / "n01" / "images").mkdir()
    return "n01/images: its name is not that of a picture"


def same_stem(root: Path) -> str:
    (root / "train" / "n01" / "n01_0.jpg").write_bytes(picture())
    return "would be packed as n01/n01_0, like n01_0."


def dotted(root: Path) -> str:
    for name in ("a.b.jpg", "a_b.jpg"):
        (root / "train" / "n01" / name).write_bytes(picture())
    return "would be packed as n01/a_b, like a"


def other_case(root: Path) -> str:
    for split in ("train", "val"):
        shutil.copytree(root / split / "n01", root / split / "N01")
    return "classes 'N01' and 'n01' differ only in case or Unicode form; merge them"


def other_form(root: Path) -> str:
    for split in ("train", "val"):
        for name in ("ü", "u\u0308"):
            shutil.copytree(root / split / "n01", root / split / name)
    return "differ only in case or Unicode form"


def dead_link(root: Path) -> str:
    (root / "train" / "n01" / "x.jpg").symlink_to("nowhere")
    return "n01/x.jpg: No such file or directory; fetch this picture again"


def long_name(root: Path) -> str:
    (root / "train" / "n01" / f"{'x' * 150}.jpg").write_bytes(picture())
    return "rename it"


def misnamed_split(root: Path) -> str:
    (root / "val").rename(root / "validation")
    return "validation: is beside the split 'train'; name it train, val or test"


BREAKS = [
    misnamed_split,
    empty_class,
    one_split_only,
    flat_val,
    loose,
    other_file,
    deeper,
    same_stem,
    dotted,
    other_case,
    other_form,
    dead_link,
    long_name,
]


@pytest.mark.parametrize("spoil", BREAKS)
def test_a_wrong_tree_is_one_line(source, tmp_path, spoil):
    root = Path(shutil.copytree(source, tmp_path / "src"))
    reason = spoil(root)
    assert reason in refused(root, tmp_path / "dst")


def test_pictures_numbered_like_frames_need_the_layout(tmp_path):
    for number in range(1, 5):
        (tmp_path / "src" / "c").mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / "c" / f"{number:08d}.jpg").write_bytes(picture(number))
    assert "say which with --layout pictures or --layout clips" in refused(tmp_path / "src", tmp_path / "dst")
    for layout in ("pictures", "clips"):
        pack(tmp_path / "src", tmp_path / layout, reading=Reading(layout))
        assert ShardIndex.open(tmp_path / layout).kind == layout


@pytest.mark.parametrize(
    "options", [{"layout": "photos"}, {"split_id": 4}, {"short_side": 8}, {"fps": 0.0}, {"fps": float("nan")}]
)
def test_an_option_out_of_range_is_one_line(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Reading(**options)


@pytest.mark.parametrize(("name", "value"), [("split_id", 2), ("short_side", 128), ("fps", 12)])
def test_options_of_clips_are_refused(source, tmp_path, name, value):
    assert f"--{name} is for clips" in refused(source, tmp_path / "dst", reading=Reading(**{name: value}))


def test_lists_of_pictures_are_refused(source, tmp_path):
    assert "--annotations is for films and clips" in refused(source, tmp_path / "dst", annotations=tmp_path)


def test_a_missing_folder_is_one_line(tmp_path):
    for layout in ("pictures", "clips"):
        said = refused(tmp_path / "absent", tmp_path / "dst", reading=Reading(layout))
        assert said.endswith(f"absent: no such folder; give the one that holds the {layout}")


def test_remote_pictures_are_refused(tmp_path):
    with pytest.raises(SourceError, match="pictures are packed from a local folder; copy it to this machine"):
        pack("s3://bucket/pictures", tmp_path / "dst", reading=Reading("pictures"))


# --- stopped packs


def stop(monkeypatch, source: Path, dst: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("shard_tools.packing.pack.write_index", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(source, dst, workers=1)


def test_a_stopped_pack_resumes_and_packs_again_only_what_changed(source, packed, tmp_path, monkeypatch, small):
    copy, dst = Path(shutil.copytree(source, tmp_path / "src")), tmp_path / "dst"
    stop(monkeypatch, copy, dst)
    with pytest.raises(ShardError, match="not a finished set of shards"):
        ShardIndex.open(dst)
    before = {path: path.stat().st_mtime_ns for path in dst.glob("*.tar")}
    os.utime(copy / "val" / "Æ" / "Æ_0.JPEG", (1e9, 1e9))
    pack(copy, dst, workers=1)
    assert digests(dst) == digests(packed)
    again = [path.name for path in before if path.stat().st_mtime_ns != before[path]]
    assert len(again) == 1
    assert again[0].startswith("val-")
    with pytest.raises(ShardError, match="already holds a finished set"):
        pack(copy, dst)


def test_shards_that_a_smaller_source_no_longer_fills_are_removed(source, tmp_path, monkeypatch, small):
    copy, dst = Path(shutil.copytree(source, tmp_path / "src")), tmp_path / "dst"
    stop(monkeypatch, copy, dst)
    shutil.rmtree(copy / "val")
    pack(copy, dst, workers=1)
    pack(copy, tmp_path / "fresh", workers=1)
    assert digests(dst) == digests(tmp_path / "fresh")


def test_a_foreign_shard_is_not_overwritten(source, tmp_path):
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst" / "train-00000.tar").write_bytes(b"precious")
    assert "not of this pack, so it is not overwritten" in refused(source, tmp_path / "dst")
    assert (tmp_path / "dst" / "train-00000.tar").read_bytes() == b"precious"


# --- verify and repair


def test_a_whole_set_has_no_fault(packed):
    assert verify(packed, "all") == []


def test_any_change_to_a_shard_is_found_and_named(shards):
    rng, index = np.random.default_rng(0), ShardIndex.open(shards)
    path = shards / index.shards[1]["name"]
    whole = bytearray(path.read_bytes())
    for at in {0, len(whole) - 1, *rng.integers(0, len(whole), 40).tolist()}:
        whole[at] ^= 1
        path.write_bytes(whole)
        assert [fault.split(":")[0] for fault in verify(shards, "none")] == [str(path)]
        whole[at] ^= 1
    path.write_bytes(whole[:-700])
    assert "cut off" in verify(shards, "none")[-1] or "its end" in verify(shards, "none")[-1]


def test_repair_packs_again_only_what_is_broken(shards, packed, source, small):
    names = [shard["name"] for shard in ShardIndex.open(shards).shards]
    (shards / names[0]).unlink()
    (shards / Path(names[2]).with_suffix(".idx")).write_bytes(b"v1.2 0\n")
    data = bytearray((shards / names[3]).read_bytes())
    data[2000] ^= 1
    (shards / names[3]).write_bytes(data)
    assert len(verify(shards)) == 3
    before = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.tar")}
    repair(shards, source, workers=1)
    assert digests(shards) == digests(packed)
    again = {path.name for path in shards.glob("*.tar") if before.get(path.name) != path.stat().st_mtime_ns}
    assert again == {names[0], names[2], names[3]}


def test_repair_from_another_source_is_refused_before_anything_changes(shards, source, tmp_path, small):
    other = Path(shutil.copytree(source, tmp_path / "other"))
    (other / "train" / "n01" / "n01_0.JPEG").rename(other / "train" / "n01" / "n01_1.JPEG")
    before = digests(shards)
    with pytest.raises(ShardError, match="holds other pictures than"):
        repair(shards, other, workers=1)
    assert digests(shards) == before


def test_repair_of_pictures_needs_the_manifest(shards, source):
    (shards / fmt.MANIFEST).write_text("{")
    with pytest.raises(ShardError, match="damaged, so how pictures were read is unknown; pack again"):
        repair(shards, source)


# --- an index that does not tell the truth


def rewrite(shards: Path, **columns) -> None:
    """Change columns of `sequences.npy` as an attacker would: with the right checksum in the manifest."""
    sequences = np.load(shards / fmt.SEQUENCES)
    for column, (row, value) in columns.items():
        sequences[column][row] = value
    data = fmt.npy_bytes(sequences)
    (shards / fmt.SEQUENCES).write_bytes(data)
    manifest = json.loads((shards / fmt.MANIFEST).read_text())
    manifest["index"][fmt.SEQUENCES] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (shards / fmt.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"name": (3, b"../n01")}, "not a plain file name"),
        ({"name": (3, b"/etc/x")}, "not a plain file name"),
        ({"name": (3, b"n01/../x")}, "not a plain file name"),
        ({"name": (3, b"n01//x")}, "not a plain file name"),
        ({"name": (3, b"n01/x/")}, "not a plain file name"),
        ({"name": (0, b"")}, "not a plain file name"),
        ({"name": (slice(3, 5), b"n01/n01_5")}, "appears twice"),
        ({"split": (slice(None), b"train")}, "appears twice"),
        ({"label": (2, 4)}, "a label beyond the 4 classes"),
        ({"label": (2, -2)}, "a label beyond the 4 classes"),
    ],
)
def test_an_impossible_index_is_refused(shards, columns, said):
    rewrite(shards, **columns)
    with pytest.raises(ShardError, match=said):
        ShardIndex.open(shards)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        names.filter(lambda name: not name.startswith(".")),
        st.sets(names.filter(lambda name: not name.startswith(".")), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 6000),
)
def test_any_tree_packs_to_a_true_index(monkeypatch, tree, limit):
    """Whatever the names and wherever shards are cut: all pictures, in order, and tarfile finds each at its offset."""
    monkeypatch.setattr(trees, "SHARD", limit)
    with tempfile.TemporaryDirectory() as folder:
        root, dst = Path(folder, "src"), Path(folder, "dst")
        for c, (name, stems) in enumerate(tree.items()):
            (root / name).mkdir(parents=True)
            for i, stem in enumerate(sorted(stems)):
                (root / name / f"{stem}.jpg").write_bytes(picture(10 * c + i, (16, 16)))
        try:
            pack(root, dst, workers=1, reading=Reading("pictures"))
        except SourceError as error:  # two classes or pictures that would be one
            if "differ only in case" in str(error) or "would be" in str(error):
                return
            raise
        index = ShardIndex.open(dst)
        assert sorted(index.films) == sorted(f"{c}/{s.replace('.', '_')}" for c, stems in tree.items() for s in stems)
        assert verify(dst, "none") == []
        for frame in range(len(index.frames)):
            shard, member, offset = index.locate(frame)
            with tarfile.open(shard) as tar:
                assert tar.getmember(member).offset_data == offset
