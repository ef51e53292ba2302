"""Sources: a set of films gives the same shards in every layout; what is wrong with a tar or a zip is one line."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from shard_tools.annotations import movienet
from shard_tools.errors import ConfigError, MissingDependency, RemoteError, ShardError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from tests.films import digests, picture, write_set
from tests.servers import BUCKET, http_server, s3_server, use_s3

FILMS = {"a b": 3, "c": (0, 2, 7, 8), "Æ – 映": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("source"), FILMS, {"c": "test"})


@pytest.fixture(scope="module")
def packed(tmp_path_factory, source) -> dict[str, str]:
    dst = tmp_path_factory.mktemp("packed") / "shards"
    assert pack(source, dst).gaps == {"c": [range(1, 2), range(3, 7)]}
    return digests(dst)


def write_tars(source: Path, folder: Path, inner: bool = True, backwards: bool = False) -> None:
    """A tar a film, with its folder inside or without."""
    folder.mkdir(parents=True)
    for film in (source / movienet.FRAMES_DIR).iterdir():
        with tarfile.open(folder / f"{film.name}.tar", "w") as tar:
            if inner:
                tar.add(film, film.name, recursive=False)
            for path in sorted(film.iterdir(), reverse=backwards):
                tar.add(path, f"{film.name}/{path.name}" if inner else path.name)


def write_zip(source: Path, path: Path, tmp: Path, prefix: str = "240P/", method: int = zipfile.ZIP_STORED) -> None:
    write_tars(source, tmp)
    with zipfile.ZipFile(path, "w", method) as archive:
        if prefix:
            archive.mkdir(prefix.rstrip("/"))
        for tar in sorted(tmp.iterdir(), reverse=True):
            archive.write(tar, prefix + tar.name)


@pytest.mark.parametrize(("inner", "backwards"), [(True, False), (False, True)])
@pytest.mark.parametrize("folder", ["", "240P", "240P_frames"])
def test_a_folder_of_tars(source, packed, tmp_path, inner, backwards, folder):
    write_tars(source, tmp_path / "src" / folder, inner, backwards)
    pack(tmp_path / "src", tmp_path / "dst", annotations=source)
    assert digests(tmp_path / "dst") == packed


@pytest.mark.parametrize("prefix", ["240P/", ""])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_zip(source, packed, tmp_path, prefix, method):
    write_zip(source, tmp_path / "movie1K.keyframes.240p.v1.zip", tmp_path / "tars", prefix, method)
    pack(tmp_path / "movie1K.keyframes.240p.v1.zip", tmp_path / "dst", annotations=source)
    assert digests(tmp_path / "dst") == packed


def test_annotations_beside_the_zip_are_found(source, packed, tmp_path):
    (tmp_path / "data").mkdir()
    write_zip(source, tmp_path / "data" / "films.zip", tmp_path / "tars")
    for name in ("anno", "scene318"):
        (tmp_path / "data" / name).symlink_to(source / name)
    pack(tmp_path / "data" / "films.zip", tmp_path / "dst")
    assert digests(tmp_path / "dst") == packed


def test_missing_annotations(source, tmp_path):
    with pytest.raises(SourceError, match="no folder anno/ or scene318/ in it"):
        pack(source, tmp_path / "dst", annotations=tmp_path)


# --- what is wrong with an archive


def tar_of(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


GOOD = ("f/shot_0000_img_0.jpg", picture())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tar_of(GOOD, ("../shot_0001_img_0.jpg", picture())), r"'\.\./shot_0001_img_0\.jpg' is not a plain file"),
        (tar_of(GOOD, ("/shot_0001_img_0.jpg", picture())), "is not a plain file"),
        (tar_of(GOOD, ("f/../../shot_0001_img_0.jpg", picture())), "is not a plain file"),
        (tar_of(("f/shot_0000_img_0.jpg", b""), kind=tarfile.SYMTYPE), "is not a plain file"),
        (tar_of(GOOD, GOOD), "appears twice"),
        (tar_of(GOOD, ("f/poster.png", b"x")), "not a key-frame name"),
        (tar_of(), "a film without shots"),
        (tar_of(GOOD, ("f/shot_0001_img_1.jpg", picture())), "key-frame missing"),
        (tar_of(GOOD)[:1024], "not a whole tar|cut short"),
        (tar_of(GOOD).rstrip(b"\0"), "not a whole tar|cut short"),
        (b"PK" + bytes(5000), "not a whole tar"),
        (b"notes\n", "not a tar, or cut short"),
        (b"", "cannot be read"),
    ],
)
def test_a_broken_tar_is_one_line_that_names_it(tmp_path, data, said):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "f.tar").write_bytes(data)
    with pytest.raises(SourceError, match=said) as error:
        pack(tmp_path / "src", tmp_path / "dst")
    assert "f.tar" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "dst" / "f.tar").exists()


def test_a_tar_cut_anywhere_is_found(tmp_path):
    whole = tar_of(GOOD, ("f/shot_0001_img_0.jpg", picture(1)))
    (tmp_path / "src").mkdir()
    content = whole.rstrip(b"\0")
    for cut in range(0, len(content), 97):
        (tmp_path / "src" / "f.tar").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"f\.tar"):
            pack(tmp_path / "src", tmp_path / "dst")


def test_a_zip_cut_or_changed_is_found(source, tmp_path):
    write_zip(source, tmp_path / "films.zip", tmp_path / "tars")
    whole = (tmp_path / "films.zip").read_bytes()
    for data, said in (
        (whole[:-30], "not a whole zip"),
        (whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], "cannot be read"),
        (b"", "not a zip; give the zip of key-frames, or the folder"),
        (tar_of(GOOD), "not a zip; give the zip of key-frames, or the folder"),
    ):
        (tmp_path / "films.zip").write_bytes(data)
        with pytest.raises(SourceError, match=said):
            pack(tmp_path / "films.zip", tmp_path / "dst", annotations=source)


@pytest.mark.parametrize("name", ["deep/240P/f.tar", "../f.tar", "f.txt"])
def test_a_zip_of_another_layout(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.writestr(name, tar_of(GOOD))
    with pytest.raises(SourceError, match=r"240P/<film>\.tar"):
        pack(tmp_path / "films.zip", tmp_path / "dst")


def test_decoding_finds_damage_in_the_middle(source, tmp_path):
    data = bytearray(picture())
    scan = data.index(b"\xff\xda")
    data[scan + 4] ^= 0xFF  # a component the header knows nothing of
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "f.tar").write_bytes(tar_of(("shot_0000_img_0.jpg", bytes(data))))
    pack(tmp_path / "src", tmp_path / "trusting")
    with pytest.raises(SourceError, match=r"shot_0000_img_0\.jpg: cannot be decoded"):
        pack(tmp_path / "src", tmp_path / "dst", check="decode")


def test_recheck_reads_finished_shards_again(source, packed, tmp_path, monkeypatch):
    dst = tmp_path / "dst"
    with monkeypatch.context() as patch:
        patch.setattr("shard_tools.packing.pack.write_index", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(source, dst)
    tar = bytearray((dst / "c.tar").read_bytes())
    tar[700] ^= 1
    (dst / "c.tar").write_bytes(tar)
    pack(source, dst, recheck=True)
    assert digests(dst) == packed


# --- behind an address


@pytest.fixture(scope="module")
def bucket(tmp_path_factory, source) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    write_zip(source, folder / BUCKET / "films.zip", folder / BUCKET / "240P")
    for name in ("anno", "scene318", movienet.FRAMES_DIR):
        shutil.copytree(source / name, folder / BUCKET / name)
    with s3_server(folder) as port:
        yield folder / BUCKET, port


@pytest.fixture
def s3(bucket, monkeypatch) -> Path:
    use_s3(monkeypatch, bucket[1])
    return bucket[0]


@pytest.mark.parametrize("kind", ["films.zip", "240P", "240P_frames"])
def test_remote_sources(s3, packed, tmp_path, kind):
    pack(f"s3://{BUCKET}/{kind}", tmp_path / "dst")
    assert digests(tmp_path / "dst") == packed


@pytest.fixture(scope="module")
def web(bucket) -> str:
    with http_server(bucket[0]) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["films.zip", "240P", "240P_frames", ""])
def test_sources_on_a_web_server_with_index_pages(web, packed, tmp_path, kind):
    pack(f"{web}/{kind}", tmp_path / "dst")
    assert digests(tmp_path / "dst") == packed


def test_a_remote_destination_and_a_pack_resumed_there(source, s3, packed, tmp_path, monkeypatch):
    uri = f"s3://{BUCKET}/shards"
    with monkeypatch.context() as patch:
        patch.setattr("shard_tools.packing.pack.write_index", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(source, uri)
    with pytest.raises(ShardError, match="not a finished set"):
        ShardIndex.open(uri)
    before = (s3 / "shards" / "c.tar").stat().st_mtime_ns
    pack(source, uri, workers=3)
    assert digests(s3 / "shards") == packed
    assert (s3 / "shards" / "c.tar").stat().st_mtime_ns == before
    with pytest.raises(ShardError, match="already holds a finished set"):
        pack(source, uri)


def test_wrong_addresses(s3, web, source, tmp_path, monkeypatch):
    with pytest.raises(SourceError, match=r"nothing\.zip: no such file"):
        pack(f"s3://{BUCKET}/nothing.zip", tmp_path / "dst")
    with pytest.raises(SourceError, match="no films here"):
        pack(f"{web}/nothing", tmp_path / "dst")
    with pytest.raises(RemoteError, match="http addresses are read-only; give a path, or an s3://"):
        pack(source, f"{web}/shards")
    with pytest.raises(SourceError, match="no films here"):
        pack(f"s3://{BUCKET}/nothing", tmp_path / "dst")
    with pytest.raises(RemoteError, match="give a path, or an s3://"):
        pack("nonsense://films", tmp_path / "dst")
    with pytest.raises(MissingDependency, match=r"bassl-fast\[gs\]"):
        pack("gs://films", tmp_path / "dst")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-1")
    with pytest.raises(RemoteError, match="no permission"):
        pack(f"s3://{BUCKET}/240P", tmp_path / "dst")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL 'nonsense': not the address of a server"):
        pack(f"s3://{BUCKET}/240P", tmp_path / "dst")
