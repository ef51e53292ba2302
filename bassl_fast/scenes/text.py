"""Names, notes and times as files show them."""

from __future__ import annotations

import re

_BLANK = r"\x00-\x20\x7f-\xa0\u2028\u2029"  # controls and blanks; `editor.js` has the same
_BLANKS = re.compile(f"[{_BLANK}]+")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATES = re.compile("[\ud800-\udfff]")  # halves of a character, which no file can hold


def single_line(text: str) -> str:
    """A name: line breaks, controls and runs of blanks become one blank.

    >>> single_line(" At  the\\tbar,\\nnight ")
    'At the bar, night'
    """
    return _BLANKS.sub(" ", _SURROGATES.sub("\ufffd", text)).strip(" ")


def plain(text: str) -> str:
    r"""A note: it may have several lines, which end in "\n"; other controls become blanks."""
    lines = _SURROGATES.sub("\ufffd", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub(" ", lines).strip(" \n")


def clock(seconds: float) -> str:
    """h:mm:ss or m:ss, rounded down to whole seconds."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def clock_ms(seconds: float) -> str:
    """hh:mm:ss.mmm, to the nearest millisecond.

    >>> clock_ms(3661.0006)
    '01:01:01.001'
    """
    whole, part = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{part:03d}"
