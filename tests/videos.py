"""Tiny videos made on the fly: every shot has its own texture."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from math import ceil
from pathlib import Path

import av
import numpy as np


def texture(seed: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """`[H, W, 3]` uint8: random blocks of 16 pixels, brighter and darker shots in turn."""
    width, height = size
    blocks = np.random.default_rng(seed).integers(0, 160, (-(-height // 16), -(-width // 16), 3)) + 90 * (seed % 2)
    return blocks.astype(np.uint8).repeat(16, 0).repeat(16, 1)[:height, :width]


def draw_video(
    path: Path,
    shots: list[int],
    *,
    rate: int = 24,
    size: tuple[int, int] = (96, 64),
    sound: bool = False,
    gop: int = 12,
) -> Path:
    """Shots of so many frames each; with `sound`, a tone of the same length."""
    with av.open(str(path), "w") as container:
        # No key-frames at cuts: films have them elsewhere.
        video = container.add_stream("mpeg4", rate=rate, options={"sc_threshold": "1000000000"})
        video.width, video.height, video.pix_fmt, video.gop_size = *size, "yuv420p", gop
        audio = container.add_stream("aac", rate=16000) if sound else None
        number = 0
        for shot, length in enumerate(shots):
            picture = av.VideoFrame.from_ndarray(texture(shot, size), format="rgb24")
            for _ in range(length):
                picture.pts, picture.time_base = number, Fraction(1, rate)
                container.mux(video.encode(picture))
                number += 1
        container.mux(video.encode())
        if audio is not None:
            tone = np.sin(np.arange(16000 * number // rate) / 8).astype(np.float32)[None]
            for first in range(0, tone.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(tone[:, first : first + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, first
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def join_videos(files: list[Path], path: Path, size: tuple[int, int] = (160, 90)) -> Path:
    """All files one after another in one file; of every two frames one, at 12 a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=12)
        video.width, video.height, video.pix_fmt, video.bit_rate = *size, "yuv420p", 1_000_000
        number = 0
        for file in files:
            with av.open(str(file)) as source:
                for frame in islice(source.decode(video=0), 0, None, 2):
                    small = frame.reformat(*size, "yuv420p")
                    small.pts, small.time_base = number, Fraction(1, 12)
                    container.mux(video.encode(small))
                    number += 1
        container.mux(video.encode())
    return path


def loop_video(clip: Path, path: Path, seconds: float) -> Path:
    """A film of at least `seconds`: `clip` repeated, its packets copied without re-encoding."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as out:
        video = source.streams.video[0]
        copy = out.add_stream_from_template(video)
        length = round((source.duration / 1e6) / video.time_base)
        for turn in range(ceil(seconds * 1e6 / source.duration)):
            source.seek(0)
            for packet in source.demux(video):
                if packet.dts is not None:
                    packet.pts, packet.dts = packet.pts + turn * length, packet.dts + turn * length
                    packet.stream = copy
                    out.mux(packet)
    return path


# Kilobytes the process had in memory at most. (What getrusage says begins, after exec, with what the parent had.)
PEAK = "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
