"""What a file of a source is by its name: the same rules for folders, zips, tars and remote folders."""

from __future__ import annotations

import re

from shard_tools.errors import SourceError

# What systems leave beside files: Windows, macOS, Synology, ext4. Like dot files it is not part of a source.
LITTER = frozenset(
    ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information")
)
_KEYFRAME = re.compile(r"shot_([0-9]{1,9})_img_([0-9]{1,4})\.jpe?g", re.IGNORECASE)
_PACKED_TAR = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)


def is_litter(name: str) -> bool:
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in LITTER


def keyframe_of(name: str) -> tuple[int, int] | None:
    """Shot and image of a key-frame's file name, in upper or lower case; None if it is not one."""
    match = _KEYFRAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def parts_of(path: str) -> list[str]:
    """Folders and file name of a path in an archive; empty for a folder and for litter.

    Some programs on Windows write backslashes.
    """
    path = path.replace("\\", "/")
    parts = [part for part in path.split("/") if part != "."]
    return [] if path.endswith("/") or any(map(is_litter, parts)) else parts


def film_of_tar(name: str, where: str) -> str:
    """The film in a tar of this file name; "" if it is not the name of a tar, or of one of annotations.

    Raises:
        SourceError: a compressed tar.
    """
    if is_litter(name) or name.lower() in ("anno.tar", "scene318.tar"):
        return ""
    if _PACKED_TAR.search(name) and not name.lower().startswith(("anno.", "scene318.")):
        raise SourceError(f"{where}/{name}: a compressed tar, in which films cannot be found; decompress it to .tar")
    return name[:-4] if name.lower().endswith(".tar") else ""
