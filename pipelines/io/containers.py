"""What the files of pictures from untrusted sources hold beside pixels: what is kept of them, and how it is read."""

from __future__ import annotations

import struct

from PIL import Image

from pipelines.errors import BadInput
from pipelines.io.profiles import JPEG_HEAD, profile_of_jpeg, profile_of_png

MAX_SCANS = 100  # of a progressive JPEG; cameras write about ten, and each one costs a pass over all pixels
MAX_CHUNKS = 20_000  # of a PNG
PNG_PIXELS = (  # the chunks that say how a PNG's pixels are read, or that it is an animation
    b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT",
)  # fmt: skip
PALETTE = 3  # colour type of a PNG
SRGB = (1, 13)  # primaries and transfer of a PNG's cICP chunk (ITU-T H.273)
TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def jpeg_without_metadata(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A JPEG without its comments, colour profile and EXIF, and the EXIF and the profile by themselves.

    Crafted metadata can keep Pillow's readers of it busy for hours, so only the pixels are given to Pillow. BadInput
    when the file is damaged or has more than MAX_SCANS scans.
    """
    kept, exif, profiles, at = [data[:2]], b"", list[bytes](), 2
    if data.count(b"\xff\xda") > MAX_SCANS:  # inside a scan 0xFF is always followed by 0x00 or a restart mark
        raise BadInput("io.jpeg_scans", most=MAX_SCANS)
    while True:
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            raise BadInput("io.jpeg_damaged")
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA:  # the pixels begin
            return b"".join([*kept, data[at:]]), exif, profile_of_jpeg(profiles)
        segment = data[at : at + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            raise BadInput("io.jpeg_damaged")
        if marker == 0xE1 and not exif and segment[4:10] == b"Exif\0\0":
            exif = segment[4:]
        if marker == 0xE2 and segment[4:].startswith(JPEG_HEAD):
            profiles.append(segment[4:])
        # Of the application segments only JFIF (0xE0) and Adobe's (0xEE) say how pixels are to be read.
        if not (0xE1 <= marker <= 0xEF or marker == 0xFE) or marker == 0xEE:
            kept.append(segment)
        at += 2 + length


def png_without_metadata(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A PNG without its texts, colour profile and EXIF, and the EXIF and the profile by themselves.

    Pillow unpacks texts and profiles, and calls the picture damaged when one has more than a megabyte. What follows a
    chunk that is cut off is kept, for Pillow to say what is wrong. BadInput for more than MAX_CHUNKS chunks, and
    for the variant that is packed into apps for iOS.
    """
    kept, exif, profile, at, has_palette = [data[:8]], b"", b"", 8, False
    for _ in range(MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"CgBI":
            raise BadInput("io.format_apple")
        end = at + 12 + length
        if len(kind) < 4 or end > len(data):
            return b"".join([*kept, data[at:]]), exif, profile
        if kind in PNG_PIXELS:
            kept.append(data[at:end])
            has_palette = has_palette or kind == b"PLTE"
            if kind == b"IDAT" and png_facts(data)[1] == PALETTE and not has_palette:
                raise BadInput("io.picture_damaged", format="PNG", reason="no palette")
        elif kind == b"eXIf" and not exif:
            exif = data[at + 8 : end - 4]
        elif kind == b"iCCP" and not profile:
            profile = profile_of_png(data[at + 8 : end - 4])
        if kind == b"IEND":
            return b"".join(kept), exif, profile
        at = end
    raise BadInput("io.png_chunks", most=MAX_CHUNKS)


def orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in a block of EXIF. 1 when there is none or it cannot be read."""
    tiff = exif[6:] if exif[:6] == b"Exif\0\0" else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * min(count, 256), 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, at)
            if tag == 0x0112 and kind == 3 and value in TURNS:
                return value
    except struct.error:
        pass
    return 1


def png_facts(data: bytes) -> tuple[int, int]:
    """Bits a sample and colour type of a PNG, as its IHDR says. (0, 0) where it says nothing."""
    return (data[24], data[25]) if len(data) > 25 and data[12:16] == b"IHDR" else (0, 0)


def png_is_srgb(data: bytes) -> bool:
    """Whether a PNG says by no cICP chunk that its colours are others than sRGB's."""
    at = data.find(b"cICP", 8, data.find(b"IDAT", 8) + 1 or None)
    return at < 0 or tuple(data[at + 4 : at + 6]) == SRGB
