"""Lists of clips as their data sets distribute them: which video belongs to which split and class.

    UCF101                   classInd.txt, trainlist01.txt, testlist01.txt (splits 1 to 3)
    HMDB51                   <class>_test_split1.txt with tags 1 train, 2 test, 0 neither; or trainlist01.txt,
                             testlist01.txt without a classInd.txt, which take precedence
    Kinetics                 train.csv, val.csv, test.csv: path label [frames], divided by blanks or commas; a header
                             may name the columns
    Something-Something v1   something-something-v1-{labels,train,validation,test}.csv: id;template
    Something-Something v2   something-something-v2-{labels,train,validation,test}.json

Lists of frames (header `original_vido_id ...`, beside those of Something-Something) give the frames of each clip.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shard_tools.annotations.movienet import SPLITS
from shard_tools.errors import SourceError
from shard_tools.storage.untrusted import parse_json, read_lines, read_text

FOLDERS = ("", "ucfTrainTestlist", "testTrainMulti_7030_splits", "annotations", "labels")  # where lists may be
FRAME_LIST = "original_vido_id"
UCF101, HMDB51, KINETICS, SOMETHING = "UCF101", "HMDB51", "Kinetics", "Something-Something"
_CLASSES = {UCF101: 101, HMDB51: 51}
_MOST_CLASSES = 1 << 20
_PARTS = {"train": "train", "validation": "val", "test": "test"}  # of Something-Something


class Listed(NamedTuple):
    """One line of a list."""

    split: str
    path: str  # of a video or a folder of frames
    label: int  # -1: unknown
    frames: int  # 0: unknown
    where: str  # file and line, for messages


class Listing(NamedTuple):
    """What lists say about a data set.

    Attributes:
        name: of the data set.
        classes: their names, in order of label.
        in_folders: each class is a folder of the same name.
        fps: frames a second at which its videos are decoded by default.
    """

    name: str
    classes: list[str]
    in_folders: bool
    fps: float
    clips: list[Listed]


def find_lists(folder: Path, split_id: int = 1) -> Listing | None:
    """What the lists in `folder`, or in one of `FOLDERS` inside it, say; None if there are none.

    Args:
        split_id: which of the three splits of UCF101 and HMDB51.

    Raises:
        SourceError: a list is missing, malformed or contradicts itself; the message names file and line.
    """
    if (found := list_reader(folder)) is None:
        return None
    where, read = found
    listing = read(where, split_id)
    _check(where, listing)
    return listing


def list_reader(folder: Path) -> tuple[Path, Callable[[Path, int], Listing]] | None:
    """The folder of lists in `folder`, and the function that reads them; None if there are none."""
    for where in (folder / name for name in FOLDERS):
        for there, read in _READERS:
            if there(where):
                return where, read
    return None


def _check(folder: Path, listing: Listing) -> None:
    """Raises: SourceError for a number of classes other than that of the data set."""
    expected = _CLASSES.get(listing.name, len(listing.classes))
    if len(listing.classes) != expected:
        there = len(listing.classes)
        raise SourceError(
            f"{folder}: lists of {there} classes, {listing.name} has {expected}; fetch its lists again, or "
            "arrange the part you have in folders train/ and val/"
        )


def _ucf101(folder: Path, split_id: int) -> Listing:
    index = folder / "classInd.txt"
    numbered: dict[int, str] = {}
    for number, line in read_lines(index):
        match = re.fullmatch(r"([0-9]{1,9})\s+(\S+)\s*", line)
        if match is None or int(match[1]) in numbered:
            raise SourceError(f"{index}:{number}: not a class, or a duplicate; expected '1 ApplyEyeMakeup'")
        numbered[int(match[1])] = match[2]
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        raise SourceError(f"{index}: classes are not numbered 1 to {len(numbered)}; fetch it again")
    classes = [numbered[n] for n in sorted(numbered)]
    clips = list(_in_classes(folder, split_id, classes, first_label=1))
    return Listing(UCF101, classes, True, 25.0, clips)


def _hmdb51_paths(folder: Path, split_id: int) -> Listing:
    paths = [folder / f"{split}list{split_id:02d}.txt" for split in ("train", "test")]
    lines = [line for path in paths for _, line in read_lines(path)]
    classes = sorted({fields[0].split("/")[0] for fields in map(_fields, lines) if fields and "/" in fields[0]})
    return Listing(HMDB51, classes, True, 30.0, list(_in_classes(folder, split_id, classes, first_label=0)))


def _in_classes(folder: Path, split_id: int, classes: list[str], first_label: int) -> Iterator[Listed]:
    """`<class>/<video> [label [frames]]` of {train,test}list0k.txt; the label must be that of the folder."""
    labels = {name: label for label, name in enumerate(classes)}
    for split in ("train", "test"):
        path = folder / f"{split}list{split_id:02d}.txt"
        for number, line in read_lines(path):
            where = f"{path}:{number}"
            name, *numbers = _fields(line) or [""]
            class_name, _, video = name.partition("/")
            if not class_name or not video or "/" in video:
                raise SourceError(f"{where}: not a line of this list; expected 'class/video.avi 1'")
            if class_name not in labels:
                raise SourceError(f"{where}: {class_name} is not a class of the lists; fix them")
            label, last = labels[class_name], len(classes) - 1 + first_label
            if numbers and int(numbers[0]) - first_label != label:
                expected = f"{class_name} has {label + first_label}, of {first_label} to {last}"
                raise SourceError(f"{where}: label {numbers[0]}, {expected}; fix the list")
            yield Listed(split, name, label, int(numbers[1]) if len(numbers) > 1 else 0, where)


def _hmdb51_tags(folder: Path, split_id: int) -> Listing:
    ending = f"_test_split{split_id}.txt"
    classes = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    clips = []
    for label, name in enumerate(classes):
        path = folder / f"{name}{ending}"
        for number, line in read_lines(path):
            video, _, tag = line.strip().rpartition(" ")
            if tag not in ("0", "1", "2") or not video.strip() or "/" in video:
                raise SourceError(f"{path}:{number}: not a line of this list; expected 'video.avi 1', tag 0, 1 or 2")
            if tag != "0":
                split = "train" if tag == "1" else "test"
                clips.append(Listed(split, f"{name}/{video.strip()}", label, 0, f"{path}:{number}"))
    return Listing(HMDB51, classes, True, 30.0, clips)


def _kinetics(folder: Path, split_id: int) -> Listing:
    clips: list[Listed] = []
    names: dict[int, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.csv"
        lines = read_lines(path) if path.is_file() else []
        columns = _header(lines[0][1]) if lines else None
        for number, line in lines[columns is not None :]:
            where = f"{path}:{number}"
            row = dict(zip(columns or ("path", "label", "frames"), _fields(line), strict=False))
            if "label" not in row:
                raise SourceError(f"{where}: not a line of a list of clips; expected 'class/video.mp4 0'")
            clip = Listed(split, row["path"], int(row["label"]), int(row.get("frames", 0)), where)
            clips.append(clip)
            name = clip.path.removeprefix(f"{split}/").rpartition("/")[0].rpartition("/")[2]
            if names.setdefault(clip.label, name) != name:
                raise SourceError(
                    f"{where}: label {clip.label} is used for {name!r} and {names[clip.label]!r}; fix the list"
                )
    if not clips:
        raise SourceError(f"{folder}: lists without clips; write them again")
    highest = max(clips, key=lambda clip: clip.label)
    if highest.label >= _MOST_CLASSES:
        raise SourceError(f"{highest.where}: label {highest.label}, more than {_MOST_CLASSES} classes; fix the list")
    in_folders = all(names.values())
    if in_folders and len(set(names.values())) < len(names):
        raise SourceError(f"{folder}: two labels for one class folder; fix the lists")
    if in_folders and highest.label >= len(names):
        raise SourceError(
            f"{highest.where}: label {highest.label} is out of range: {len(names)} classes are numbered from 0; "
            "renumber them"
        )
    classes = [names.get(label) or str(label) for label in range(highest.label + 1)]
    return Listing(KINETICS, classes, in_folders, 30.0, clips)


def _something_v1(folder: Path, split_id: int) -> Listing:
    labels = folder / "something-something-v1-labels.csv"
    classes = [_unquoted(line.strip()) for _, line in read_lines(labels)]
    clips = []
    for part, split in _PARTS.items():
        path = folder / f"something-something-v1-{part}.csv"
        for number, line in read_lines(path) if path.is_file() else ():
            name, template = (_unquoted(part.strip()) for part in line.partition(";")[::2])
            if part != "test" and not template:
                raise SourceError(f"{path}:{number}: not a line of this list; expected 'id;template'")
            clips.append((split, name, template, f"{path}:{number}"))
    return _something(labels, classes, clips, 12.0)


def _something_v2(folder: Path, split_id: int) -> Listing:
    labels = folder / "something-something-v2-labels.json"
    try:
        numbered = {int(label): name for name, label in _json(labels).items()}
        classes = [numbered[label] for label in range(len(numbered))]
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
        raise SourceError(f'{labels}: not the labels of v2; expected {{"template": "0", ...}}') from None
    clips = []
    for part, split in _PARTS.items():
        path = folder / f"something-something-v2-{part}.json"
        for number, row in enumerate(_json(path, list), 1) if path.is_file() else ():
            where = f"{path}: entry {number}"
            try:
                template = re.sub(r"[\[\]]", "", row.get("template", "") if part == "test" else row["template"])
                clips.append((split, str(row["id"]), template, where))
            except (KeyError, TypeError, AttributeError):
                raise SourceError(f'{where}: not a clip; expected {{"id": "1", "template": "..."}}') from None
    return _something(labels, classes, clips, 30.0)


def _something(labels: Path, classes: list[str], clips: list[tuple[str, str, str, str]], fps: float) -> Listing:
    label_of = {template: label for label, template in enumerate(classes)}
    if len(label_of) < len(classes):
        raise SourceError(f"{labels}: a template appears twice; fetch it again")
    frames = _frames_listed(labels.parent)
    listed = []
    for split, name, template, where in clips:
        if template and template not in label_of:
            raise SourceError(
                f"{where}: {template!r} is not one of the {len(classes)} templates in {labels.name}; fix it"
            )
        listed.append(Listed(split, name, label_of.get(template, -1), frames[name], where))
    return Listing(SOMETHING, classes, False, fps, listed)


def _frames_listed(folder: Path) -> Counter[str]:
    """Frames of every clip according to the lists of frames; 0 for clips in none."""
    found: Counter[str] = Counter()
    for split in SPLITS:
        path = folder / f"{split}.csv"
        if path.is_file() and _first_line(path).startswith(FRAME_LIST):
            found.update(line.split(" ", 1)[0] for _, line in read_lines(path))
    del found[FRAME_LIST]
    return found


_LINE = re.compile(r"(.+?)((?:[\s,]+[0-9]{1,9}){0,2})[\s,]*")
_HEADERS = {
    **dict.fromkeys(("path", "video", "video_path", "file", "filename", "clip", "frame_dir", "name"), "path"),
    **dict.fromkeys(("label", "class", "class_id", "label_id"), "label"),
    **dict.fromkeys(("frames", "num_frames", "total_frames"), "frames"),
}


def _fields(line: str) -> list[str]:
    """Path and up to two numbers of a line of a list, which blanks or commas divide; a path may be in quotes."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return []
    return [_unquoted(match[1]), *re.findall(r"[0-9]+", match[2])]


def _header(line: str) -> list[str] | None:
    """What the columns of a list are if its first line names them, the path first; None if it names none."""
    names = [_HEADERS.get(_unquoted(word).lower(), "") for word in re.split(r"[\s,]+", line.strip())]
    return names if names[0] == "path" and all(names) and len(names) > 1 else None


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].replace(text[0] * 2, text[0]) if quoted else text


def _json(path: Path, kind: type = object) -> Any:
    try:
        found = parse_json(read_text(path))
    except ValueError as error:
        raise SourceError(f"{path}: not JSON ({error}); fetch it again") from None
    if not isinstance(found, kind):
        raise SourceError(f"{path}: not a list; fetch it again")
    return found


def _first_line(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.readline()


def _has_kinetics(folder: Path) -> bool:
    lists = [folder / f"{split}.csv" for split in SPLITS]
    return any(path.is_file() and not _first_line(path).startswith(FRAME_LIST) for path in lists)


# Tried in this order, the most specific first.
_READERS: list[tuple[Callable[[Path], bool], Callable[[Path, int], Listing]]] = [
    (lambda folder: (folder / "classInd.txt").is_file(), _ucf101),
    (lambda folder: (folder / "something-something-v1-labels.csv").is_file(), _something_v1),
    (lambda folder: (folder / "something-something-v2-labels.json").is_file(), _something_v2),
    (lambda folder: (folder / "trainlist01.txt").is_file(), _hmdb51_paths),
    (lambda folder: any(folder.glob("*_test_split1.txt")), _hmdb51_tags),
    (_has_kinetics, _kinetics),
]
