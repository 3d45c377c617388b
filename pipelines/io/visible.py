"""What can be seen of a text: characters without a shape of their own are left out, so that they change no picture."""

from __future__ import annotations

import re
import unicodedata

# letters and symbols by their category, with an empty shape
BLANK = "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
UNSEEN = (
    "\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffc\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
INVISIBLE = re.compile(f"[{UNSEEN}{BLANK}]")
REGIONAL = frozenset(map(chr, range(0x1F1E6, 0x1F200)))  # letters of which flags are made
JOINERS = "\u200c\u200d"  # which letters of these scripts need to look right
JOINING = "[\u0600-\u0fff\u1000-\u109f\u1780-\u17ff]"
OF_EMOJI = re.compile(
    "(?<=[\u2000-\u3fff\U0001f000-\U0001ffff0-9#*])[\u200d\ufe0e\ufe0f\U000e0020-\U000e007f]+"
)


def visible(text: str) -> str:
    """The text without characters that cannot be seen.

    These are joiners, direction marks, variation selectors, tags, soft hyphens and byte order marks; blank letters become
    spaces. Joiners between letters of scripts that join (Arabic, those of India) stay.
    """
    if text.isascii():
        return text
    text = INVISIBLE.sub(lambda match: match[0] if match[0] in JOINERS else " " * (match[0] in BLANK), text)
    return re.sub(f"(?<!{JOINING})[{JOINERS}]+|[{JOINERS}]+(?!{JOINING})", "", text)


def by_number(text: str) -> str:
    """The text with every character that cannot be seen written by its number, in braces after a backslash and u."""
    return INVISIBLE.sub(lambda match: f"\\u{{{ord(match[0]):x}}}", text)


def has_unseen(text: str) -> bool:
    """Whether a text holds characters that cannot be seen and change nothing. Those of an emoji do not count."""
    plain = OF_EMOJI.sub("", text)
    return visible(plain) != plain


def symbols(text: str) -> list[str]:
    """Emoji and other symbols of a text, each once, in order, with what colours or surrounds them; flags as one."""
    found: list[str] = []
    for before, one in zip(" " + text, text, strict=False):
        kind = unicodedata.category(one)
        if kind == "Me" and before in "0123456789#*":
            found.append(before + one)  # a key
        elif kind in ("Sk", "Me") and not one.isascii() and found and before in found[-1]:
            found[-1] += one
        elif one in REGIONAL and found and before in REGIONAL and len(found[-1]) == 1:
            found[-1] += one  # two letters are a flag
        elif kind in ("So", "Sk", "Me", "Co", "Cn") and not one.isascii():
            found.append(one)
    return list(dict.fromkeys(found))
