"""Names of exported files: after the prompt, in letters and digits of any language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MOST = 60  # characters
RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # which Windows keeps for devices


def file_name(text: str, joint: str = "-") -> str:
    """The words of a text, joined; "" where there are none, as in one of emoji alone."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = re.findall(r"[^\W_]+", plain)
    name = ""
    for word in words:
        if name and len(name) + len(joint) + len(word) > MOST:
            break
        name = f"{name}{joint}{word}" if name else word[:MOST]
    return f"{name}{joint}" if RESERVED.fullmatch(name) else name


def file_names(texts: Sequence[str], fallbacks: Sequence[str], joint: str = "-") -> list[str]:
    """A name for each of several files, all different: its text's, or its fallback's; a number tells equal ones apart."""
    names: list[str] = []
    for text, fallback in zip(texts, fallbacks, strict=True):
        base = name = file_name(text, joint) or file_name(fallback, joint) or "picture"
        number = 1
        while name in names:
            number += 1
            name = f"{base}{joint}{number}"
        names.append(name)
    return names
