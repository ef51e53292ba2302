"""A results folder replaced by a new one: nothing in it that the command did not write is lost."""

from __future__ import annotations

import re
import shutil
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
        for file in sorted(path for path in old.rglob("*") if not path.is_dir() or path.is_symlink()):
            name = file.relative_to(old).as_posix()
            if name not in ours and not _OURS.fullmatch(name) and not (draft / name).exists():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, draft / name, follow_symlinks=False)
                kept.append(name)
        draft.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return kept
