"""The commands that README and docs show are commands that work."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from bassl_fast import cli, config
from bassl_fast.cli.verbs import VERBS, verb_of
from shard_tools.packing.pack import pack
from tests.bassl_fast.cli.test_data import make_clip
from tests.films import picture, write_set
from tests.hub import hub
from tests.servers import BUCKET, http_server, s3_server, use_s3
from tests.shard_tools.sources.test_clips import make_frames, write_ucf

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TOP = sorted(ROOT.glob("*.md"))
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(
    r"\b(?:bassl_fast|benchmarks|configs|docs|launch|pipelines|shard_tools|tests)/[\w./-]+\.(?:py|c|json|yaml|sh|sbatch|md)\b"
)
OF_THE_READER = {"bassl_fast/methods/order.py", "configs/pretrain/order.yaml", "configs/pretrain/NAME.yaml"}
COMMAND = re.compile(r"((?:[A-Z_]+=\S+ )*)bassl-fast (.+)")
Shown = tuple[dict[str, str], list[str], list[str]]  # environment, words after `bassl-fast`, lines shown below


def commands(page: Path) -> list[Shown]:
    """The commands in the code blocks of a page, fenced or indented; a backslash joins lines, a comment is left out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(
        r"^```\w*\n(.*?)^```", lambda block: re.sub("^", "    ", block[1], flags=re.M), text, flags=re.M | re.S
    )
    found: list[Shown] = []
    last = None  # the command that a line may be shown by
    for line in text.split("\n"):
        code = line.removeprefix("    ")
        match = COMMAND.fullmatch(code)
        if code == line or not code:
            last = None
        elif match:
            environment = dict(word.split("=", 1) for word in shlex.split(match[1]))
            last = (environment, shlex.split(match[2], comments=True), [])
            found.append(last)
        elif last:
            last[2].append(code)
    return found


@pytest.mark.parametrize(
    ("page", "words"),
    [(page, words) for page in PAGES for _, words, _ in commands(page)],
    ids=lambda part: part.name if isinstance(part, Path) else " ".join(part),
)
def test_every_command_shown_is_understood(page: Path, words: list[str], monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [word for word in words if word != "..."]
    if words[0] == "--import":
        words = words[2:]
    name, rest = verb_of(words), words[1:]
    for given in [after for word, after in pairwise(rest) if word == "--config"]:
        # `C`, or a file that the page tells the reader to write
        if not Path(given).exists() and (given.isupper() or f"`{given}`" in page.read_text(encoding="utf-8")):
            at, stand_in = rest.index(given), Path(f"configs/{name}/bassl.yaml")
            rest[at - 1 : at + 1] = ["--config", str(stand_in)] if stand_in.exists() else ["--files", "[]"]
    verb = VERBS[name]
    function = getattr(importlib.import_module(verb.module), verb.function)
    config.parse(config.make_parser(function, verb.positional), rest)


def anchors(page: Path) -> set[str]:
    """Names that the headings of a page go by in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", TOP, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    """Those of the pages in docs/ are checked by `mkdocs build --strict`."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        assert not anchor or anchor in anchors(ROOT / path if path else page), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_named_is_there(page: Path):
    named = set(FILE.findall(page.read_text(encoding="utf-8"))) - OF_THE_READER
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_test_named_exists():
    """`test_a_name_...` stands for any test that begins so."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)(\.\.\.)?`", "".join(page.read_text(encoding="utf-8") for page in PAGES))
    assert len(named) > 10
    assert [name for name, more in named if f"def {name}" + ("" if more else "(") not in tests] == []


def test_webdataset_reads_shards_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    pack(write_set(tmp_path / "source", {"film": 3, "other": 2}, {"other": "test"}), "shards")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/webdataset.md").read_text(), re.DOTALL):
        exec(block, names)
    *shots, size = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in shots) == [f"film/shot_{shot:04d}" for shot in range(3)]
    assert re.fullmatch(r"\(\d+, \d+\)", size)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder that has all that docs/how-to/data-preparation.md speaks of, much smaller."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    films = {"tt0032138": (0, 1, 5, 6), "tt0047396": 4, "tt0083658": 4}
    source = write_set(tmp_path / "data" / "movienet", films, {"tt0083658": "test"})
    archive = source / "movie1K.keyframes.240p.v1.zip"
    (source / "240P").mkdir()
    with zipfile.ZipFile(archive, "w") as zipped:
        for film in sorted(films):
            with tarfile.open(source / "240P" / f"{film}.tar", "w") as tar:
                tar.add(source / "240P_frames" / film, film)
            zipped.write(source / "240P" / f"{film}.tar", f"240P/{film}.tar")
    for name, colour in (("one", (220, 30, 30)), ("two", (20, 40, 60))):
        Path("clips").mkdir(exist_ok=True)
        make_clip(Path("clips", f"{name}.mp4"), [colour])
    make_pictures_and_clips()
    shutil.copytree(source, Path("s3", BUCKET, "movienet"))
    shutil.copytree(source, Path("hub", "lab", "movienet"))
    Path("cut.zip").write_bytes(archive.read_bytes()[:-30])
    for name in ("broken", "other-version", "half-copied", "unfinished"):
        pack(source, name)
    tar = bytearray(Path("broken/tt0032138.tar").read_bytes())
    tar[6756] ^= 1
    Path("broken/tt0032138.tar").write_bytes(tar)
    Path("other-version/manifest.json").write_text('{"version": 7}')
    Path("half-copied/tt0047396.tar").unlink()
    Path("unfinished/manifest.json").unlink()
    for name in ("cut-keyframe", "missing-keyframe"):
        shutil.copytree(source / "240P_frames", Path(name, "240P_frames"))
    keyframe = "240P_frames/tt0047396/shot_0001_img_2.jpg"
    Path("cut-keyframe", keyframe).write_bytes((source / keyframe).read_bytes()[:400])
    Path("missing-keyframe", keyframe).unlink()
    make_labelled(source)
    return tmp_path


def make_labelled(source: Path) -> None:
    """Films with less key-frames than annotations, with MovieNet's own labels, and as BBC Planet Earth."""
    shutil.copytree(source, "incomplete", ignore=shutil.ignore_patterns("*.zip", "240P", "tt0032138", "shot_000[23]_*"))
    shutil.copytree(source / "240P_frames" / "tt0083658", "incomplete/240P_frames/tt0083658", dirs_exist_ok=True)
    shutil.copytree(source / "240P_frames" / "tt0083658", "own-labels/240P_frames/tt0083658")
    for name, text in (
        ("label318/tt0083658.txt", "0000 0\n0001 -1\n0002 1\n"),
        ("meta/split318.json", '{"test": ["tt0083658"]}'),
    ):
        Path("own-labels/scene318", name).parent.mkdir(parents=True)
        Path("own-labels/scene318", name).write_text(text)
    for folder in ("videos", "annotations/shots", "annotations/scenes/annotator_0"):
        Path("planet-earth", folder).mkdir(parents=True)
    for number, episode in ((1, "01_From_Pole_to_Pole"), (5, "05_Jungles")):
        make_clip(Path(f"planet-earth/videos/bbc_{number:02}.mp4"), [(220, 30, 30), (20, 40, 60), (200, 200, 200)])
        Path(f"planet-earth/annotations/shots/{episode}.txt").write_text("0\t23\n24\t47\n48\t71\n")
        Path(f"planet-earth/annotations/scenes/annotator_0/{episode}.txt").write_text("0,2")


def make_pictures_and_clips() -> None:
    """Small ones of what the section on pictures and clips packs."""
    for split in ("train", "val"):
        for label, name in enumerate(("abseiling", "yoga")):
            for i in range(4):
                path = Path("data", "imagenet", split, name, f"{name}_{5 * i}.JPEG")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(i))
            path = Path("data", "kinetics", split, name, "video.mp4")
            path.parent.mkdir(parents=True)
            make_clip(path, [(220, 30, 30)] * (1 + label))
        Path("data", "kinetics", f"{split}.csv").write_text("abseiling/video.mp4 0\nyoga/video.mp4 1\n")
    write_ucf(Path("data", "ucf101"))
    for name in ("one", "two"):
        make_frames(Path("frames", name), 4)


def test_data_preparation_does_what_the_page_says(project, monkeypatch, capsys):
    monkeypatch.setenv("BASSL_FAST_CACHE", str(project / "cache"))
    (project / "web").mkdir()
    (project / "data" / "movienet" / "anno" / "anno.test.ndjson").rename(project / "web" / "anno.test.ndjson")
    with (
        s3_server(project / "s3") as port,
        http_server(project / "web") as web,
        hub(project / "hub") as endpoint,
    ):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        use_s3(monkeypatch, port)
        page = ROOT / "docs" / "how-to" / "data-preparation.md"
        (addresses,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        Path("movienet.yaml").write_text(addresses.replace("https://example.org", f"http://127.0.0.1:{web}"))
        for environment, words, lines in commands(page):
            capsys.readouterr()
            with monkeypatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, value)
                code = cli.main(words)
            said = capsys.readouterr()
            printed = [
                line for line in (said.out + said.err).splitlines() if not line.startswith(("fetch", "shots and"))
            ]
            if lines:
                assert printed == lines, words
            assert code == any(line.startswith("bassl-fast: ") for line in lines), (words, printed)
