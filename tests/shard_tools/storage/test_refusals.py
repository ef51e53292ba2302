"""What a store refuses is said at once, with the cause, and names the source or the destination, whichever it is."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from bassl_fast import cli
from shard_tools.errors import RemoteError, ShardError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.output import RemotePlace
from shard_tools.storage.remote import attempt, fetch, filesystem, listing
from tests.films import digests, write_set
from tests.servers import use_s3

pytestmark = pytest.mark.slow
ERROR = "<Error><Code>{}</Code><Message>{}</Message>{}</Error>"


MARKED = ["films/", "films/a/", "films/a/shot_0000_img_0.jpg"]  # a console's marks of folders are empty files


class S3(BaseHTTPRequestHandler):
    """Buckets named after their answers; of HEAD there is only the status."""

    def do_GET(self) -> None:
        bucket = self.path.split("/")[1].split("?")[0]
        status, headers, body = 200, {}, ""
        if bucket == "expired":
            status, body = 400, ERROR.format("ExpiredToken", "The provided token has expired.", "")
        elif bucket == "abroad":
            status, headers = 301, {"x-amz-bucket-region": "eu-west-3"}
            body = ERROR.format("PermanentRedirect", "Another endpoint.", "")
        elif bucket == "signed-for":
            status = 400
            body = ERROR.format("AuthorizationHeaderMalformed", "Expecting another.", "<Region>eu-west-3</Region>")
        elif bucket == "marked":
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            keys = [key for key in MARKED if key.startswith(asked.get("prefix", ""))]
            deeper = [key for key in keys if asked.get("delimiter") and "/" in key.removeprefix(asked["prefix"])]
            body = "".join(
                f"<Contents><Key>{key}</Key><Size>0</Size><ETag>e</ETag></Contents>"
                for key in keys
                if key not in deeper
            ) + "<CommonPrefixes><Prefix>films/a/</Prefix></CommonPrefixes>" * bool(deeper)
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{body}</ListBucketResult>"
        self.send_response(status)
        data = b"" if self.command == "HEAD" else body.encode()
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/xml", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_HEAD = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def s3(monkeypatch) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), S3)
    Thread(target=server.serve_forever, daemon=True).start()
    use_s3(monkeypatch, server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("bucket", "said"),
    [
        ("expired", "the session token is not valid, The provided token has expired.; renew AWS_SESSION_TOKEN"),
        ("abroad", "the bucket is in another region; set AWS_DEFAULT_REGION=eu-west-3"),
        ("signed-for", "the bucket is in another region; set AWS_DEFAULT_REGION=eu-west-3"),
    ],
)
@pytest.mark.parametrize("verb", ["source", "destination", "shards"])
def test_s3_says_no_at_once_and_why(s3, tmp_path, bucket, said, verb):
    started = time.monotonic()
    with pytest.raises(RemoteError) as error:
        if verb == "source":
            pack(f"s3://{bucket}/films.zip", tmp_path / "dst")
        elif verb == "destination":
            pack(write_set(tmp_path / "films", {"a": 1}), f"s3://{bucket}/shards")
        else:
            ShardIndex.open(f"s3://{bucket}/shards")
    assert said in str(error.value)
    assert str(error.value).startswith(f"s3://{bucket}/")
    assert time.monotonic() - started < 10


def test_a_missing_profile_is_named_at_once(s3, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    started = time.monotonic()
    with pytest.raises(RemoteError, match="AWS_PROFILE is not a profile of this machine; add it"):
        pack("s3://films/x.zip", tmp_path / "dst")
    assert time.monotonic() - started < 10


def test_a_local_file_that_cannot_be_written_is_named_at_once(tmp_path):
    (tmp_path / "in the way").mkdir()
    fs, path = filesystem("memory://local/a")
    fs.pipe_file(path, b"a")
    with pytest.raises(IsADirectoryError):
        attempt("memory://local/a", lambda: fetch(fs, path, tmp_path / "in the way", 1))
    with pytest.raises(FileExistsError):
        attempt("memory://local/a", lambda: fetch(fs, path, Path("/dev/null/a"), 1))


def test_marks_of_folders_are_not_files(s3):
    assert [(entry.name, entry.is_folder) for entry in listing("s3://marked/films")] == [("a", True)]
    assert [entry.name for entry in listing("s3://marked/films/a")] == ["shot_0000_img_0.jpg"]
    assert RemotePlace("s3://marked/films/a").tree("") == ["shot_0000_img_0.jpg"]


def test_a_disk_without_fsync_of_folders(tmp_path, monkeypatch):
    root = write_set(tmp_path / "films", {"a": 1})
    pack(root, tmp_path / "expected")
    sync = os.fsync

    def fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(fault, os.strerror(fault))
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    fault = errno.EINVAL
    pack(root, tmp_path / "dst")
    assert digests(tmp_path / "dst") == digests(tmp_path / "expected")
    fault = errno.EIO
    with pytest.raises(ShardError, match="Input/output error"):
        pack(root, tmp_path / "broken")


@pytest.mark.parametrize("where", ["films", ".", "films/..", ""])
def test_a_destination_that_contains_its_source_is_refused(tmp_path, monkeypatch, where):
    root = write_set(tmp_path / "films", {"a": 1})
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ShardError, match="contains the source, films; choose a folder of its own"):
        pack("films", where or tmp_path)
    with pytest.raises(ShardError, match="contains the source"):
        pack("s3://films/a/b.zip", "s3://films/a/")
    assert cli.main(["pack", "films", str(where or tmp_path)]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    pack(root, root / "shards")  # beside the films is fine


class Vanishing(BaseHTTPRequestHandler):
    """An index page of a film that is not there when it is fetched."""

    def do_GET(self) -> None:
        page = b'<a href="f.tar">f.tar</a>'
        found = self.path.rstrip("/") == "/films"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(page) if found else 0))
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(page)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_source_that_is_gone_is_named_and_not_the_destination(tmp_path: Path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vanishing)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/films"
    try:
        with pytest.raises(SourceError) as error:
            pack(address, tmp_path / "dst")
        assert str(error.value).startswith(f"{address}/f.tar: gone since the source was listed")
        assert str(tmp_path) not in str(error.value)
    finally:
        server.shutdown()
        server.server_close()
