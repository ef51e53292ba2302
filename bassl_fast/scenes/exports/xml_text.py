"""XML as text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML 1.0, section 2.2


def to_text(root: ElementTree.Element, doctype: str = "") -> str:
    """A document with one element a line; characters that XML cannot hold become U+FFFD."""
    ElementTree.indent(root)
    body = _IMPOSSIBLE.sub("\ufffd", ElementTree.tostring(root, encoding="unicode"))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}{body}\n'
