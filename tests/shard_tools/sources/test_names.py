"""Odd names and litter: read alike from folders, zips, tars and addresses, or refused in one line; nothing is lost."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shard_tools.annotations import movienet
from shard_tools.errors import SourceError
from shard_tools.packing.pack import pack
from shard_tools.sources.names import film_of_tar, is_litter, keyframe_of, parts_of
from tests.films import digests, picture, write_film, write_set
from tests.servers import BUCKET, http_server, s3_server, use_s3

FILMS = {"a [1]": 3, "b#%?": (0, 2), "c": 2}
LITTER = ["._c.tar", "__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", ".DS_Store", "Thumbs.db"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("source"), FILMS)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, source) -> dict[str, str]:
    dst = tmp_path_factory.mktemp("packed") / "shards"
    pack(source, dst)
    return digests(dst)


def odd(name: str) -> str:
    """Another spelling of a key-frame's name."""
    number = keyframe_of(name)[1]
    return (name.replace(".jpg", ".JPG"), name.replace(".jpg", ".jpeg"), name.replace("shot", "Shot"))[number]


def with_litter(folder: Path) -> None:
    for name in LITTER:
        if "." in name and not name.startswith("$"):
            (folder / name).write_bytes(b"x")
        else:
            (folder / name).mkdir()
            (folder / name / "c.tar").write_bytes(b"x")
            (folder / name / "SYNO_shot_0000_img_0.jpg").write_bytes(b"x")


def as_folders(source: Path, to: Path) -> Path:
    for film in sorted((source / movienet.FRAMES_DIR).iterdir()):
        folder = to / movienet.FRAMES_DIR / film.name
        folder.mkdir(parents=True)
        for path in film.iterdir():
            shutil.copy(path, folder / odd(path.name))
        with_litter(folder)
    with_litter(to / movienet.FRAMES_DIR)
    with_litter(to)
    return to


def as_tars(source: Path, to: Path) -> Path:
    to.mkdir(parents=True)
    for number, film in enumerate(sorted((source / movienet.FRAMES_DIR).iterdir())):
        with tarfile.open(to / f"{film.name}.{('TAR', 'tar')[number % 2]}", "w") as tar:
            for path in film.iterdir():
                tar.add(path, f"./{film.name}/{odd(path.name)}")
                tar.addfile(tarfile.TarInfo(f"{film.name}/._{path.name}"))
            tar.addfile(tarfile.TarInfo(f"{film.name}/@eaDir/x.jpg"))
    with_litter(to)
    return to


def as_zip(source: Path, to: Path, split: str = "\\") -> Path:
    """Of folders, as a program on Windows writes it."""
    with zipfile.ZipFile(to, "w") as archive:
        for film in (source / movienet.FRAMES_DIR).iterdir():
            for path in film.iterdir():
                archive.write(path, split.join((movienet.FRAMES_DIR, film.name, odd(path.name))))
        for name in LITTER:
            archive.writestr(f"{name}/{movienet.FRAMES_DIR}/c/shot_0000_img_0.jpg", b"x")
        archive.writestr("__MACOSX/240P/._c.tar", b"x")
    return to


def as_zip_of_tars(source: Path, to: Path) -> Path:
    folder = as_tars(source, to.with_suffix(""))
    with zipfile.ZipFile(to, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"240P\\{path.name}")
    shutil.rmtree(folder)
    return to


LAYOUTS: dict[str, Callable[[Path, Path], Path]] = {
    "folders": as_folders,
    "tars": as_tars,
    "x.zip": as_zip,
    "y.ZIP": as_zip_of_tars,
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory, source) -> Path:
    root = tmp_path_factory.mktemp("served")
    (root / BUCKET).mkdir()
    for name, write in LAYOUTS.items():
        write(source, root / BUCKET / name)
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_local_source(layouts, source, packed, tmp_path, layout):
    pack(layouts / BUCKET / layout, tmp_path / "dst", annotations=source)
    assert digests(tmp_path / "dst") == packed


@pytest.fixture(scope="module")
def s3_port(layouts) -> Iterator[int]:
    with s3_server(layouts) as port:
        yield port


@pytest.fixture(scope="module")
def http_port(layouts) -> Iterator[int]:
    with http_server(layouts / BUCKET) as port:
        yield port


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_source_on_s3(s3_port, source, packed, tmp_path, monkeypatch, layout):
    use_s3(monkeypatch, s3_port)
    pack(f"s3://{BUCKET}/{layout}", tmp_path / "dst", annotations=source)
    assert digests(tmp_path / "dst") == packed


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_source_on_a_web_server(http_port, source, packed, tmp_path, layout):
    pack(f"http://127.0.0.1:{http_port}/{layout}", tmp_path / "dst", annotations=source)
    assert digests(tmp_path / "dst") == packed


@pytest.mark.slow
def test_a_signed_address(http_port, source, packed, tmp_path):
    signed = f"http://127.0.0.1:{http_port}/x.zip?X-Amz-Signature=secret&X-Amz-Expires=9"
    pack(signed, tmp_path / "dst", annotations=source)
    assert digests(tmp_path / "dst") == packed


@pytest.mark.slow
def test_folders_of_key_frames_are_films_whatever_the_first_holds(source, tmp_path):
    shutil.copytree(source / movienet.FRAMES_DIR, tmp_path / "films")
    folder = tmp_path / "films" / "0"
    folder.mkdir()
    (folder / "poster.jpg").write_bytes(picture())
    with http_server(tmp_path) as port:
        for address in (tmp_path / "films", f"http://127.0.0.1:{port}/films"):
            with pytest.raises(SourceError, match=r"0/poster\.jpg: not a key-frame name"):
                pack(address, tmp_path / "dst")


# --- archives


def tar_bytes(*members: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.PAX_FORMAT, **options: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def hard_link(name: str, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, to
    return info


def write(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tars").mkdir(exist_ok=True)
    (tmp_path / "tars" / "f.tar").write_bytes(data)


FIRST, SECOND = ("f/shot_0000_img_0.jpg", picture(1)), ("f/shot_0001_img_0.jpg", picture(2))


def test_hard_links_are_the_files_they_link(tmp_path):
    write(tmp_path, tar_bytes(FIRST, hard_link(SECOND[0], FIRST[0])))
    pack(tmp_path / "tars", tmp_path / "dst")
    write_film(tmp_path / "films", "f", 2, images=1)
    for name in ("shot_0000_img_0.jpg", "shot_0001_img_0.jpg"):
        (tmp_path / "films" / movienet.FRAMES_DIR / "f" / name).write_bytes(FIRST[1])
    pack(tmp_path / "films", tmp_path / "expected")
    assert digests(tmp_path / "dst") == digests(tmp_path / "expected")


def test_a_hard_link_out_of_the_tar_is_refused(tmp_path):
    write(tmp_path, tar_bytes(FIRST, hard_link(SECOND[0], "/etc/passwd")))
    with pytest.raises(SourceError, match="is not a plain file"):
        pack(tmp_path / "tars", tmp_path / "dst")


def test_tars_joined_by_cat_are_refused(tmp_path):
    write(tmp_path, tar_bytes(FIRST) + tar_bytes(SECOND))
    with pytest.raises(SourceError, match=r"f\.tar: more data after its end .*`tar --concatenate`"):
        pack(tmp_path / "tars", tmp_path / "dst")


@pytest.mark.parametrize("name", ["f.tar.gz", "f.tgz", "f.TAR.XZ"])
def test_a_compressed_tar_is_refused(tmp_path, name):
    write(tmp_path, tar_bytes(FIRST))
    (tmp_path / "tars" / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=rf"{name}: a compressed tar.*decompress it to \.tar"):
        pack(tmp_path / "tars", tmp_path / "dst")


def test_names_in_latin_1_inside_a_tar(tmp_path):
    form: dict = {"form": tarfile.GNU_FORMAT, "encoding": "latin-1"}
    write(tmp_path, tar_bytes(("Amélie/shot_0000_img_0.jpg", picture(1)), **form))
    pack(tmp_path / "tars", tmp_path / "dst")
    write(tmp_path, tar_bytes(FIRST, ("f/é.jpg", picture(1)), **form))
    with pytest.raises(SourceError, match="not a key-frame name") as error:
        pack(tmp_path / "tars", tmp_path / "other")
    str(error.value).encode("ascii")


def test_a_film_whose_name_is_no_text_is_refused(tmp_path):
    folder = write_film(tmp_path, "f", 1)
    os.rename(folder, os.fsencode(folder.parent) + b"/Am\xe9lie")
    with pytest.raises(SourceError, match="is not UTF-8 text or too long; rename it") as error:
        pack(tmp_path, tmp_path / "dst")
    str(error.value).encode("ascii")


def test_an_encrypted_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("240P/f.tar", tar_bytes(FIRST))
    data = bytearray((tmp_path / "f.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "f.zip").write_bytes(data)
    with pytest.raises(SourceError, match=r"'240P/f\.tar' is encrypted; unpack the zip and give the folder"):
        pack(tmp_path / "f.zip", tmp_path / "dst")


@pytest.mark.parametrize("name", ["../f/shot_0000_img_0.jpg", "shot_0000_img_0.jpg"])
def test_key_frames_in_a_zip_without_a_folder_of_a_film(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr(name, picture())
    with pytest.raises(SourceError, match=r"expected <film>/shot_0000_img_0\.jpg"):
        pack(tmp_path / "f.zip", tmp_path / "dst")


def test_a_pipe_is_not_waited_for(tmp_path):
    folder = write_film(tmp_path, "f", 2)
    (folder / "shot_0001_img_2.jpg").unlink()
    os.mkfifo(folder / "shot_0001_img_2.jpg")
    with pytest.raises(SourceError, match=r"shot_0001_img_2\.jpg: not a plain file; remove it"):
        pack(tmp_path, tmp_path / "dst")


def test_what_names_mean():
    assert all(map(is_litter, LITTER))
    assert not is_litter("..")
    assert parts_of(".\\a\\b.jpg") == ["a", "b.jpg"]
    assert parts_of("a/../b.jpg") == ["a", "..", "b.jpg"]
    assert parts_of("a/") == parts_of("a/@eaDir/b.jpg") == []
    assert keyframe_of("SHOT_0012_IMG_1.JPEG") == (12, 1)
    assert keyframe_of("shot_0012_img_1.jpg.tmp") is None
    assert film_of_tar("tt1.TAR", "") == "tt1"
    assert film_of_tar("anno.tar", "") == film_of_tar("tt1.zip", "") == ""
