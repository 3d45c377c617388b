"""Colour profiles of pictures from untrusted sources: the pixels are converted to sRGB, which the models see.

As in browsers, a profile that cannot be read, or is of another kind of colours than the picture, is left out of account.
"""

from __future__ import annotations

import io
import zlib
from typing import Any, cast

from PIL import Image, ImageCms

MAX_PROFILE = 4_000_000  # bytes
JPEG_HEAD = b"ICC_PROFILE\0"  # of a segment of APP2: then its number from 1, the number of all, and its part
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # mode of a picture -> colour space of its profile


def profile_of_jpeg(segments: list[bytes]) -> bytes:
    """The profile that APP2 segments hold, without their markers and lengths. b"" when there is none, or not all of it."""
    parts = {part[len(JPEG_HEAD)]: part for part in segments if len(part) > len(JPEG_HEAD) + 1}
    numbers = sorted(parts)
    if not numbers or numbers != list(range(1, parts[numbers[0]][len(JPEG_HEAD) + 1] + 1)):
        return b""
    profile = b"".join(parts[number][len(JPEG_HEAD) + 2 :] for number in numbers)
    return profile if len(profile) <= MAX_PROFILE else b""


def profile_of_png(chunk: bytes) -> bytes:
    """The profile in the data of an iCCP chunk. b"" when it does not unpack or is larger than MAX_PROFILE."""
    _, _, rest = chunk.partition(b"\0")  # its name
    unpacker = zlib.decompressobj()
    try:
        # the first byte is the method, of which there is one
        profile = unpacker.decompress(rest[1:], MAX_PROFILE)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else profile


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """The picture with its colours in sRGB, RGB or, with its transparency, RGBA. Unchanged when the profile is no help.

    `picture` is of one of the modes of SPACES, or RGBA, or LA. Colours beyond sRGB become the nearest in it (relative
    colorimetric, with compensation of the black point).
    """
    alpha = picture.getchannel("A") if picture.mode in ("RGBA", "LA") else None
    opaque = picture.convert({"RGBA": "RGB", "LA": "L"}[picture.mode]) if alpha else picture
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        facts = source.profile
        if facts.xcolor_space != SPACES.get(opaque.mode) or "sRGB" in (facts.profile_description or ""):
            return picture
        converted = ImageCms.profileToProfile(
            opaque,
            source,
            cast(Any, ImageCms).createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
    if converted is None:
        return picture
    converted.info = {}
    if alpha is not None:
        converted.putalpha(alpha)
    return converted
