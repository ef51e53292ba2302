"""The results folder of a film: key-frames, contact sheets, exports, report."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bassl_fast.report.page import earlier_blocks, write_report
from shard_tools.annotations.movienet import keyframe_name
from shard_tools.errors import SourceError, masked
from shard_tools.storage.remote import attempt, filesystem, is_remote
from shard_tools.storage.untrusted import parse_json

from . import exports
from .exports.tables import COLUMNS, scene_row
from .film import FilmScenes
from .page import film_page
from .replacing import replace_folder
from .sheet import draw, sheets_of, title_of
from .videos import CLIPS, NO_VIDEOS, Videos, Written, chapters_name, write_videos

SCENES = "scenes.json"  # says how the folder was made
_END = 1 << 20  # bytes of the begin and the end of a film that tell it from another


def identity(source: str) -> dict[str, Any]:
    """What changes when another film is put at the same path or address, but not when a film is copied or moved."""
    if is_remote(source):
        fs, path = filesystem(source)
        return {"bytes": attempt(source, lambda: fs.size(path))}
    digest, size = hashlib.sha256(), Path(source).stat().st_size
    with open(source, "rb") as file:
        for place in (0, max(0, size - _END)):
            file.seek(place)
            digest.update(file.read(_END))
    return {"bytes": size, "ends_sha256": digest.hexdigest()}


def read_earlier(folder: Path, source: str | None) -> dict[str, Any] | None:
    """`scenes.json` of an earlier run on the same film, if there was one; of any film if `source` is None.

    Raises:
        SourceError: the folder is another film's, or not a results folder.
    """
    if not folder.exists():
        return None
    try:
        earlier = parse_json((folder / SCENES).read_text(encoding="utf-8"))
        same = source is None or earlier["source"] == masked(source) or _moved(earlier, source)
    except (OSError, ValueError, KeyError, TypeError):
        raise SourceError(f"{folder}: exists and is not a result of this command; choose another --out") from None
    if not same:
        raise SourceError(f"{folder}: holds the scenes of {earlier['source']}; choose another --out for {source}")
    return earlier


def _moved(earlier: dict[str, Any], source: str) -> bool:
    """Whether the film of earlier results is given by another path."""
    return Path(earlier["source"]).name == Path(source).name and earlier["made_by"].get("film") == identity(source)


def write_results(
    folder: Path,
    film: FilmScenes,
    made_by: dict[str, Any],
    asked: dict[str, Any],
    videos: Videos = NO_VIDEOS,
    earlier: dict[str, Any] | None = None,
    remote: bool = False,
) -> Written:
    """Write all files of a film; the folder appears, or replaces an earlier one, when all are written.

    Video files that cannot be written do not stop the others; `scenes.json` then says that none were asked for. Files
    that the command did not write stay, and so do clips and the film with chapters, if they are of the same scenes.

    Args:
        made_by, asked: see `exports.scenes_json`.
        videos: what to write now.
        earlier: `scenes.json` of the folder if it has the same shots: images that stay the same are used again.
        remote: the folder is copied to an address, from where the page cannot find the film by a relative path.
    """
    draft, old = (folder.with_name(f".{folder.name}.{what}") for what in ("part", "old"))
    if old.exists() and not folder.exists():
        old.rename(folder)  # a run was killed between two renames
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for name in (exports.KEYFRAMES, "sheets"):
            (draft / name).mkdir(parents=True)
        written = write_videos(film, draft, videos)
        lost = _take_videos(folder, draft, film, earlier)
        split = videos.split or (earlier or {}).get("asked", {}).get("split")
        there = Videos(split if (draft / CLIPS).exists() else None, (draft / chapters_name(film)).exists())
        there = NO_VIDEOS if written.failed else there
        document = exports.scenes_json(film, made_by, asked | there._asdict())
        page = film_page(film, document, None if remote else folder)
        _write_keyframes(film, draft / exports.KEYFRAMES, folder / exports.KEYFRAMES if earlier else None)
        _write_sheets(film, draft / "sheets", folder / "sheets" if earlier else None)
        for name, text in {**exports.texts(film), SCENES: document}.items():
            (draft / name).write_text(text, encoding="utf-8")
        if earlier:
            page.shrunk = earlier_blocks(folder / "report.html", page)
        write_report(draft / "report.html", film.name, [page], {}, film.threshold, {}, subtitle=_subtitle(film))
        of_plug_ins = (earlier or {}).get("asked", {}).get("exports", ())  # some may be gone
        ours = {*exports.formats(), *of_plug_ins, chapters_name(film)}
        kept = replace_folder(folder, draft, old, ours)
        said = [f"deleted, as of other scenes: {' and '.join(lost)}; give --split or --chapters again"] if lost else []
        said += [f"kept from before: {', '.join(kept)}"] if kept else []
        return written._replace(said=[*written.said, *said])
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _take_videos(folder: Path, draft: Path, film: FilmScenes, earlier: dict[str, Any] | None) -> list[str]:
    """Take clips and the film with chapters from the earlier folder if its scenes are these; names of what is left."""
    rows = [dict(zip(COLUMNS, scene_row(scene, film), strict=True)) for scene in film.scenes]
    others = []
    for name in (CLIPS, chapters_name(film)):
        if (draft / name).exists() or not (folder / name).exists():
            continue
        if earlier is None or earlier["scenes"] != rows:
            others.append(name)
        elif name == CLIPS:
            shutil.copytree(folder / name, draft / name, copy_function=_copy)
        else:
            _copy(folder / name, draft / name)
    return others


def _copy(file: str | Path, to: str | Path) -> None:
    if not _link(file, to):
        shutil.copy2(file, to)


def not_written(error: Exception, folder: str) -> SourceError:
    """The error of a video file that could not be written, of a film whose other results were."""
    return SourceError(f"{error}; all else is in {folder}")


def _write_keyframes(film: FilmScenes, folder: Path, earlier: Path | None) -> None:
    """Key-frames of all shots, taken from an earlier folder of the same shots if there is one."""
    for shot in film.shots:
        for i in range(len(shot.keyframes)):
            name = keyframe_name(shot.number, i)
            if not (earlier and _link(f"{earlier}/{name}", f"{folder}/{name}")):
                (folder / name).write_bytes(shot.keyframes[i])


def _write_sheets(film: FilmScenes, folder: Path, earlier: Path | None) -> None:
    """Contact sheets of all scenes, taken from an earlier folder of the same shots where it has them."""
    there = {title_of(file): file for file in earlier.glob("scene-*.jpg")} if earlier else {}
    new = []
    for sheet in (sheet for scene in film.scenes for sheet in sheets_of(scene, film.timing)):
        if sheet.title in there:
            _copy(there[sheet.title], folder / sheet.name)
        else:
            new.append(sheet)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow frees Python's lock
        list(pool.map(lambda sheet: (folder / sheet.name).write_bytes(draw(sheet, film.timing)), new))


def _link(file: str | Path, to: str | Path) -> bool:
    """The same file under another name, at no cost; False where the file system has no links."""
    try:
        os.link(file, to)
    except OSError:
        return False
    return True


def _subtitle(film: FilmScenes) -> str:
    shortest = f"; no scene shorter than {film.shortest:g} s" if film.shortest else ""
    threshold = f"Threshold {film.threshold:.3f}: {film.threshold_from}{shortest}."
    return f"{masked(film.source)}, scored by {film.method}. {threshold}"
