"""The results folder of a film: key-frames, contact sheets, exports, report."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bassl_fast.report.page import earlier_blocks, write_report
from bassl_fast.report.tables import count
from bassl_fast.runtime.run_folder import RunFolder
from shard_tools.annotations.movienet import keyframe_name
from shard_tools.errors import SourceError, masked
from shard_tools.storage.remote import attempt, filesystem, is_remote
from shard_tools.storage.untrusted import parse_json

from . import exports
from .corrections import check_same_film, correct, read_corrections
from .exports.tables import COLUMNS, scene_row
from .film import FilmScenes, Scene
from .page import film_page
from .replacing import replace_folder
from .sheet import contact_sheets
from .sources import name_of
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
        for shot in film.shots:
            for i in range(len(shot.keyframes)):
                name = f"{exports.KEYFRAMES}/{keyframe_name(shot.number, i)}"
                if not (earlier and _link(folder / name, draft / name)):
                    (draft / name).write_bytes(shot.keyframes[i])
        new = [scene for scene in film.scenes if not (earlier and _link_sheets(folder, draft, scene, film, earlier))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow frees Python's lock
            list(pool.map(lambda scene: _write_sheets(draft / "sheets", scene, film), new))
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
    if not _link(Path(file), Path(to)):
        shutil.copy2(file, to)


def correct_results(source: str, corrections: str, out: str, videos: Videos, start_timecode: str | None) -> str:
    """Write the results of a film again with scenes corrected by hand; the folder.

    Nothing is decoded, and the film need not be there any more.

    Raises:
        SourceError: no results of this film yet, or corrections of another one.
        ConfigError: not a time code of this film.
    """
    document = read_corrections(corrections)
    run, name = RunFolder(out), document["film"]
    given = name_of(source)
    if name.casefold() != given.casefold() and not name.startswith(given):  # of two films of a name, one is renamed
        raise SourceError(f"{corrections}: corrections of {name!r}, not of {given!r}; give that film")
    run.bring(SCENES, name)
    run.bring("*", f"{name}/{exports.KEYFRAMES}")
    folder = run.path / name
    there = is_remote(source) or Path(source).exists()
    earlier = read_earlier(folder, source if there else None)
    if earlier is None:
        other = f" ({corrections} says {name!r}, the film given is {given!r})" if name != given else ""
        raise SourceError(f"{run.where(name)}: no results of this film yet{other}; run without --corrections first")
    check_same_film(corrections, document, earlier)
    film = correct(exports.read_film(folder, earlier), document, earlier)
    made_by, asked = earlier["made_by"], earlier["asked"] | {"exports": sorted(exports.formats())}
    if start_timecode is not None:
        film, asked["start_timecode"] = replace(film, timing=film.timing.starting_at(start_timecode)), start_timecode
    if there:
        if made_by["film"] != identity(source):
            raise SourceError(
                f"{source}: another film than the results are of; find its scenes with another --out, and give the "
                "corrections there"
            )
        film = replace(film, source=source)
    written = write_results(folder, film, made_by, asked, videos, earlier, is_remote(out))
    run.replace(name, SCENES)
    edited = count(len(film.corrected), "edited boundary", "edited boundaries")
    counts = f"{count(len(film.scenes), 'scene')} of {count(len(film.shots), 'shot')}, {edited}"
    print(f"{name}: {counts}, {count(len(film.names), 'name')}\n  {run.where(f'{name}/report.html')}", flush=True)
    for line in written.said:
        print(f"  {line}", flush=True)
    if written.failed:
        raise not_written(written.failed, run.where(name))
    return run.where(name)


def not_written(error: Exception, folder: str) -> SourceError:
    """The error of a video file that could not be written, of a film whose other results were."""
    return SourceError(f"{error}; all else is in {folder}")


def _link_sheets(folder: Path, draft: Path, scene: Scene, film: FilmScenes, earlier: dict[str, Any]) -> bool:
    """Take the contact sheets of a scene from the earlier folder; whether it had the same scene."""
    row = dict(zip(COLUMNS, scene_row(scene, film), strict=True))
    if row not in earlier["scenes"][scene.number - 1 : scene.number]:
        return False
    name = f"scene-{scene.number:03d}"
    sheets = [folder / "sheets" / f"{name}.jpg", *(folder / "sheets").glob(f"{name}-*.jpg")]
    there = [sheet for sheet in sheets if sheet.is_file()]
    return bool(there) and all(_link(sheet, draft / "sheets" / sheet.name) for sheet in there)


def _write_sheets(folder: Path, scene: Scene, film: FilmScenes) -> None:
    for name, sheet in contact_sheets(scene, film.timing):
        (folder / name).write_bytes(sheet)


def _link(file: Path, to: Path) -> bool:
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
