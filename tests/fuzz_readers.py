"""What `tests.fuzz` feeds: every reader of files from elsewhere, valid inputs of it, and hostile ones."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from hypothesis import strategies as st

from bassl_fast import config
from bassl_fast.checkpoints import checkpoint, exchange, importing
from bassl_fast.checkpoints.model import from_state, load_model
from bassl_fast.segmentation.features import FeatureSet
from bassl_fast.segmentation.model import load_finetuned
from bassl_fast.training.pretrain import pretrain
from pipelines.store import Store
from shard_tools.annotations import movienet
from shard_tools.annotations.scene_lists import find_scene_lists, match_videos, read_scene_list
from shard_tools.packing.completeness import compare
from shard_tools.packing.pack import pack
from shard_tools.packing.verify import verify
from shard_tools.packing.writer import PackedShard, sequence_rows
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.films import open_source
from shard_tools.sources.lists import find_lists
from shard_tools.video.shot_list import read_shot_list
from shard_tools.video.subtitles import find_subtitles, read_subtitles
from tests.films import picture, write_set
from tests.shard_tools.video.test_subtitles import pgs

Files = dict[str, bytes]  # path below the input's folder -> content


@dataclass(frozen=True)
class Reader:
    """Something that reads files from elsewhere.

    Attributes:
        make: valid inputs.
        read: reads an input, and all that there is of it.
        hostile: inputs that are well-formed and say what they should not.
        seal: fixes the checksums of a damaged input, so that what they protect is read too.
        share: how many inputs it gets, against the others.
    """

    make: Callable[[], list[Files]]
    read: Callable[[Path], object]
    hostile: st.SearchStrategy[Files] | None = None
    seal: Callable[[Files], Files] = lambda files: files
    share: int = 10


# --- Values that are out of place, in trees of plain values ---

INTEGERS = st.sampled_from([0, 1, -1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**15, 10**30])
NAMES = st.sampled_from(["", ".", "..", "../../etc/passwd", "/etc/passwd", "a/b", "a\0b", "x" * 5000, "\ud800", "%s%n"])
VALUES = st.one_of(
    INTEGERS,
    NAMES,
    st.sampled_from([None, True, 1e308, float("inf"), float("nan"), -0.5, [], {}, [[]], {"a": 1}, "9" * 5000, "1e9"]),
    st.text(max_size=6),
).map(copy.deepcopy)  # lists among them are written to


def places(tree: Any, above: tuple = ()) -> Iterator[tuple]:
    """Paths to all values of a tree but its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


@st.composite
def twisted(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one to three values replaced, left out or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        *above, key = draw(st.sampled_from(list(places(tree)) or [(None,)]))
        node = tree
        for step in above:
            node = node[step]
        if key is None:
            return draw(VALUES)
        match draw(st.integers(0, 6)):
            case 0:
                del node[key]
            case 1 if isinstance(node, list):
                node.append(node[key])
            case 1:
                node[draw(st.text(max_size=3))] = node[key]
            case 2:
                node[key] = [node[key]]
            case _:
                node[key] = draw(VALUES)
    return tree


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode(errors="surrogatepass")


# --- npy ---


def npy(descr: Any, shape: Any, order: Any, data: bytes, version: bytes = b"\1\0") -> bytes:
    """A `.npy` file with any header (numpy.lib.format)."""
    header = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode("latin1", "replace") + b"\n"
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header + data


@st.composite
def npy_files(draw: st.DrawFn, array: np.ndarray) -> bytes:
    """The array, its header twisted: other shapes, types and sizes than there are bytes for."""
    descr = draw(
        st.sampled_from(
            [np.lib.format.dtype_to_descr(array.dtype)] * 3
            + ["|O", "<f8", "<U1000000000", "V99999999", [], [("a", "<i4"), ("a", "<i4")], "<M8[s]", 3, "zz"]
        )
    )
    count = st.sampled_from([0, 1, len(array), len(array) + 1, 10**6, 10**9, 10**15, 2**62, 2**63, 10**30, -1])
    shape = draw(st.one_of(st.tuples(count), st.tuples(count, count), st.just(()), st.just(None), st.just([3])))
    order = draw(st.sampled_from([False, False, True, None, 7]))
    version = draw(st.sampled_from([b"\1\0", b"\2\0", b"\3\0", b"\xff\0"]))
    return npy(descr, shape, order, array.tobytes(), version)


@st.composite
def rows(draw: st.DrawFn, array: np.ndarray) -> bytes:
    """A structured array with some cells at the edges of what its columns hold."""
    array = array.copy()
    for _ in range(draw(st.integers(1, 4))):
        column, row = draw(st.sampled_from(array.dtype.names)), draw(st.integers(0, len(array) - 1))
        if array.dtype[column].kind == "S":
            array[column][row] = draw(st.sampled_from([b"", b"..", b"/etc", b"\xff\xfe", b"a", b"../a", b"train"]))
        else:
            bounds = np.iinfo(array.dtype[column])
            edges = [bounds.min, bounds.max, bounds.max // 2, 0, 1, 2, 3, 512]
            array[column][row] = draw(st.sampled_from([edge for edge in edges if bounds.min <= edge <= bounds.max]))
    return fmt.npy_bytes(array)


# --- tars of key-frames, and a zip of them ---

FILM = {f"a/shot_{shot:04d}_img_{image}.jpg": picture(shot * 3 + image) for shot in range(3) for image in range(3)}


def tar_of(members: list[tarfile.TarInfo], data: list[bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of any members; the bytes of each follow its header whatever size that tells."""
    out = b""
    for member, content in zip(members, data, strict=True):
        out += member.tobuf(kind, "utf-8", "surrogateescape") + content + fmt.padding(len(content))
    return out + fmt.END_OF_TAR


def member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def film_tars() -> list[Files]:
    plain = tar_of([member(name, len(data)) for name, data in FILM.items()], list(FILM.values()), tarfile.USTAR_FORMAT)
    dated = [member(name, len(data)) for name, data in FILM.items()]
    for info in dated:
        info.pax_headers = {"mtime": "1.5", "path": f"a/{info.name[2:]}"}
    return [{"a.tar": plain}, {"a.tar": tar_of(dated, list(FILM.values()))}]


@st.composite
def twisted_tars(draw: st.DrawFn) -> bytes:
    """A tar of a film in which some members are not what they should be."""
    members, data = [member(name, len(data)) for name, data in FILM.items()], list(FILM.values())
    for _ in range(draw(st.integers(1, 3))):
        info = draw(st.sampled_from(members))
        match draw(st.integers(0, 6)):
            case 0:
                info.name = draw(NAMES.filter(lambda name: "\0" not in name)) + draw(st.sampled_from(["", ".jpg"]))
            case 1:
                info.type = draw(st.sampled_from([bytes([kind]) for kind in b"01234567xgLKSDVX\0"]))
                info.linkname = draw(st.sampled_from(["", "/etc/passwd", "a/shot_0000_img_0.jpg"]))
            case 2:
                info.size = draw(st.sampled_from([0, 1, -1, -512, -(2**40), 8**11 - 1, 8**11, 2**62, 2**63, 10**20]))
            case 3:
                keys = ["size", "path", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major", "hdrcharset", "mtime"]
                values = ["-1", "0", "9" * 30, "..", "1,2,3", "0,9999999999999", "BINARY", "1e400", "nan", "\n"]
                info.pax_headers = {draw(st.sampled_from(keys)): draw(st.sampled_from(values))}
            case 4:
                data[members.index(info)] = draw(st.sampled_from([b"", b"\xff\xd8", b"x" * 1000, bytes(5000)]))
            case 5:
                members.append(info)
                data.append(data[0])
            case 6:
                members.remove(info)
                data.pop()
        if not members:
            break
    try:
        return tar_of(members, data, draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])))
    except (ValueError, OverflowError):  # no header can say so
        return tar_of([], [])


def read_source(folder: Path) -> None:
    (path,) = folder.iterdir()
    for film in open_source(path if path.suffix == ".zip" else folder):
        for sequence in film.scan().sequences():
            assert len(sequence.shots) == len(list(sequence.images))
            for images in sequence.images:
                for image in images:
                    bytes(image.read())


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def film_zips() -> list[Files]:
    tar = film_tars()[0]["a.tar"]
    folder = {f"240P_frames/a/shot_{shot:04d}_img_0.jpg": picture(shot) for shot in range(2)}
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return [{"films.zip": zip_of(files, kind)} for files in ({"240P/a.tar": tar}, folder) for kind in kinds]


@st.composite
def twisted_zips(draw: st.DrawFn) -> Files:
    name = draw(
        st.sampled_from(["240P/a.tar", "a.tar", "../a.tar", "/a.tar", "240P/b/a.tar", ".tar", "a.txt", "a\0.tar"])
    )
    kind = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    tar = draw(twisted_tars()) if draw(st.booleans()) else film_tars()[0]["a.tar"]
    data = bytearray(zip_of({"240P/a.tar": film_tars()[0]["a.tar"], name: tar}, kind))
    directory = data.find(b"PK\1\2")
    for _ in range(draw(st.integers(0, 2))):  # fields of a directory entry: method, times, crc, sizes, lengths, offset
        at = directory + draw(st.integers(4, 45))
        size = draw(st.sampled_from([1, 2, 4]))
        data[at : at + size] = draw(st.sampled_from([b"\xff", b"\0", b"\x7f", b"\1"])) * size
    return {"films.zip": bytes(data)}


# --- the index of a set ---


@cache
def packed(kind: str = fmt.FILMS) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        if kind == fmt.FILMS:
            write_set(source, {"a": 4, "b": (0, 2, 3)}, {"b": "test"})
        for name in ("cat", "dog") if kind == fmt.PICTURES else ():
            (source / "train" / name).mkdir(parents=True)
            for number, letter in enumerate("abc"):
                (source / "train" / name / f"{letter}.jpg").write_bytes(picture(number))
        pack(source, Path(folder, "shards"), workers=1, quiet=True)
        return {path.name: path.read_bytes() for path in Path(folder, "shards").iterdir()}


def array_of(name: str, kind: str = fmt.FILMS) -> np.ndarray:
    return np.load(io.BytesIO(packed(kind)[name]), allow_pickle=False)


def seal_set(files: Files) -> Files:
    """The manifest with the sizes and checksums that the arrays have now."""
    try:
        manifest = json.loads(files[fmt.MANIFEST])
        for name in fmt.ARRAYS:
            facts = {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
            manifest["index"][name] = facts
    except (ValueError, KeyError, TypeError, RecursionError):
        return files
    return {**files, fmt.MANIFEST: as_json(manifest)}


@st.composite
def twisted_sets(draw: st.DrawFn) -> Files:
    kind = draw(st.sampled_from([fmt.FILMS, fmt.FILMS, fmt.PICTURES]))
    files = dict(packed(kind))
    name = draw(st.sampled_from([fmt.MANIFEST, *fmt.ARRAYS]))
    if name == fmt.MANIFEST:
        return {**files, name: as_json(draw(twisted(json.loads(files[name]))))}
    array = array_of(name, kind)
    files[name] = draw(st.one_of(rows(array), npy_files(array)))
    return seal_set(files)


def read_set(folder: Path) -> None:
    index = ShardIndex.open(folder)
    for split in (None, "train"):
        films = index.select(split)
    for film in films.tolist():
        index.shots_of(film)["shot"].tolist()
    index.locate(len(index.frames) - 1)
    store = Store(index)
    store.check(np.arange(len(index.frames)))
    verify(folder, "none", workers=1)


# --- labels ---

LINES = [
    {"video_id": "a", "shot_id": f"{shot:04d}", "num_shot": 4, "boundary_label": int(shot == 1), "invideo_scene_id": 0}
    for shot in range(4)
]


def annotations(lines: list[Any]) -> Files:
    return {
        "anno/anno.train.ndjson": b"\n".join(map(as_json, lines)) + b"\n",
        "scene318/shot_movie318/a.txt": b"0 23 1 2 3\n24 47 1 2 3\n48 71 1 2 3\n72 95 1 2 3\n",
    }


LABELS318 = {
    "scene318/label318/a.txt": b"0000 0\n0001 -1\n0002 1\n",
    "scene318/meta/split318.json": as_json({"train": ["a"], "val": [], "test": ["b"], "all": ["a", "b"]}),
    "scene318/shot_movie318/a.txt": b"0 23 1 2 3\n24 47 1 2 3\n48 71 1 2 3\n72 95 1 2 3\n",
}


def read_annotations(folder: Path) -> None:
    known = movienet.read_labels(folder)
    movienet.labels_of_film(folder, "a", np.array([0, 1, 3]), known)
    film = movienet.annotated_film(folder, "a", known)
    compare(known, [("a", np.array([0, 1, 3]), film)]).lines()


# --- shot lists ---

SHOT_LISTS = [
    {"shots.csv": b"start,end\n0,1.5\n1.5,00:00:03.25\n3.25,9\n"},
    {"shots.csv": b"Timecode List:,00:00:01\nScene Number,Start Frame,Start Time (seconds)\n1,0,0\n2,24,1.0\n"},
    {"shots.csv": b"start_frame\n0\n24\n48\n"},
    {"shots.csv": b"0 23 1 2 3\n24 47 1 2 3\n"},
]


@st.composite
def twisted_lists(draw: st.DrawFn) -> Files:
    starts = st.one_of(
        st.sampled_from(["9" * 400, "1" + "0" * 30, "-1", "nan", "inf", "1e9", "", '"', "\u0663", "\0", "x" * 200_000]),
        st.floats(0, 100).map(str),
        st.integers(0, 10**6).map(str),
    )
    column = draw(st.sampled_from(["start", "start_frame", "Start Time (seconds)", "end", ""]))
    lines = draw(st.lists(starts, max_size=5))
    return {"shots.csv": "\n".join([column, *lines]).encode(errors="surrogatepass")}


# --- checkpoints, ours and foreign ---


def saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


RECIPE = {
    "verb": "pretrain",
    "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 1}},
}
CRN = {"inputs": 4, "hidden": 4, "intermediate": 4, "heads": 1, "layers": 1, "shots": 3}


@cache
def our_states() -> list[dict[str, Any]]:
    from bassl_fast.checkpoints.model import section_of as encoder_section
    from bassl_fast.encoders import ResNet
    from bassl_fast.heads.crn import ContextualRelationNetwork
    from bassl_fast.segmentation.model import SceneBoundary
    from bassl_fast.segmentation.model import section_of as scenes_section
    from pipelines.views import TestViews

    resnet = ResNet(18, 1)
    weights = {f"encoder.{name}": value for name, value in resnet.state_dict().items()}
    encoder = {"state_dict": weights, "global_step": 1, "total_steps": 1, "manifest_sha256": ""}
    tuned = SceneBoundary(ContextualRelationNetwork(**CRN), 4)
    scenes = {"state_dict": dict(tuned.state_dict()), "recipe": {"verb": "finetune"}}
    section, views = encoder_section(resnet, None), TestViews(37, 32)
    return [
        encoder | {"recipe": RECIPE},  # version 1
        scenes | {"crn": CRN, "dim": 4, "views": section["views"], "encoder": None},
        encoder | {"recipe": {}, "model": section},
        scenes | {"model": scenes_section(tuned, views, None)},
        scenes | {"model": scenes_section(tuned, views, {"model": section, "state_dict": weights})},
    ]


EVIL_CLASSES = st.sampled_from(
    ["subprocess.Popen", "os.system", "bassl_fast.runtime.run_folder.RunFolder", "bassl_fast.encoders./x.A", "a.B"]
)


@st.composite
def twisted_checkpoints(draw: st.DrawFn) -> Files:
    state = draw(st.sampled_from(our_states()))
    plain = {key: value for key, value in state.items() if key != "state_dict"}
    plain = draw(twisted(plain))
    if draw(st.integers(0, 3)) == 0:  # classes that are no models
        evil = {"class_path": draw(EVIL_CLASSES), "init_args": {"args": ["touch", "ran"]}}
        plain["model"] = {"version": 2, "kind": "encoder", "encoder": evil, "method": evil, "views": None}
    weights = dict(state["state_dict"])
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(weights)))
        weights[name] = draw(
            st.sampled_from([None, 1, torch.zeros(0), torch.zeros(1).expand(2**40), torch.tensor(True), "x"])
        )
    if isinstance(plain, dict):
        plain["state_dict"] = weights
    return {"x.ckpt": saved(plain)}


def read_checkpoint(folder: Path) -> None:
    state = checkpoint.load(folder / "x.ckpt", checkpoint.ENCODER, checkpoint.SCENES)
    if state["model"]["kind"] == checkpoint.ENCODER:
        load_model(folder / "x.ckpt")
    else:
        _, state = load_finetuned(folder / "x.ckpt")
        if state["model"]["encoder"] is not None:
            from_state(state["model"]["encoder"], "x.ckpt")


class _Evil:
    """Pickles to a call of whatever it is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call

    def __deepcopy__(self, memo: dict) -> _Evil:
        return self  # copied by its state it would be called here


def foreign_files() -> list[Files]:
    from bassl_fast.encoders import ResNet

    weights = {**ResNet(18, 1).state_dict(), "fc.bias": torch.zeros(3)}
    released = {"state_dict": weights, "hyper_parameters": {"lr": 0.3}, "epoch": 3}
    buffer = io.BytesIO()
    torch.save(released, buffer, _use_new_zipfile_serialization=False)
    return [{"x.pth": saved(weights)}, {"x.pth": saved(released)}, {"x.pth": buffer.getvalue()}]


CALLS = [
    _Evil(__import__("os").system, "touch /tmp/bassl-fast-was-here"),
    _Evil(eval, "open('/tmp/bassl-fast-was-here', 'w')"),
    _Evil(open, "/tmp/bassl-fast-was-here", "w"),
    _Evil(bytearray, 10**12),
    _Evil(dict, [("a", 1)]),
    _Evil(__import__("pathlib").Path, "/etc"),
    _Evil(np.zeros, 10**12),
]


@st.composite
def twisted_foreign(draw: st.DrawFn) -> Files:
    shapes = [(1, 3, 7, 7), (), (0,), (3,), (1, 1), (2, 3, 7, 7)]
    names = [
        "conv1.weight",
        "module.encoder.conv1.weight",
        "head_nce.2.weight",
        "backbone.conv1.weight",
        "fc.bias",
        "x",
    ]
    weights = {name: torch.zeros(draw(st.sampled_from(shapes))) for name in draw(st.sets(st.sampled_from(names)))}
    key = draw(st.sampled_from(["state_dict", "model_state", "model", "online_network"]))
    tree = {key: dict(sorted(weights.items())), "epoch": 3, "loops": [{"a": 1}], "k": [1, 2]}
    tree["loops"].append(draw(st.sampled_from([None, 1, *CALLS])))
    tree = draw(twisted(tree))
    match draw(st.integers(0, 3)):
        case 0:
            return {"x.pth": pickle.dumps(tree, draw(st.integers(0, 5)))}
        case 1:
            return {"x.pth": draw(st.sampled_from([b"", b"\x80\2", b"PK\3\4"])) + saved(tree)}
        case _:
            return {"x.pth": saved(tree)}


def read_foreign(folder: Path) -> None:
    with redirect_stdout(io.StringIO()):
        exchange.import_checkpoint(str(folder / "x.pth"), str(folder / "out.ckpt"), "instance")


def safetensors_files() -> list[Files]:
    return [{"x.safetensors": safetensors.torch.save({"conv1.weight": torch.zeros(2, 3, 7, 7)})}]


@st.composite
def twisted_safetensors(draw: st.DrawFn) -> Files:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [16, 20]},
    }
    text = as_json(draw(twisted(header)))
    length = draw(st.sampled_from([len(text)] * 5 + [0, 2**32, 2**63, 2**64 - 1]))
    return {"x.safetensors": length.to_bytes(8, "little") + text + bytes(20)}


def read_safetensors(folder: Path) -> None:
    importing._weights(importing._content(folder / "x.safetensors", "x.safetensors"), "x.safetensors")


# --- released archives ---

CONFIG = as_json({"LOSS": {"sampling_method": {"name": "bassl"}}})


def archives() -> list[Files]:
    members = {"bassl/config.json": CONFIG, "bassl/model-v1.ckpt": b"weights" * 100}
    tar = tar_of([member(name, len(data)) for name, data in members.items()], list(members.values()))
    return [{"x.tar.gz": gzip.compress(tar, mtime=0)}, {"x.tar.gz": tar}]


@st.composite
def twisted_archives(draw: st.DrawFn) -> Files:
    members = [member("bassl/config.json", len(CONFIG)), member("bassl/model-v1.ckpt", 700)]
    data = [CONFIG, b"weights" * 100]
    for _ in range(draw(st.integers(1, 3))):
        info = draw(st.sampled_from(members))
        match draw(st.integers(0, 4)):
            case 0:
                info.name = draw(NAMES.filter(lambda name: "\0" not in name))
            case 1:
                info.type = draw(st.sampled_from([bytes([kind]) for kind in b"0123456xgLKSDVX"]))
                info.linkname = draw(st.sampled_from(["", "/etc/passwd", "bassl/config.json", ".."]))
            case 2:
                info.size = draw(st.sampled_from([0, -1, -512, 8**11 - 1, 8**11, 2**62, 2**63, 2**20, 2**35]))
            case 3:
                keys, values = ["size", "path", "GNU.sparse.map", "GNU.sparse.size"], ["-1", "9" * 30, "..", "0,99999"]
                info.pax_headers = {draw(st.sampled_from(keys)): draw(st.sampled_from(values))}
            case 4:
                content = draw(
                    st.one_of(st.just(b""), st.just(bytes(1 << 22)), twisted(json.loads(CONFIG)).map(as_json))
                )
                data[members.index(info)], info.size = content, len(content)
    try:
        tar = tar_of(members, data, draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])))
    except (ValueError, OverflowError):
        tar = b""
    return {"x.tar.gz": gzip.compress(tar, 1, mtime=0) if draw(st.booleans()) else tar}


def read_archive(folder: Path) -> None:
    scratch = folder / "scratch"
    scratch.mkdir()
    path, config_file = importing._find(str(folder / "x.tar.gz"), scratch)
    importing._method_of(config_file)
    path.read_bytes()
    assert sum(file.stat().st_size for file in scratch.iterdir()) < 1 << 30


# --- features ---

PROVENANCE = {
    "dim": 4,
    "dtype": "float32",
    "layout": "film",
    "precision": "32-true",
    "checkpoint": "run/last.ckpt",
    "checkpoint_sha256": "0" * 64,
    "shards": "shards",
    "manifest_sha256": "0" * 64,
    "transform": {"short_side": 256, "size": 224, "split": None},
}


@cache
def features() -> Files:
    arrays = {f"{film}.npy": fmt.npy_bytes(np.ones((shots, 4), np.float32)) for film, shots in (("a", 4), ("b", 3))}
    index = {name: packed()[name] for name in (fmt.SEQUENCES, fmt.SHOTS)}
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in {**arrays, **index}.items()}
    return {**arrays, **index, "features.json": as_json({**PROVENANCE, "sha256": checksums})}


@st.composite
def twisted_features(draw: st.DrawFn) -> Files:
    files = dict(features())
    match draw(st.integers(0, 3)):
        case 0:
            files["features.json"] = as_json(draw(twisted(json.loads(files["features.json"]))))
            return files
        case 1:
            name = "a.npy"
            files[name] = draw(npy_files(np.ones((4, 4), np.float32)))
        case _:
            name = draw(st.sampled_from([fmt.SEQUENCES, fmt.SHOTS]))
            files[name] = draw(st.one_of(rows(array_of(name)), npy_files(array_of(name))))
    # A file that an earlier version wrote has no checksum; one of a hostile set may have the right one.
    provenance = json.loads(files["features.json"])
    if draw(st.booleans()):
        provenance["sha256"][name] = hashlib.sha256(files[name]).hexdigest()
    else:
        del provenance["sha256"]
    files["features.json"] = as_json(provenance)
    return files


def read_features(folder: Path) -> None:
    found = FeatureSet.open(folder)
    for film in found.films(None):
        np.asarray(film.features).sum()
        film.shots["boundary"].tolist()
        assert len(film.shots) == len(film.features)


# --- notes of a stopped pack, and configurations ---


@cache
def notes() -> list[Files]:
    sequences, shots, frames = sequence_rows([(b"a", 4, 3, 32, 48)]), np.arange(4), np.zeros(12, fmt.FRAME)
    return [{"a.npz": PackedShard("a", "0" * 64, 10, "0" * 64, sequences, shots, frames).note()}]


@st.composite
def twisted_notes(draw: st.DrawFn) -> Files:
    facts = draw(twisted({"source": "0" * 64, "bytes": 10, "sha256": "0" * 64}))
    members = {"facts.npy": fmt.npy_bytes(np.array(json.dumps(facts)))}
    arrays = {"sequences": sequence_rows([(b"a", 4, 3, 32, 48)]), "shots": np.arange(4)}
    for name, array in {**arrays, "frames": np.zeros(12, fmt.FRAME)}.items():
        whole = st.just(fmt.npy_bytes(array))
        members[f"{name}.npy"] = draw(st.one_of(npy_files(array), whole, rows(array) if array.dtype.names else whole))
    return {"a.npz": zip_of(members, draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))}


def read_note(folder: Path) -> None:
    found = PackedShard.load("a", (folder / "a.npz").read_bytes())
    if found is not None:  # what `write_index` asks of it
        assert found.frames.dtype == fmt.FRAME
        assert len(found.shots) == found.sequences["shots"].sum()
        assert isinstance(found.size, int)


# --- lists of clips ---

LISTS: list[Files] = [
    {
        "classInd.txt": b"".join(b"%d class%d\n" % (n, n) for n in range(1, 102)),
        "trainlist01.txt": b"class1/v_a.avi 1\nclass2/v_b.avi 2\n",
        "testlist01.txt": b"class2/v_c.avi\n",
    },
    {
        "trainlist01.txt": b"".join(b"class%d/a.avi\n" % n for n in range(51)),
        "testlist01.txt": b"class1/b.avi\n",
    },
    {f"class{n}_test_split1.txt": b"a.avi 1\nb.avi 2\nc.avi 0\n" for n in range(51)},
    {"train.csv": b"a/b.mp4 0 30\nc/d.mp4 1 60\n", "val.csv": b"c/e.mp4 1 12\n"},
    {"train.csv": b'\xef\xbb\xbfpath,label\r\n"a/b.mp4",0\r\nc/d.mp4,1\r\n', "val.csv": b"c/e.mp4,1\r"},
    {
        "something-something-v1-labels.csv": b"Doing a\nDoing b\n",
        "something-something-v1-train.csv": b"1;Doing a\n2;Doing b\n",
        "something-something-v1-validation.csv": b"3;Doing b\n",
    },
    {
        "something-something-v2-labels.json": b'{"Doing a": "0", "Doing b": "1"}',
        "something-something-v2-train.json": b'[{"id": "1", "template": "Doing [a]"}]',
        "something-something-v2-validation.json": b'[{"id": "2", "template": "Doing b"}]',
    },
]


@st.composite
def twisted_listings(draw: st.DrawFn) -> Files:
    part = st.sampled_from(["labels", "train", "validation"])
    files = dict(LISTS[-1])
    name = f"something-something-v2-{draw(part)}.json"
    return {**files, name: as_json(draw(twisted(json.loads(files[name]))))}


RUN = {
    "data": {"shards": "shards", "global_batch": 8},
    "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18}},
    "method": {"class_path": "bassl_fast.methods.BaSSL", "init_args": {"radius": 4, "views": {"size": 32}}},
    "training": {"steps": 2},
}
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)) + "data: *a59\n"


@st.composite
def twisted_configs(draw: st.DrawFn) -> Files:
    text = yaml.safe_dump(draw(twisted(RUN)), allow_unicode=False)
    extra = st.sampled_from(
        ["", "", BOMB, "data: &d {shards: *d}\n", "seed: &s [*s]\n", "seed: !!python/object/apply:os.system [ls]\n",
         "seed: 2001-99-99\n", "? [a]\n: 1\n", "seed: " + "[" * 5000 + "\n", "out: 9" + "9" * 5000 + "\n"]
    )  # fmt: skip
    return {"x.yaml": (text + draw(extra)).encode(errors="surrogatepass")}


@cache
def parser() -> Any:
    return config.make_parser(pretrain)


def read_config(folder: Path) -> None:
    config.parse(parser(), ["--config", str(folder / "x.yaml")])


SCENE_LISTS = [
    {
        "annotations/scenes/annotator_0/1_a.txt": b"0,1,3",
        "annotations/shots/1_a.txt": b"0\t9\n10\t19\n20\t29\n30\t39\n",
    },
    {"annotations/scenes/a_scenes.txt": b"0\t9\r\n10\t29\r\n30\t39\r\n"},
]


def read_scene_lists(folder: Path) -> None:
    for path in match_videos(find_scene_lists(folder), ["bbc_01", "a"])[0].values():
        read_scene_list(path).boundaries(np.array([0, 8, 21]))


_SRT = "1\n00:00:01,000 --> 00:00:02,500\nO\u00f9 ?\n\n2\n00:00:03,000 --> 00:00:04,000\nL\u00e0.\n"
SUBTITLES = [
    {"a.srt": _SRT.encode()},
    {"a.srt": _SRT.encode("utf-16")},
    {"a.srt": _SRT.encode("latin-1")},
    {"a.vtt": b"WEBVTT\n\n00:01.000 --> 00:02.500\nWhere?\n"},
    {"a.ass": b"[Events]\nDialogue: 0,0:00:01.00,0:00:02.50,D,,0,0,0,,Where?\n"},
    {"a.sup": pgs((1, True), (2.5, False), (4, True))},
]


def read_subtitle_files(folder: Path) -> None:
    for path in find_subtitles(folder, ["a"]).values():
        read_subtitles(path)


READERS = {
    "tar": Reader(film_tars, read_source, twisted_tars().map(lambda tar: {"a.tar": tar}), share=20),
    "zip": Reader(film_zips, read_source, twisted_zips(), share=10),
    "index": Reader(lambda: [packed(), packed(fmt.PICTURES)], read_set, twisted_sets(), seal_set, share=15),
    "annotations": Reader(
        lambda: [annotations(LINES), LABELS318],
        read_annotations,
        st.deferred(lambda: twisted(LINES).map(annotations)),
        share=20,
    ),
    "shots": Reader(lambda: SHOT_LISTS, lambda folder: read_shot_list(folder / "shots.csv"), twisted_lists(), share=20),
    "checkpoint": Reader(
        lambda: [{"x.ckpt": saved(state)} for state in our_states()], read_checkpoint, twisted_checkpoints(), share=3
    ),
    "foreign": Reader(foreign_files, read_foreign, twisted_foreign(), share=5),
    "safetensors": Reader(safetensors_files, read_safetensors, twisted_safetensors(), share=5),
    "archive": Reader(archives, read_archive, twisted_archives(), share=10),
    "features": Reader(lambda: [features()], read_features, twisted_features(), share=10),
    "lists": Reader(lambda: LISTS, find_lists, twisted_listings(), share=10),
    "scenes": Reader(lambda: SCENE_LISTS, read_scene_lists, share=10),
    "subtitles": Reader(lambda: SUBTITLES, read_subtitle_files, share=10),
    "note": Reader(notes, read_note, twisted_notes(), share=5),
    "config": Reader(lambda: [{"x.yaml": yaml.safe_dump(RUN).encode()}], read_config, twisted_configs(), share=1),
}
