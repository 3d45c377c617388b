"""Pictures in files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height of the picture in a file."""
    with Image.open(path) as picture:
        return picture.size


def noise(side: int, seed: int = 0) -> Image.Image:
    """A square picture of random levels, which no format makes small."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def matrix_profile(name: str = "Display P3", space: bytes = b"RGB ") -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04) with Display P3's primaries at D50 and a gamma of 2.2."""
    colorants = {  # after Bradford's adaptation to D50
        b"rXYZ": (0.51512, 0.24119, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
        b"wtpt": (0.96420, 1.0, 0.82491),
    }

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    tags = {tag: b"XYZ \0\0\0\0" + b"".join(map(fixed, xyz)) for tag, xyz in colorants.items()}
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    text = name.encode() + b"\0"
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    table, body = [struct.pack(">I", len(tags))], b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table.append(tag + struct.pack(">II", start + len(body), len(data)))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1.0, 0.82491)))
    return head + bytes(128 - len(head)) + b"".join(table) + body
