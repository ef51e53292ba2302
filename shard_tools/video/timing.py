"""Frame rate, time code and start of a film, as editing programs take them.

Editing programs know a dozen frame rates. `nominal_rate` chooses one for any film, and all time codes are counted at
it: a film of 12.5 frames a second has every second number of 25, one of a phone whose rate varies about 30 those of 30.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, cast

from shard_tools.errors import ConfigError

from .frames import average_rate, first_frame, has_times
from .opening import open_video, video_stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av import VideoFrame
    from av.container import InputContainer
    from av.sidedata.sidedata import SideData

WHOLE = tuple(map(Fraction, (24, 25, 30, 48, 50, 60)))
RATES = tuple(sorted((*WHOLE, *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60)))))
CLOSE = 0.0004  # part by which a rate may differ from a standard one: less than half of 1/1001
DELAY = 0.5  # seconds; B-frames delay a picture by less
DAY = 24 * 3600  # seconds, after which time codes begin again
_DIGITS = 0x3F, 0x7F, 0x7F, 0x3F  # bits of hours, minutes, seconds and frames that are digits (SMPTE ST 12-1)
_TEXT = re.compile(r"(\d\d)[:;.](\d\d)[:;.](\d\d)([:;.,])(\d\d\d?)")


def nominal_rate(average: Fraction, base: Fraction | None = None) -> Fraction:
    """The one of `RATES` to count the frames of a film at.

    It is the film's own rate; else the least multiple of it, so that every second, third, ... number is one of a frame;
    else the greatest part of it; and for a rate that varies, `base` if that is a standard rate, else the nearest.

    Args:
        average: frames a second, on average.
        base: frames a second of which the times of all frames are multiples, as far as known.

    >>> [str(nominal_rate(Fraction(rate))) for rate in ("23.976", "12.5", "1/5", "240", "16.05", "60000")]
    ['24000/1001', '25', '24', '60', '24', '60']
    >>> nominal_rate(Fraction("27.3"), Fraction(30))
    Fraction(30, 1)
    """

    def off(rate: Fraction, standard: Fraction) -> float:
        return abs(float(rate / standard) - 1)

    nearest = min(RATES, key=lambda standard: off(average, standard))
    if off(average, nearest) < CLOSE:
        return nearest
    slow = average < RATES[-1]
    for rate in RATES if slow else reversed(RATES):
        times = rate / average if slow else average / rate
        if off(times, Fraction(max(1, round(times)))) < CLOSE:
            return rate
    if base in RATES and base > average:
        return base
    return min(WHOLE, key=lambda standard: abs(log(average / standard)))


@dataclass(frozen=True)
class Timing:
    """How the times of a film are named.

    Attributes:
        rate: frames a second, one of `RATES`.
        first: number of the first picture, counted from time code 00:00:00:00.
        drop: drop-frame time code: two numbers (at 29.97 frames a second; four at 59.94) are left out at the beginning
            of every minute but each tenth, so that it keeps up with the clock (SMPTE ST 12-1).
        begin: seconds from the start of the file, where sound may start earlier, to the first picture.
    """

    rate: Fraction
    first: int = 0
    drop: bool = False
    begin: float = 0.0

    @cached_property
    def base(self) -> int:
        """Numbers of frames in a second of time code."""
        return round(self.rate)

    @cached_property
    def _rate(self) -> float:
        """Results name tens of thousands of times, and fractions are slow."""
        return float(self.rate)

    @property
    def lead(self) -> int:
        """Whole frames from the start of the file to the first picture; a few, by which encoders delay it, are none."""
        return int(self.begin * self.rate + CLOSE) if self.begin >= DELAY else 0

    @property
    def file_first(self) -> int:
        """Number of the frame that the file begins with, as `first`; not below 0."""
        return max(0, self.first - self.lead)

    def frame(self, seconds: float) -> int:
        """Number of the frame shown at a time, at `rate`, from 0 for the first picture."""
        return round(seconds * self._rate)

    def timecode(self, seconds: float) -> str:
        """Of a time in seconds from the first picture: hh:mm:ss:ff, or hh:mm:ss;ff if drop-frame.

        >>> Timing(Fraction(24)).timecode(62.5), Timing(Fraction(30000, 1001), drop=True).timecode(3600)
        ('00:01:02:12', '01:00:00;00')
        """
        return self.at(self.frame(seconds))

    def at(self, frame: int) -> str:
        """Time code of a frame, from 0 for the first picture."""
        number = self.first + frame
        if self.drop:
            left_out = self.base // 15
            tens, rest = divmod(number, 600 * self.base - 9 * left_out)
            minutes = max(0, rest - left_out) // (60 * self.base - left_out)  # after the first of ten
            number += left_out * (9 * tens + minutes)
        number %= DAY * self.base
        seconds, part = divmod(number, self.base)
        separator = ";" if self.drop else ":"
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{separator}{part:02d}"

    def starting_at(self, text: str) -> Timing:
        """The same with the time code of the first frame; ";" or "." before the frame makes it drop-frame.

        Raises:
            ConfigError: not a time code of this rate.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"time code {text!r}: not hh:mm:ss:ff; give for instance 01:00:00:00")
        hours, minutes, seconds, part = (int(match[i]) for i in (1, 2, 3, 5))
        drop = match[4] != ":"
        if (drop and self.base not in (30, 60)) or (drop and self.rate.denominator == 1):
            raise ConfigError(f"time code {text}: drop-frame, but the film has {self.rate} frames a second; write ':'")
        left_out = self.base // 15 if drop else 0
        dropped = seconds == 0 and minutes % 10 and part < left_out
        if dropped:
            raise ConfigError(f"time code {text}: drop-frame leaves it out; the next is ;{left_out:02d}")
        if hours >= 24 or minutes >= 60 or seconds >= 60 or part >= self.base:
            raise ConfigError(
                f"time code {text}: does not exist at {float(self.rate):.5g} frames a second; frames are 00 to "
                f"{self.base - 1}"
            )
        whole = 60 * hours + minutes
        first = (60 * whole + seconds) * self.base + part - left_out * (whole - whole // 10)
        return Timing(self.rate, first, drop, self.begin)

    def later(self, frames: int) -> Timing:
        """The same with a first picture so many frames later in time code."""
        return replace(self, first=self.first + frames)


def read_timing(film: Path | str) -> Timing:
    """Of a film. Its file begins at the time code in its tags, or else at 0, as in editing programs; a time code in the
    first picture, as of MPEG-2, is that of the picture.

    Raises:
        SourceError: not a readable file, or no video.
    """
    with open_video(film) as container:
        stream = video_stream(container)
        frame = first_frame(film, container)
        average = average_rate(stream)
        ticks = frame.pts if has_times(container) else stream.start_time
        shown = float((ticks or 0) * (stream.time_base or 0))
        begin = max(0.0, shown - (container.start_time or 0) / 1e6)
        timing = Timing(nominal_rate(average, stream.base_rate), begin=begin)
        own, tags = Fraction(round(average)), _tags(container)
        for text in (*tags, _of_picture(frame)):
            if text:
                try:
                    found = timing.starting_at(_at_rate(text, own, timing.base))
                except ConfigError:
                    continue  # a damaged tag is no reason to refuse a film
                return found.later(timing.lead) if text in tags else found
        return timing.later(timing.lead)


def _tags(container: InputContainer) -> list[str]:
    found = [container.metadata, *(stream.metadata for stream in container.streams)]
    return [tags["timecode"] for tags in found if "timecode" in tags]


def _at_rate(text: str, own: Fraction, base: int) -> str:
    """A time code with its last field scaled, as of a film of 120 frames a second that is counted at 60."""
    head, separator, part = text[:8], text[8:9], text[9:]
    if own <= base or not part.isdigit():
        return text
    return f"{head}{separator}{int(part) * base // own:02d}"


def _of_picture(frame: VideoFrame) -> str | None:
    """The time code that a picture carries, if any."""
    for data in cast("Iterable[SideData]", frame.side_data):  # not its keys, as of other mappings
        bits = int.from_bytes(bytes(data)[:8], "little")
        if data.type.name == "GOP_TIMECODE":  # of MPEG-1 and MPEG-2: ISO/IEC 13818-2, section 6.3.8
            fields, drop = [bits >> 19 & 31, bits >> 13 & 63, bits >> 6 & 63, bits & 63], bits >> 24 & 1
        elif data.type.name == "S12M_TIMECODE":  # a count, then SMPTE ST 12-1: digits of hours in the lowest byte
            fields, drop = [_decimal(bits >> 32 + 8 * i & mask) for i, mask in enumerate(_DIGITS)], bits >> 62 & 1
        else:
            continue
        *clock, part = (f"{field:02d}" for field in fields)
        return f"{':'.join(clock)}{';' if drop else ':'}{part}"
    return None


def _decimal(bits: int) -> int:
    """Of two digits of four bits each."""
    return 10 * (bits >> 4) + (bits & 15)
