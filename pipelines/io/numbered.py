"""Colours that a PNG says by numbers, in its chunks cICP, sRGB, gAMA and cHRM, as an ICC profile (ICC.1:2001-04).

cICP is asked first, then a profile, sRGB, and gAMA with cHRM last (PNG, third edition, 4.3).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = tuple[tuple[float, float], ...]  # x and y of white, red, green and blue

D65 = (0.3127, 0.3290)
SRGB: Points = (D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
PRIMARIES: dict[int, Points] = {  # ITU-T H.273, table 2
    1: SRGB,
    9: (D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: (D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}
EXPONENTS = {
    13: 0.0,
    8: 1.0,
    4: 2.2,
    5: 2.8,
}  # ITU-T H.273, table 3: the power of a level; 0 for sRGB's own curve
MOST_EXPONENT = 255.0  # that a profile holds
D50 = (0.9642, 1.0, 0.8249)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
NEAR = 0.002  # of x and y, and 0.05 of the exponent: what programs round
LEVELS = 1024  # of sRGB's curve in a profile
COLOURS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")


def cicp_is_read(body: bytes) -> bool:
    """Whether the data of a cICP chunk says colours that `numbered_profile` has a profile for, sRGB included."""
    return len(body) == 4 and body[0] in PRIMARIES and body[1] in EXPONENTS and body[2:] == b"\0\1"


def numbered_profile(chunks: Mapping[bytes, bytes], profile: bytes, grey: bool) -> bytes:
    """The profile of a PNG's colours: `profile`, that of its iCCP chunk, or one made from the others. b"" for sRGB.

    `chunks` holds the data of the chunks of COLOURS that there are; those that are damaged count for nothing.
    """
    cicp = chunks.get(b"cICP", b"")
    if cicp_is_read(cicp):
        return _profile(PRIMARIES[cicp[0]], EXPONENTS[cicp[1]], grey)
    if profile or b"sRGB" in chunks:
        return profile
    gamma, points = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    level = int.from_bytes(gamma, "big") / 100_000 if len(gamma) == 4 else 0.0
    exponent = min(1 / level, MOST_EXPONENT) if level else 0.0
    numbers = [number / 100_000 for number in struct.unpack(">8I", points)] if len(points) == 32 else []
    return _profile(tuple(zip(numbers[::2], numbers[1::2], strict=True)) or SRGB, exponent, grey)


def _profile(points: Points, exponent: float, grey: bool) -> bytes:
    """An ICC profile of version 2; b"" for sRGB, and for points that span no colours."""
    own_curve = exponent == 0 or abs(exponent / 2.2 - 1) < 0.05
    plain = np.abs(np.subtract(points, SRGB)).max() < NEAR
    if own_curve and (plain or grey):
        return b""
    tags = {b"desc": _described(b"PNG\0"), b"cprt": b"text\0\0\0\0-\0", b"wtpt": _xyz(D50)}
    curve = _curve(None if own_curve else exponent)
    if grey:
        tags[b"kTRC"] = curve
    else:
        columns = _colorants(points)
        if columns is None:
            return b""
        for colour, column in zip((b"r", b"g", b"b"), columns.T, strict=True):
            tags[colour + b"XYZ"], tags[colour + b"TRC"] = _xyz(column), curve
    return _file(tags, b"GRAY" if grey else b"RGB ")


def _colorants(points: Points) -> NDArray[np.floating[Any]] | None:
    """Columns of XYZ of red, green and blue, adapted to D50. None when they span no colours."""
    if any(y < 1e-4 for _, y in points):
        return None
    white, *colours = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    columns = np.stack(colours, 1)
    if abs(np.linalg.det(columns)) < 1e-6:
        return None
    columns = columns * np.linalg.solve(columns, white)
    adapted = BRADFORD @ np.array(D50) / (BRADFORD @ white)
    columns = np.linalg.solve(BRADFORD, adapted[:, None] * (BRADFORD @ columns))
    return columns if np.abs(columns).max() < 30_000 else None


def _curve(exponent: float | None) -> bytes:
    """A curve from levels to light: a power, or sRGB's (IEC 61966-2-1)."""
    if exponent is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"
    level = np.linspace(0, 1, LEVELS)
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", LEVELS) + (light * 65535).round().astype(">u2").tobytes()


def _described(text: bytes) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)


def _xyz(values: tuple[float, ...] | NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values: tuple[float, ...] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _file(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """The file of a profile: a head of 128 bytes, a table, and the tags (ICC.1:2001-04, 6)."""
    table, body = [struct.pack(">I", len(tags))], b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table.append(tag + struct.pack(">II", start + len(body), len(data)))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(D50)
    return head + bytes(128 - len(head)) + b"".join(table) + body
