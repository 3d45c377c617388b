"""Texts that programs hide in a picture's opacity, so that they outlive sites which remove all others.

NovelAI and an extension of A1111 write them: down each column, the lowest bit of each pixel's opacity. First comes a mark
of 15 letters, then the number of the text's bits in 32, then the text, packed by gzip.
"""

from __future__ import annotations

import zlib

import numpy as np

from app.library.foreign_values import object_of
from pipelines.errors import BadInput
from pipelines.io.containers import png_facts
from pipelines.io.images import open_untouched

PACKED, PLAIN = b"stealth_pngcomp", b"stealth_pnginfo"
LENGTH = 4  # bytes
MOST = 1_000_000  # bytes of a text
WITH_OPACITY = (8, 6)  # bits a sample and colour type of a PNG


def stealth_texts(data: bytes) -> dict[str, str]:
    """The texts hidden in the opacity of a PNG by their names; {} for none, and for pictures that cannot be opened."""
    if png_facts(data) != WITH_OPACITY:
        return {}
    try:
        opacity = np.asarray(open_untouched(data).getchannel("A")).T.ravel()
    except (BadInput, ValueError):
        return {}
    start = len(PACKED) + LENGTH
    head = np.packbits(opacity[: 8 * start] & 1).tobytes()
    mark, bits = head[: len(PACKED)], int.from_bytes(head[len(PACKED) :], "big")
    if mark not in (PACKED, PLAIN) or bits > 8 * MOST:
        return {}
    hidden = np.packbits(opacity[8 * start : 8 * start + bits] & 1).tobytes()
    try:
        unpacked = zlib.decompressobj(31).decompress(hidden, MOST) if mark == PACKED else hidden
    except zlib.error:
        return {}
    text = unpacked.decode("utf-8", "replace")
    if values := object_of(text):
        return {name: value for name, value in values.items() if isinstance(value, str)}
    return {"parameters": text} if text else {}
