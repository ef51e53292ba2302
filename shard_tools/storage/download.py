"""Files over HTTP onto this machine: resumed by byte range, checked, and in their place only when whole.

What has come is kept in `<name>.part`; beside it `<name>.part.json` says of which version of the file (ETag or date,
and size), for a file that changed on the server must not be glued to the one before.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shard_tools.errors import ConfigError, RemoteError

from .cache import sha256_of
from .untrusted import parse_json

_BLOCK = 1 << 20


@dataclass(frozen=True)
class File:
    """One file to download.

    Args:
        url: http:// or https:// address.
        name: path below the destination.
        sha256: of the whole file, to be checked; "" if nobody published it.
    """

    url: str
    name: str
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"{self.name}: url {self.url!r} is no http(s) address; fill in where the file is served")
        if Path(self.name).is_absolute() or ".." in Path(self.name).parts or self.name in ("", "."):
            raise ConfigError(f"{self.url}: name {self.name!r} would leave the destination; give a plain relative path")


def download(
    file: File,
    destination: str | Path,
    wait: float = 60.0,
    timeout: float = 20.0,
    progress: Callable[[int, int | None], object] = lambda done, total: None,
) -> Path:
    """Fetch one file, going on where an earlier call stopped; returns its path.

    Args:
        destination: folder; made if missing.
        wait: seconds without one new byte after which it is given up.
        timeout: seconds that a connection may be silent.
        progress: called with (bytes here, bytes in all or None).

    Raises:
        RemoteError: nothing came for `wait` seconds, the server refuses, the disk is full, or the checksum is another.
    """
    path = Path(destination) / file.name
    if path.is_file() and (not file.sha256 or _digest(path) == file.sha256):
        progress(path.stat().st_size, path.stat().st_size)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    deadline, pause = time.monotonic() + wait, 0.1
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch(file.url, part, note, timeout, progress):
                break
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429) and error.code < 500:
                raise RemoteError(f"{file.url}: {error.code} {error.reason}; look whether the file has moved") from None
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
        except OSError as error:  # this machine's disk
            raise RemoteError(f"{part}: {error.strerror}; mend this and run the same command to go on") from None
        if part.exists() and part.stat().st_size > before:
            deadline, pause = time.monotonic() + wait, 0.1
        if time.monotonic() + pause > deadline:
            raise RemoteError(f"{file.url}: nothing came for {wait:.0f} s ({reason}); run the same command to go on")
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
    if file.sha256 and (found := _digest(part)) != file.sha256:
        part.unlink()
        note.unlink(missing_ok=True)
        raise RemoteError(f"{file.url}: sha256 is {found}, expected {file.sha256}; it was deleted, download it again")
    os.replace(part, path)
    note.unlink(missing_ok=True)
    return path


def _fetch(url: str, part: Path, note: Path, timeout: float, progress: Callable[[int, int | None], object]) -> bool:
    """Fetch what is missing of `part`; whether it is whole then."""
    known = _read_note(note)
    here = part.stat().st_size if part.exists() and known else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if here:
        request.add_header("Range", f"bytes={here}-")
        if known["version"] and not known["version"].startswith("W/"):
            request.add_header("If-Range", known["version"])
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and here:  # nothing beyond what is here: whole, or another file by now
            if here == known["total"]:
                return True
            part.unlink()
            return False
        raise
    with answer:
        length = answer.headers.get("Content-Length")
        total = here + int(length) if answer.status == 206 and length else int(length) if length else None
        facts = {"version": answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "", "total": total}
        if answer.status != 206 or facts != known:
            if answer.status == 206 and here:  # a part of another version
                part.unlink()
                return False
            here = 0
        note.write_text(json.dumps(facts), encoding="utf-8")
        with open(part, "r+b" if here else "wb") as out:
            out.seek(here)
            while block := answer.read1(_BLOCK):
                out.write(block)
                here += len(block)
                progress(here, total)
    return total is None or here == total


def _read_note(path: Path) -> dict | None:
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
        return facts if set(facts) == {"version", "total"} else None
    except (OSError, ValueError, TypeError):
        return None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return sha256_of(file)
