"""What editing programs and players are given: no frame of drift in 24 hours, and no name that breaks a file."""

from __future__ import annotations

import csv
import io
import random
import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from xml.etree import ElementTree

import opentimelineio
import pytest
import scenedetect
from scenedetect.output import write_scene_list

from bassl_fast.scenes.exports import FORMATS, texts
from bassl_fast.scenes.film import FilmScenes, SceneShot
from shard_tools.video.facts import MediaFacts
from shard_tools.video.shot_list import read_shot_list
from shard_tools.video.timing import Timing

from .test_film import film

RATES = {
    "23.976": (Fraction(24000, 1001), False),
    "24": (Fraction(24), False),
    "25": (Fraction(25), False),
    "29.97 DF": (Fraction(30000, 1001), True),
    "29.97 NDF": (Fraction(30000, 1001), False),
    "30": (Fraction(30), False),
    "50": (Fraction(50), False),
    "59.94 DF": (Fraction(60000, 1001), True),
    "59.94 NDF": (Fraction(60000, 1001), False),
    "60": (Fraction(60), False),
}
STARTS = [f"{hour}:00:00:00" for hour in ("01", "10")]
FACTS = MediaFacts(1920, 1080, (2, 1), 48000, "A001_C002")
every_rate = pytest.mark.parametrize(("rate", "drop"), RATES.values(), ids=RATES)
every_start = pytest.mark.parametrize("start", STARTS)


def numbered(timecode: str, base: int) -> int:
    """Frames from 00:00:00:00, by counting the numbers that drop-frame leaves out, minute by minute."""
    hours, minutes, seconds, separator, frames = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;])(\d\d)", timecode).groups()
    whole = 60 * int(hours) + int(minutes)
    left_out = sum(base // 15 for minute in range(1, whole + 1) if minute % 10) if separator == ";" else 0
    return (60 * whole + int(seconds)) * base + int(frames) - left_out


def long_film(rate: Fraction, drop: bool, start: str, hours: int = 24, cuts: int = 20) -> tuple[FilmScenes, list[int]]:
    """A film with a scene each at random frames, and these: 0, ..., the number of its frames."""
    frames = int(hours * 3600 * rate)
    bounds = [0, *sorted(random.Random(frames).sample(range(1, frames), cuts)), frames]
    seconds = [float(frame / rate) for frame in bounds]
    shots = tuple(
        SceneShot(i, *seconds[i : i + 2], first, after - 1, 0.9, ())
        for i, (first, after) in enumerate(pairwise(bounds))
    )
    timing = Timing(rate).starting_at(start.replace(":00:00:00", ":00:00;00") if drop else start)
    every = tuple(range(len(shots) - 1))
    made = FilmScenes("film", "/films/film.mov", timing, shots, every, 0.5, "", 0.0, "test", media=FACTS)
    return made, bounds


def text(name: str, made: FilmScenes) -> str:
    return FORMATS[name](made)


def events(edl: str) -> list[tuple[str, list[str]]]:
    """Of an edit decision list that has nothing but a header, events and comments: reel and time codes."""
    title, count, blank, *lines = edl.rstrip("\n").split("\n")
    assert title.startswith("TITLE: ")
    assert count in ("FCM: DROP FRAME", "FCM: NON-DROP FRAME")
    assert blank == ""
    found = []
    for line in lines:
        event = re.fullmatch(r"(\d{3,})  (\w{1,8}) +V     C        ((?:\d\d:\d\d:\d\d[:;]\d\d ?){4})", line)
        assert event or line.startswith(("* FROM CLIP NAME: ", "* COMMENT: ")), line
        if event:
            assert int(event[1]) == len(found) + 1
            found.append((event[2], event[3].split()))
    return found


# Time


@every_rate
@every_start
@pytest.mark.parametrize("name", ["scenes.edl", "shots.edl"])
def test_edls_keep_every_frame(rate, drop, start, name):
    made, bounds = long_film(rate, drop, start)
    edl, base = text(name, made), round(rate)
    assert ("FCM: DROP FRAME" in edl) == drop
    day = numbered("23:59:59;" + str(base - 1) if drop else f"23:59:59:{base - 1}", base) + 1
    first = int(start[:2]) * 3600 * base if not drop else numbered(start.replace(":00:00:00", ":00:00;00"), base)
    found = events(edl)
    assert len(found) == len(bounds) - 1
    for (reel, codes), (begin, end) in zip(found, pairwise(bounds), strict=True):
        assert reel == "A001C002"
        assert codes[:2] == codes[2:]
        assert [numbered(code, base) for code in codes[:2]] == [(first + begin) % day, (first + end) % day]


@every_rate
@every_start
def test_the_edl_adapter_reads_the_frames(rate, drop, start):
    made, bounds = long_film(rate, drop, start, hours=12)
    fps = float(rate) if drop else round(rate)
    timeline = opentimelineio.adapters.read_from_string(text("scenes.edl", made), "cmx_3600", rate=fps)
    clips = list(timeline.find_clips())
    first = made.timing.first
    assert [round(clip.source_range.start_time.value) for clip in clips] == [first + begin for begin in bounds[:-1]]
    assert [round(clip.source_range.duration.value) for clip in clips] == [b - a for a, b in pairwise(bounds)]


@every_rate
@every_start
def test_csv_time_codes_keep_every_frame(rate, drop, start):
    made, bounds = long_film(rate, drop, start, hours=12)
    for name in ("scenes.csv", "shots.csv"):
        rows = list(csv.DictReader(io.StringIO(text(name, made))))
        first = [numbered(row["start_timecode"], round(rate)) - made.timing.first for row in rows]
        after = [numbered(row["end_timecode"], round(rate)) - made.timing.first for row in rows]
        assert (first, after) == (bounds[:-1], bounds[1:])


@every_rate
@every_start
def test_otio_keeps_every_frame(rate, drop, start):
    made, bounds = long_film(rate, drop, start)
    timeline = opentimelineio.adapters.read_from_string(text("scenes.otio", made), "otio_json")
    first = made.timing.first
    assert timeline.global_start_time.value == first
    assert len(timeline.video_tracks()) == len(timeline.audio_tracks()) == 1
    for track in timeline.tracks:
        clips = list(track.find_clips())
        assert [clip.source_range.start_time.value - first for clip in clips] == bounds[:-1]
        assert [clip.source_range.end_time_exclusive().value - first for clip in clips] == bounds[1:]
        available = clips[7].media_reference.available_range
        assert (available.start_time.value, available.duration.value) == (first, bounds[-1])
        assert Fraction(available.duration.rate).limit_denominator(1001) == rate


@every_rate
@every_start
def test_the_fcp7_adapter_reads_the_frames(rate, drop, start):
    made, bounds = long_film(rate, drop, start, cuts=7)  # its adapter takes 10 ms a scene
    timeline = opentimelineio.adapters.read_from_string(text("scenes.xml", made), "fcp_xml")
    timeline = timeline[0] if isinstance(timeline, opentimelineio.schema.SerializableCollection) else timeline
    first = made.timing.first
    assert timeline.global_start_time.value == first
    assert len(timeline.video_tracks()) == 1
    assert len(timeline.audio_tracks()) == 3  # a stereo and a mono track
    for track in timeline.tracks:
        clips = list(track.find_clips())
        # The adapter counts from the time code of the file.
        assert [clip.source_range.start_time.value for clip in clips] == [first + begin for begin in bounds[:-1]]
        assert [clip.source_range.duration.value for clip in clips] == [b - a for a, b in pairwise(bounds)]
        assert [clip.range_in_parent().start_time.value for clip in clips] == bounds[:-1]
        assert Fraction(clips[3].source_range.duration.rate).limit_denominator(1001) == rate


@every_rate
@every_start
def test_fcp7_xml_says_how_frames_are_counted(rate, drop, start):
    made, bounds = long_film(rate, drop, start)
    sequence = ElementTree.fromstring(text("scenes.xml", made)).find("sequence")
    for place in (sequence, sequence.find(".//file[@id='file-1']")):
        assert place.findtext("rate/timebase") == str(round(rate))
        assert place.findtext("rate/ntsc") == ("TRUE" if rate.denominator == 1001 else "FALSE")
        assert place.findtext("duration") == str(bounds[-1])
        assert place.findtext("timecode/displayformat") == ("DF" if drop else "NDF")
        assert numbered(place.findtext("timecode/string"), round(rate)) == int(place.findtext("timecode/frame"))
        assert int(place.findtext("timecode/frame")) == made.timing.first
    assert [int(marker.findtext("in")) for marker in sequence.findall("marker")] == bounds[:-1]


@every_rate
@every_start
def test_fcpxml_keeps_every_frame(rate, drop, start):
    made, bounds = long_film(rate, drop, start)
    root = ElementTree.fromstring(text("scenes.fcpxml", made))

    def frames(time: str) -> int:
        numerator, denominator = re.fullmatch(r"(\d+)(?:/(\d+))?s", time).groups()
        assert int(numerator) < 2**63
        assert int(denominator or 1) < 2**31
        count = Fraction(int(numerator), int(denominator or 1)) * rate
        assert count.denominator == 1
        return int(count)

    assert frames(root.find("resources/format").get("frameDuration")) == 1
    asset, sequence, first = root.find("resources/asset"), root.find(".//sequence"), made.timing.first
    assert (frames(asset.get("start")), frames(asset.get("duration"))) == (first, bounds[-1])
    assert (frames(sequence.get("tcStart")), frames(sequence.get("duration"))) == (first, bounds[-1])
    clips = root.findall(".//spine/asset-clip")
    assert {clip.get("tcFormat") for clip in [sequence, *clips]} == {"DF" if drop else "NDF"}
    for what in ("start", "offset"):
        assert [frames(clip.get(what)) - first for clip in clips] == bounds[:-1]
    assert [frames(clip.find("chapter-marker").get("start")) - first for clip in clips] == bounds[:-1]
    assert [frames(clip.get("duration")) for clip in clips] == [b - a for a, b in pairwise(bounds)]


@pytest.mark.parametrize(("start", "file"), [("10:00:02:00", 36000 * 25), ("00:00:00:00", 0)])
def test_a_source_is_counted_from_the_begin_of_its_file(start, file):
    """Sound begins 2 s before the picture; a timeline begins with the picture."""
    made, bounds = long_film(Fraction(25), False, start, hours=1)
    made = replace(made, timing=replace(made.timing, begin=2.01))
    shown, length = file + 50, bounds[-1] + 50
    root = ElementTree.fromstring(text("scenes.xml", made))
    described = root.find(".//file[@id='file-1']")
    assert [int(described.findtext(tag)) for tag in ("timecode/frame", "duration")] == [file, length]
    clips = root.findall(".//video/track/clipitem")
    assert [int(clip.findtext("in")) for clip in clips] == [50 + begin for begin in bounds[:-1]]
    assert [int(clip.findtext("start")) for clip in clips] == bounds[:-1]
    root = ElementTree.fromstring(text("scenes.fcpxml", made))
    asset, clips = root.find("resources/asset"), root.findall(".//spine/asset-clip")
    seconds = [Fraction(asset.get(what).removesuffix("s")) for what in ("start", "duration")]
    assert seconds == [Fraction(file, 25), Fraction(length, 25)]
    for what, first in (("start", shown), ("offset", made.timing.first)):
        assert [25 * Fraction(clip.get(what).removesuffix("s")) - first for clip in clips] == bounds[:-1]
    timeline = opentimelineio.adapters.read_from_string(text("scenes.otio", made), "otio_json")
    assert timeline.global_start_time.value == made.timing.first
    clip = next(iter(timeline.find_clips()))
    available = clip.media_reference.available_range
    assert (available.start_time.value, available.duration.value) == (file, length)
    assert clip.source_range.start_time.value == shown


@every_rate
@every_start
def test_markers_keep_every_frame(rate, drop, start):
    made, bounds = long_film(rate, drop, start, hours=12)
    first, base = made.timing.first, round(rate)
    avid = [line.split("\t") for line in text("markers-avid.txt", made).splitlines()]
    assert [numbered(fields[1], base) - first for fields in avid] == bounds[:-1]
    assert avid[1][0::2] == ["bassl-fast", "V1", "Scene 2"]
    assert {len(fields) for fields in avid} == {6}
    _, count, _, *lines = text("markers-resolve.edl", made).split("\n")
    assert ("NON-DROP" not in count) == drop
    found = []
    for event, about, blank in zip(*[iter(lines)] * 3, strict=True):
        codes = re.fullmatch(r"\d{3,}  001      V     C        (\S+) (\S+) (\S+) (\S+)  ", event).groups()
        at = [numbered(code, base) - first for code in codes]
        assert (at[1], at[2], at[3], blank) == (at[0] + 1, at[0], at[0] + 1, "")
        length = re.fullmatch(r" \|C:ResolveColorBlue \|M:Scene \d+ \|D:(\d+)", about)[1]
        found.append((at[0], at[0] + int(length)))
    assert found == list(pairwise(bounds))


@every_rate
def test_chapters_keep_every_millisecond(rate, drop):
    """They count from the begin of the file, where sound may start before the picture."""
    made, bounds = long_film(rate, drop, STARTS[0])
    made = replace(made, timing=replace(made.timing, begin=2.0))
    wanted = [round(1000 * (2 + frame / rate)) for frame in bounds]

    def milliseconds(clock: str) -> int:
        hours, minutes, seconds, part = re.fullmatch(r"(\d\d):(\d\d):(\d\d)\.(\d{3})", clock).groups()
        return 1000 * (3600 * int(hours) + 60 * int(minutes) + int(seconds)) + int(part)

    cues = re.findall(r"^(\S+) --> (\S+)$", text("chapters.vtt", made), re.MULTILINE)
    atoms = ElementTree.fromstring(text("chapters.xml", made)).findall("EditionEntry/ChapterAtom")
    times = [(atom.findtext("ChapterTimeStart"), atom.findtext("ChapterTimeEnd")) for atom in atoms]
    assert all(time.endswith("000000") for pair in times for time in pair)
    ours = re.findall(r"START=(\d+)\nEND=(\d+)", text("chapters.ffmetadata", made))
    assert [tuple(map(milliseconds, cue)) for cue in cues] == list(pairwise(wanted))
    assert [tuple(milliseconds(time[:-6]) for time in pair) for pair in times] == list(pairwise(wanted))
    assert [tuple(map(int, pair)) for pair in ours] == list(pairwise(wanted))


def test_a_scene_shorter_than_a_frame_of_the_rate_is_no_event():
    """As in a film of 240 frames a second, which is counted at 60."""
    made = film([0.9, 0.9, 0.9], [1.0, 0.005, 1.0], Fraction(60)).regrouped(0.5, "given")
    assert len(made.scenes) == len(text("scenes.csv", made).splitlines()) - 1 == 3
    assert len(events(text("scenes.edl", made))) == text("scenes.xml", made).count("<clipitem") == 2


# Names


NASTY = [
    "A\n001  AX       V     C        00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00",
    "a: b | c\td\r\n\r\n00:00:00.000 --> 00:00:09.000",
    '</ChapterString><a b="c"> & ]]> <!-- --> \\ = ; #',
    "nul \0 bell \7 \ufffe half \ud800 \u2028 line",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_names_break_no_file(nasty):
    made = film([0.1, 0.9, 0.2, 0.8, 0.3]).regrouped(0.5, "given")
    made = replace(
        made, name=nasty, source=f"/films/{nasty}.mp4".replace("\0", "").replace("\ud800", "\udcff"), media=FACTS
    )
    made = replace(made, names={0: nasty, 2: "B"}, notes={0: nasty, 4: "second"})
    found = texts(made)
    for written in found.values():
        written.encode()
    for name, count in (("scenes.edl", 3), ("shots.edl", 5)):
        assert len(events(found[name])) == count
    assert len(found["markers-resolve.edl"].split("\n")) == 3 + 3 * 3
    assert all(line.count("|") in (0, 3) for line in found["markers-resolve.edl"].splitlines()[3:])
    assert [line.count("\t") for line in found["markers-avid.txt"].splitlines()] == [5] * 3
    assert len(found["chapters.txt"].splitlines()) == 3
    assert len(re.findall("-->", found["chapters.vtt"])) == 3
    assert found["chapters.vtt"].count("\n\n") == 3
    assert len(list(csv.reader(io.StringIO(found["scenes.csv"])))) == 4
    assert found["chapters.ffmetadata"].count("\n[CHAPTER]\n") == 3
    for name, tag in (("scenes.xml", "clipitem"), ("scenes.fcpxml", "asset-clip"), ("chapters.xml", "ChapterAtom")):
        root = ElementTree.fromstring(found[name])
        assert len(list(root.iter(tag))) == (12 if tag == "clipitem" else 3)
    timeline = opentimelineio.adapters.read_from_string(found["scenes.otio"], "otio_json")
    assert len(list(timeline.find_clips())) == 6


def test_names_and_notes_are_where_programs_show_them():
    made = film([0.9, 0.9]).regrouped(0.5, "given")
    made = replace(made, names={0: "At the bar & <grill>"}, notes={0: "reshoot?\nyes"}, media=FACTS)
    assert "* COMMENT: At the bar & <grill>\n* COMMENT: reshoot? yes\n" in text("scenes.edl", made)
    assert "\nreshoot? yes |C:ResolveColorBlue |M:At the bar & <grill> |D:240\n" in text("markers-resolve.edl", made)
    assert "\tAt the bar & <grill>: reshoot? yes\t1\n" in text("markers-avid.txt", made)
    assert "\nAt the bar &amp; &lt;grill&gt;\n" in text("chapters.vtt", made)
    assert text("chapters.txt", made) == "0:00 At the bar & <grill>\n0:10 Scene 2\n"
    fcp7, fcpx, matroska = (
        ElementTree.fromstring(text(name, made)) for name in ("scenes.xml", "scenes.fcpxml", "chapters.xml")
    )
    assert fcp7.findtext(".//clipitem/name") == fcpx.find(".//asset-clip").get("name") == "At the bar & <grill>"
    assert fcp7.findtext(".//clipitem/comments/mastercomment1") == fcpx.findtext(".//asset-clip/note") == "reshoot? yes"
    assert fcp7.findtext("sequence/marker/comment") == "reshoot? yes"
    assert [chapter.text for chapter in matroska.iter("ChapterString")] == ["At the bar & <grill>", "Scene 2"]
    clip = opentimelineio.adapters.read_from_string(text("scenes.otio", made), "otio_json").find_clips()[0]
    assert (clip.name, clip.metadata["bassl-fast"]["note"]) == ("At the bar & <grill>", "reshoot? yes")


@pytest.mark.parametrize(
    ("source", "reel"),
    [("/films/Big Buck (2008).mp4", "BIGBUCK2"), ("/a/é.mov", "E"), ("/a/映画.mov", "AX"), ("bl.mp4", "BL1")],
)
def test_reels_are_eight_capitals_and_digits(source, reel):
    made = replace(film([0.1]), source=source)
    assert [found for found, _ in events(text("scenes.edl", made))] == [reel]


# Other programs' formats


def test_pyscenedetect_writes_the_same_csv(tmp_path):
    made, bounds = long_film(Fraction(25), False, STARTS[0], hours=2)
    codes = [scenedetect.FrameTimecode(frame, 25.0) for frame in bounds]
    written = io.StringIO()
    write_scene_list(written, list(pairwise(codes)), cut_list=codes[1:-1])
    assert text("pyscenedetect.csv", made) == written.getvalue()


@pytest.mark.parametrize("name", ["shots.csv", "pyscenedetect.csv"])
def test_shot_lists_are_read_back(tmp_path, name):
    made, _ = long_film(Fraction(30000, 1001), True, STARTS[0])
    (tmp_path / name).write_text(text(name, made))
    starts = read_shot_list(tmp_path / name).starts
    assert starts == pytest.approx([shot.start for shot in made.shots], abs=0.00051)


def test_fcp7_audio_has_a_track_a_channel_and_clips_are_linked():
    made = replace(film([0.9, 0.9]).regrouped(0.5, "given"), media=FACTS)
    sequence = ElementTree.fromstring(text("scenes.xml", made)).find("sequence")
    video, audio = sequence.find("media/video"), sequence.find("media/audio")
    assert audio.findtext("numOutputChannels") == video.findtext(".//file/media/audio/channelcount") == "3"
    assert video.findtext("format/samplecharacteristics/width") == "1920"
    assert [track.findtext("clipitem/sourcetrack/trackindex") for track in audio.findall("track")] == ["1", "2", "3"]
    clips = {clip.get("id"): clip for clip in sequence.iter("clipitem")}
    assert len(clips) == 8
    for name, clip in clips.items():
        linked = [link.findtext("linkclipref") for link in clip.findall("link")]
        assert name in linked
        assert len(linked) == 4
        assert {clips[other].findtext("start") for other in linked} == {clip.findtext("start")}
    assert len([file for file in sequence.iter("file") if len(file)]) == 1


def test_a_silent_film_has_no_sound_in_its_timelines():
    made = replace(film([0.9, 0.9]).regrouped(0.5, "given"), media=MediaFacts(640, 480))
    assert "audio" not in text("scenes.xml", made)
    assert "udio" not in text("scenes.fcpxml", made)
    assert '"kind": "Audio"' not in text("scenes.otio", made)


# tag: (attributes it needs, those it may have, children in order with how often: "?" at most once, "*" any number)
FCPXML = {
    "fcpxml": ("version", "", "resources? library?"),
    "resources": ("", "", "format* asset*"),
    "format": ("id", "name frameDuration width height", ""),
    "asset": (
        "id",
        "name start duration hasVideo format hasAudio videoSources audioSources audioChannels audioRate",
        "media-rep",
    ),
    "media-rep": ("src", "kind", ""),
    "library": ("", "", "event*"),
    "event": ("", "name", "project*"),
    "project": ("", "name", "sequence"),
    "sequence": ("format", "duration tcStart tcFormat audioLayout audioRate", "note? spine"),
    "spine": ("", "", "asset-clip*"),
    "asset-clip": ("ref", "name offset start duration format tcFormat", "note? chapter-marker*"),
    "note": ("", "", ""),
    "chapter-marker": ("start value", "duration note posterOffset", ""),
}
MATROSKA = {
    "Chapters": ("", "", "EditionEntry*"),
    "EditionEntry": ("", "", "ChapterAtom*"),
    "ChapterAtom": ("", "", "ChapterTimeStart ChapterTimeEnd? ChapterDisplay*"),
    "ChapterTimeStart": ("", "", ""),
    "ChapterTimeEnd": ("", "", ""),
    "ChapterDisplay": ("", "", "ChapterString ChapterLanguage*"),
    "ChapterString": ("", "", ""),
    "ChapterLanguage": ("", "", ""),
}


@pytest.mark.parametrize(("name", "grammar"), [("scenes.fcpxml", FCPXML), ("chapters.xml", MATROSKA)])
@pytest.mark.parametrize("media", [FACTS, MediaFacts()])
def test_elements_are_those_of_the_format(name, grammar, media):
    """The part of Apple's and Matroska's definitions that we use."""
    made = replace(film([0.9, 0.9]).regrouped(0.5, "given"), media=media, notes={0: "note"})
    root, ids = ElementTree.fromstring(text(name, made)), set()
    for element in root.iter():
        needed, possible, children = (part.split() for part in grammar[element.tag])
        assert set(needed) <= set(element.keys()) <= {*needed, *possible}, element.tag
        order = "".join(f"(?:{re.escape(c.rstrip('*?'))} ){c[-1] if c[-1] in '*?' else ''}" for c in children)
        assert re.fullmatch(order, "".join(f"{child.tag} " for child in element)), element.tag
        ids |= {element.get("id")} - {None}
    refs = {element.get(key) for element in root.iter() for key in ("ref", "format")}
    assert refs <= ids | {None}
