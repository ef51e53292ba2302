"""Download files over HTTP: resumed by byte range, checked, and renamed into place only when whole.

A partial file is kept as `<name>.part`. `<name>.part.json` beside it records the version of the file (ETag or date, and
size), so that parts of two versions are never joined. A file that is here is the one wanted if its checksum is right
or, where none is published, its size is that on the server. Any other is renamed to `<name>.wrong`, never deleted.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from shard_tools.errors import ConfigError, RemoteError, with_fix
from shard_tools.progress import Progress

from .checksums import sha256_of_file
from .untrusted import parse_json

_BLOCK = 1 << 20
Announce = Callable[[int | None], object]  # called with the bytes of the whole file, None if unknown


@dataclass(frozen=True)
class File:
    """One file to download.

    Args:
        url: http:// or https:// address.
        name: path below the destination.
        sha256: checksum of the whole file, as 64 hexadecimal digits in upper or lower case; "" if none is published.

    Raises:
        ConfigError: not an http(s) address, a name outside the destination, or not a sha256.
    """

    url: str
    name: str
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"{self.name}: url {self.url!r} is not an http(s) address; give the address of the file")
        if Path(self.name).is_absolute() or ".." in Path(self.name).parts or self.name in ("", "."):
            raise ConfigError(f"{self.url}: name {self.name!r} is outside the destination; give a plain relative path")
        object.__setattr__(self, "sha256", "".join(self.sha256.split()).lower())
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise ConfigError(
                f"{self.name}: sha256 {self.sha256!r} has {len(self.sha256)} characters or others than 64 hexadecimal "
                'digits; copy it again, or write "" if none is published'
            )


def download(
    file: File,
    destination: str | Path,
    wait: float = 60.0,
    timeout: float = 20.0,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Path:
    """Download one file, resuming where an earlier call stopped; returns its path.

    Args:
        destination: folder; created if missing.
        wait: seconds without a new byte after which to give up.
        timeout: seconds that a connection may be silent.
        progress: counts bytes.
        announce: called with the size of the file each time a server answers; `progress` then counts from 0 again,
            starting with the bytes already here. `tqdm.reset` is one.

    Raises:
        RemoteError: no byte for `wait` seconds, the server refuses or sends a web page instead of a file, the disk is
            full, or the checksum differs.
    """
    path, bar = Path(destination) / file.name, _Bar(progress, announce)
    if path.is_file():
        if _is_whole(path, file, timeout, wait):
            bar.begin(path.stat().st_size, path.stat().st_size)
            return path
        _set_aside(path, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    deadline, pause = time.monotonic() + wait, 0.1
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch(file.url, part, note, timeout, bar):
                break
            reason = "the connection was cut"
        except _OF_SERVER as error:
            reason = _reason(file.url, error)
        except OSError as error:  # this machine's disk
            raise RemoteError(with_fix(error, str(part))) from None
        if part.exists() and part.stat().st_size > before:
            deadline, pause = time.monotonic() + wait, 0.1
        if time.monotonic() + pause > deadline:
            raise RemoteError(f"{file.url}: no data for {wait:.0f} s ({reason}); run the same command to resume")
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
    if file.sha256 and (found := sha256_of_file(part)) != file.sha256:
        note.unlink(missing_ok=True)
        kept = _set_aside(part, path)
        raise RemoteError(
            f"{file.url}: sha256 is {found}, expected {file.sha256}; kept as {kept}, check the sum or download it again"
        )
    os.replace(part, path)
    note.unlink(missing_ok=True)
    return path


_SHA256 = re.compile("[0-9a-f]{64}")
_OF_SERVER = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def _reason(url: str, error: Exception) -> str:
    """Why a request failed, if it may succeed later.

    Raises:
        RemoteError: it will not.
    """
    if isinstance(error, urllib.error.HTTPError):
        if error.code not in (408, 429) and error.code < 500:
            raise RemoteError(f"{url}: {error.code} {error.reason}; check whether the file moved") from None
        return f"{error.code} {error.reason}"
    return " ".join(str(error).split()) or type(error).__name__


def _is_whole(path: Path, file: File, timeout: float, wait: float) -> bool:
    """Whether the file that is here is the one wanted: by its checksum, or else by its size on the server.

    Raises:
        RemoteError: there is no checksum, and no answer within `wait` seconds.
    """
    if file.sha256:
        return sha256_of_file(path) == file.sha256
    deadline = time.monotonic() + wait
    while True:
        try:
            with _request(file.url, 0, None, timeout) as answer:
                _check_answer(file.url, file.name, answer)
                total = _facts(answer, 0)["total"]
            return total is None or total == path.stat().st_size
        except _OF_SERVER as error:
            reason = _reason(file.url, error)
        if time.monotonic() + 0.5 > deadline:
            raise RemoteError(f"{file.url}: no answer for {wait:.0f} s ({reason}); run the same command again")
        time.sleep(0.5)


def _check_answer(url: str, name: str, answer: HTTPResponse) -> None:
    """Raises: RemoteError for an answer that is not a file."""
    if answer.status not in (200, 206):
        raise RemoteError(
            f"{url}: the server answers {answer.status} {answer.reason} instead of the file; fix the address"
        )
    is_page = answer.headers.get_content_type() == "text/html"
    if is_page and not name.lower().endswith((".html", ".htm")):
        raise RemoteError(
            f"{url}: the server sends a web page instead of the file, possibly to log in; give the address of the file"
        )


def _set_aside(path: Path, name: Path) -> Path:
    """Rename a file to `<name>.wrong`, or with a number if there is one already; returns its new path."""
    endings = (".wrong", *(f".wrong{number}" for number in range(2, 1000)))
    free = next(new for ending in endings if not (new := name.with_name(name.name + ending)).exists())
    path.rename(free)
    return free


@dataclass
class _Bar:
    progress: Progress | None
    announce: Announce | None

    def begin(self, here: int, total: int | None) -> None:
        if self.announce:
            self.announce(total)
        self.add(here)

    def add(self, done: int) -> None:
        if self.progress:
            self.progress(done)


def _fetch(url: str, part: Path, note: Path, timeout: float, bar: _Bar) -> bool:
    """Download what `part` lacks; True if it is whole afterwards."""
    known = _read_note(note)
    here = part.stat().st_size if part.exists() and known else 0
    try:
        answer = _request(url, here, known, timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not here or not known:
            raise
        # No bytes beyond those here: the part is whole, or the file changed.
        if here == known["total"]:
            return True
        part.unlink()
        return False
    with answer:
        _check_answer(url, part.name.removesuffix(".part"), answer)
        facts = _facts(answer, here)
        if answer.status == 206 and here and facts != known:  # another version
            part.unlink()
            return False
        if answer.status != 206 or facts != known:
            here = 0
        note.write_text(json.dumps(facts), encoding="utf-8")
        bar.begin(here, facts["total"])
        with open(part, "r+b" if here else "wb") as out:
            out.seek(here)
            while block := answer.read1(_BLOCK):
                out.write(block)
                here += len(block)
                bar.add(len(block))
    return facts["total"] is None or here == facts["total"]


def _request(url: str, here: int, known: dict[str, Any] | None, timeout: float) -> HTTPResponse:
    """Ask for the file from byte `here` on, if it is still the `known` version."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if here and known:
        request.add_header("Range", f"bytes={here}-")
        if known["version"] and not known["version"].startswith("W/"):  # a weak ETag allows no ranges
            request.add_header("If-Range", known["version"])
    return urllib.request.urlopen(request, timeout=timeout)


def _facts(answer: HTTPResponse, here: int) -> dict[str, Any]:
    """Version and size of the whole file, as its server states them."""
    length = answer.headers.get("Content-Length")
    total = None if not length else int(length) + (here if answer.status == 206 else 0)
    return {"version": answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "", "total": total}


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
        return facts if set(facts) == {"version", "total"} else None
    except (OSError, ValueError, TypeError):
        return None
