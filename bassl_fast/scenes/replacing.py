"""A results folder replaced by a new one: nothing in it that the command did not write is lost."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_OURS = re.compile(
    r"keyframes/shot_\d+_img_\d+\.jpg|sheets/scene-\d+(-\d+)?\.jpg|clips/scene-\d+\.\w+|report\.html|scenes\.json"
)


def replace_folder(folder: Path, draft: Path, old: Path, ours: set[str]) -> list[str]:
    """Put `draft` in the place of `folder`; files of the latter that are not `ours` go with it. Their names.

    Args:
        old: where the earlier folder is meanwhile; it comes back if something fails.
        ours: names of files that the command writes, besides key-frames, sheets, clips, report and `scenes.json`.
    """
    kept = []
    if folder.exists():
        folder.rename(old)
    try:
        for name in sorted(_files(old)) if old.exists() else ():
            if name not in ours and not _OURS.fullmatch(name) and not (draft / name).exists():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(old / name, draft / name, follow_symlinks=False)
                kept.append(name)
        draft.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return kept


def _files(folder: Path, inside: str = "") -> Iterator[str]:
    """Names of the files and links in a folder and the folders in it; `Path.rglob` takes ten times as long."""
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(folder, f"{inside}{entry.name}/")
            else:
                yield f"{inside}{entry.name}"
