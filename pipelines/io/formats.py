"""The formats of pictures by their first bytes: those that are opened, and those that are refused by name."""

from __future__ import annotations

from pipelines.errors import BadInput

FORMATS = ("PNG", "JPEG", "WEBP")  # that are opened
HEIF = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF"}
OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%PDF", "PDF"),
    (b"\0\0\1\0", "ICO"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "GIMP (XCF)"),
)


def picture_format(data: bytes) -> str:
    """The format of a picture by its first bytes, one of FORMATS. BadInput, which names it, for others."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if not data:
        raise BadInput("io.picture_file_empty")
    name = _other_format(data)
    if name == "HEIC":
        raise BadInput("io.format_heic", format=name)
    if name == "GIF":
        raise BadInput("io.format_gif", format=name)
    if name == "SVG":
        raise BadInput("io.format_svg", format=name)
    if name:
        raise BadInput("io.format_not_read", format=name)
    raise BadInput("io.not_a_picture")


def _other_format(data: bytes) -> str:
    """The name of a format that is not opened; "" when it is not known either."""
    if data[4:8] == b"ftyp" and (name := HEIF.get(data[8:12])):
        brands = {data[at : at + 4] for at in range(16, min(len(data), 64), 4)}
        return "AVIF" if name == "HEIF" and b"avif" in brands else "HEIC" if name == "HEIF" else name
    head = data[:400].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head):
        return "SVG"
    return next((name for mark, name in OTHERS if data.startswith(mark)), "")
