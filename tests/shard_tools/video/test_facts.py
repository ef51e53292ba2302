"""What is read from the header of a file for editing programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from shard_tools.errors import SourceError
from shard_tools.video.facts import MediaFacts, read_facts
from tests.videos import draw_video


def test_size_sound_and_reel(tmp_path: Path):
    tones = ("-f", "lavfi", "-i", "sine=d=1:r=48000", "-f", "lavfi", "-i", "sine=d=1:r=44100")
    tracks = ("-map", "0", "-map", "1", "-map", "2", "-ac:a:0", "2", "-ac:a:1", "1", "-c:a", "pcm_s16le")
    reel = ("-timecode", "01:00:00:00", "-metadata:s:v:0", "reel_name=A001_C002")
    picture = ("-f", "lavfi", "-i", "color=s=96x64:d=1")
    argv = ["ffmpeg", "-loglevel", "error", *picture, *tones, *tracks, *reel, str(tmp_path / "film.mov")]
    subprocess.run(argv, check=True)
    assert read_facts(tmp_path / "film.mov") == MediaFacts(96, 64, (2, 1), 48000, "A001_C002")


def test_a_silent_film(tmp_path: Path):
    assert read_facts(draw_video(tmp_path / "film.mp4", [5])) == MediaFacts(96, 64)


def test_no_film(tmp_path: Path):
    with pytest.raises(SourceError, match="no such file"):
        read_facts(tmp_path / "none.mp4")
