"""The few texts of EXIF, and the packet of XMP, in which programs keep how a picture was made. No other part is read.

Tags: CIPA DC-008 (Exif 2.32). Every offset is checked against the block, and nothing is followed twice.
"""

from __future__ import annotations

import struct

from pipelines.io.containers import png_without_metadata

XMP = "XML:com.adobe.xmp"  # as PNG names a text with a packet of XMP
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"  # of a segment of a JPEG
FOUND = {
    0x010E: "description",
    0x0131: "Software",
    0x010F: "make",
    0x0110: "model",
    0x927C: "maker_note",
    0x9286: "comment",
}
POINTER = 0x8769  # from the first directory to that of Exif
MOST_ENTRIES = 256
MOST_BYTES = 1_000_000  # of one text
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}  # bytes of a value: byte, ASCII, short, long, undefined


def exif_texts(data: bytes) -> dict[str, str]:
    """The texts in the EXIF of a JPEG, WebP or PNG file, by the names of FOUND, and its packet of XMP; {} for none.

    That of a PNG is a text of its own, which is not read here.
    """
    if data[:4] == b"\x89PNG":
        return texts_of_exif(png_without_metadata(data)[1]) if b"eXIf" in data else {}
    return texts_of_exif(*(_of_webp(data) if data[:4] == b"RIFF" else _of_jpeg(data)))


def texts_of_exif(block: bytes, packet: bytes = b"") -> dict[str, str]:
    """The texts in a block of EXIF, by the names of FOUND, and a packet of XMP."""
    texts = {XMP: packet[:MOST_BYTES].decode("utf-8", "replace")} if packet else dict[str, str]()
    if block[:6] == b"Exif\0\0":
        block = block[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return texts
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        directories, visited = [first], set[int]()
        while directories:
            at = directories.pop()
            if at in visited or len(visited) >= 2:
                continue
            visited.add(at)
            directories += _read_directory(block, at, order, texts)
    except struct.error:
        pass
    return texts


def _read_directory(block: bytes, at: int, order: str, texts: dict[str, str]) -> list[int]:
    """Note the texts of one directory; where Exif's own directory is."""
    (count,) = struct.unpack_from(order + "H", block, at)
    further: list[int] = []
    for entry in range(at + 2, at + 2 + 12 * min(count, MOST_ENTRIES), 12):
        tag, kind, number, value = struct.unpack_from(order + "HHII", block, entry)
        if tag == POINTER:
            further.append(value)
        elif tag in FOUND and kind in SIZES:
            length = number * SIZES[kind]
            if length > MOST_BYTES:
                continue
            start = entry + 8 if length <= 4 else value
            texts.setdefault(FOUND[tag], _text(block[start : start + length], order))
    return further


def _text(value: bytes, order: str) -> str:
    """A value as text. Comments begin with the name of their code in 8 bytes (4.6.5, table 9)."""
    code, rest = value[:8], value[8:]
    if code == b"UNICODE\0":
        if rest[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return rest.decode("utf-16", "replace").strip("\0")
        # The standard says the block's own order; most programs write big-endian, whatever the block's is.
        ways = ("utf-16-be", "utf-16-le") if order == ">" or rest[:1] == b"\0" else ("utf-16-le", "utf-16-be")
        texts = [rest.decode(way, "replace") for way in ways]
        return max(texts, key=_plainness).strip("\0")
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        value = rest
    return value.decode("utf-8", "replace").strip("\0")


def _plainness(text: str) -> int:
    """How many characters every text about a picture has; the wrong byte order has hardly any of them."""
    return sum(character.isascii() and character.isprintable() for character in text[:2000])


def _of_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """The first EXIF and the first XMP segment before the pixels (ITU-T T.81, B.1.1)."""
    at, exif, packet = 2, b"", b""
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA or length < 2:
            break
        segment = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and segment[:6] == b"Exif\0\0":
            exif = exif or segment
        elif marker == 0xE1 and segment.startswith(XMP_HEAD):
            packet = packet or segment[len(XMP_HEAD) :]
        at += 2 + length
    return exif, packet


def _of_webp(data: bytes) -> tuple[bytes, bytes]:
    """The chunks EXIF and XMP (https://developers.google.com/speed/webp/docs/riff_container)."""
    at, found = 12, {b"EXIF": b"", b"XMP ": b""}
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind in found:
            found[kind] = found[kind] or data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return found[b"EXIF"], found[b"XMP "]
