"""What the files of pictures from untrusted sources hold beside pixels: what is kept of them, and how it is read."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from PIL import Image

from pipelines.errors import BadInput
from pipelines.io.numbered import COLOURS, cicp_is_read, numbered_profile
from pipelines.io.profiles import JPEG_HEAD, profile_of_jpeg, profile_of_png

MAX_SCANS = 100  # of a progressive JPEG; cameras write about ten, and each one costs a pass over all pixels
MAX_CHUNKS = 20_000  # of a PNG
MAX_SEGMENTS = 20_000  # of a JPEG, before its scans and among them
SCAN, END = 0xDA, 0xD9  # markers of a JPEG
PNG_PIXELS = (  # the chunks that say how a PNG's pixels are read, or that it is an animation
    b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT",
)  # fmt: skip
GREY, PALETTE, GREY_ALPHA = 0, 3, 4  # colour types of a PNG
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # of a segment; inside a scan 0xFF goes before others
NOT_READ = {  # marker of a JPEG's head -> what it says of the picture (ITU-T T.81, table B.1; T.87)
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "JPEG without loss"), 0xC5: "hierarchical JPEG", 0xC6: "hierarchical JPEG",
    0xCD: "hierarchical JPEG", 0xCE: "hierarchical JPEG", 0xF7: "JPEG-LS",
}  # fmt: skip
HEADS = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # markers of the heads that are read
CHANNELS = (1, 3, 4)  # of a JPEG
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
    when the file is damaged, is of a kind that is not read, or has more than MAX_SCANS scans.
    """
    kept, exif, profiles = [data[:2]], b"", list[bytes]()
    for marker, segment in jpeg_segments(data):
        if marker in NOT_READ:
            raise BadInput("io.format_not_read", format=NOT_READ[marker])
        if marker in HEADS:
            _check_head(segment)
        if marker == 0xE1 and not exif and segment[4:10] == b"Exif\0\0":
            exif = segment[4:]
        if marker == 0xE2 and segment[4:].startswith(JPEG_HEAD):
            profiles.append(segment[4:])
        if says_how_pixels_are_read(marker):
            kept.append(segment)
    return b"".join(kept), exif, profile_of_jpeg(profiles)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The number of the marker and the bytes of each segment of a JPEG (ITU-T T.81, B.1.1), and last its scans as one.

    What cameras write between segments, and phones behind the picture, is passed over, as all viewers do. BadInput when
    the file is damaged, or has more than MAX_SCANS scans.
    """
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, at)
        if found is None or len(data) < found.end() + 2:
            break
        at, marker = found.start(), found[0][1]
        if marker == SCAN:
            yield marker, data[at : _end_of_scans(data, at)]
            return
        end = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        if end < found.end() + 2 or end > len(data):
            break
        yield marker, data[at:end]
        at = end
    raise BadInput("io.jpeg_damaged")


def says_how_pixels_are_read(marker: int) -> bool:
    """Whether a JPEG's segment is no comment, and of those of applications JFIF's or Adobe's."""
    return not (0xE1 <= marker <= 0xEF or marker == 0xFE) or marker == 0xEE


def _check_head(segment: bytes) -> None:
    """BadInput for a JPEG of other than 8 bits a sample, or of 2 or more than 4 channels, from its frame's head."""
    bits, channels = (segment[4], segment[9]) if len(segment) > 9 else (8, 3)
    if bits != 8:
        raise BadInput("io.format_not_read", format=f"JPEG of {bits} bits")
    if channels not in CHANNELS:
        raise BadInput("io.format_not_read", format=f"JPEG of {channels} channels")


def _end_of_scans(data: bytes, at: int) -> int:
    """Where a JPEG ends whose first scan begins at `at`. BadInput when it has more than MAX_SCANS."""
    scans = 0
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, at)
        if found is None:
            return len(data)
        if found[0][1] == END:
            return found.end()
        scans += found[0][1] == SCAN
        if scans > MAX_SCANS:
            break
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise BadInput("io.jpeg_scans", most=MAX_SCANS)


def png_without_metadata(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A PNG without its texts, colour profile and EXIF, and the EXIF and the profile by themselves.

    Colours that it says by numbers are a profile too. Pillow unpacks texts and profiles, and calls the picture damaged
    when one has more than a megabyte. What follows a chunk that is cut off is kept, for Pillow to say what is wrong.
    BadInput for more than MAX_CHUNKS chunks, and for the variant that is packed into apps for iOS.
    """
    kept, exif, profile, at, has_palette = [data[:8]], b"", b"", 8, False
    colours: dict[bytes, bytes] = {}
    grey = png_facts(data)[1] in (GREY, GREY_ALPHA)
    for _ in range(MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"CgBI":
            raise BadInput("io.format_apple")
        end = at + 12 + length
        if len(kind) < 4 or end > len(data):
            return b"".join([*kept, data[at:]]), exif, numbered_profile(colours, profile, grey)
        if kind in PNG_PIXELS:
            kept.append(data[at:end])
            has_palette = has_palette or kind == b"PLTE"
            if kind == b"IDAT" and png_facts(data)[1] == PALETTE and not has_palette:
                raise BadInput("io.picture_damaged", format="PNG", reason="no palette")
        elif kind == b"eXIf" and not exif:
            exif = data[at + 8 : end - 4]
        elif kind == b"iCCP" and not profile:
            profile = profile_of_png(data[at + 8 : end - 4])
        elif kind in COLOURS and len(kept) == 2:  # before the pixels
            colours.setdefault(kind, data[at + 8 : end - 4])
        if kind == b"IEND":
            return b"".join(kept), exif, numbered_profile(colours, profile, grey)
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


def png_colours_are_read(data: bytes) -> bool:
    """Whether a PNG says by no cICP chunk that its colours are such as are not read here."""
    at = data.find(b"cICP", 8, data.find(b"IDAT", 8) + 1 or None)
    return at < 0 or cicp_is_read(data[at + 4 : at + 8])
