"""Pictures without what their files say besides: where and by whom they were taken, and with which programs."""

from __future__ import annotations

import io
import struct
import zlib

from pipelines.errors import BadInput
from pipelines.io.containers import jpeg_segments, says_how_pixels_are_read
from pipelines.io.formats import picture_format
from pipelines.io.images import MAX_BYTES, open_picture
from pipelines.io.profiles import JPEG_HEAD

PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"iCCP", b"sBIT", b"IDAT", b"IEND")
OUR_RECORD = b"atelier\0"  # a text of ours: Optimize begins with the tokens in it


def without_metadata(data: bytes) -> bytes:
    """The file of a picture without EXIF, XMP, comments, texts of other programs and films behind it; its pixels stay.

    The file stays as it is otherwise. Where that changed the picture, as for one that EXIF turns upright, it is written
    anew as PNG, or as WebP where that would be too heavy. BadInput when `data` is no picture that can be opened.
    """
    picture = open_picture(data)
    kind = picture_format(data)
    try:
        bare = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}[kind](data)
        again = open_picture(bare)
        if (again.mode, again.size) == (picture.mode, picture.size) and again.tobytes() == picture.tobytes():
            return bare
    except (BadInput, struct.error):
        pass
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    if buffer.tell() > MAX_BYTES // 2:  # a large photo on its side
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=95)
    return buffer.getvalue()


def _png(data: bytes) -> bytes:
    """https://www.w3.org/TR/png-3/#5Chunk-layout: length, type, data, checksum."""
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        ours = kind in (b"tEXt", b"zTXt", b"iTXt") and body.startswith(OUR_RECORD)
        if kind in PNG_KEPT or ours:
            kept.append(struct.pack(">I4s", length, kind) + body + struct.pack(">I", zlib.crc32(kind + body)))
        if kind == b"IEND":
            break
        at += 12 + length
    return b"".join(kept)


def _jpeg(data: bytes) -> bytes:
    kept = [data[:2]]
    for marker, segment in jpeg_segments(data):
        if says_how_pixels_are_read(marker) or (marker == 0xE2 and segment[4:].startswith(JPEG_HEAD)):
            kept.append(segment)
    return b"".join(kept)


def _webp(data: bytes) -> bytes:
    """https://developers.google.com/speed/webp/docs/riff_container: chunks of a name and a length."""
    chunks: list[bytes] = []
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        chunk = data[at : at + 8 + length + length % 2]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~0x0C]) + chunk[9:]  # it has neither EXIF nor XMP now
        if kind not in (b"EXIF", b"XMP "):
            chunks.append(chunk)
        at += 8 + length + length % 2
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body
