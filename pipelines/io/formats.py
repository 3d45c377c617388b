"""The formats of pictures by their first bytes: those that are opened, and those that are refused by name."""

from __future__ import annotations

import re

from pipelines.errors import BadInput

FORMATS = ("PNG", "JPEG", "WEBP")  # that are opened
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
BRANDS = {  # of ISO base media files, by the major one
    **dict.fromkeys(HEIC, "HEIC"), b"avif": "AVIF", b"avis": "AVIF", b"mif1": "HEIF", b"msf1": "HEIF", b"mif2": "HEIF",
    b"MA1B": "AVIF", b"MA1A": "AVIF", b"MiHB": "HEIC", b"MiHE": "HEIC", b"MiPr": "HEIC",
    b"crx ": "CR3, a camera's raw data",
}  # fmt: skip
OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0\x10\0\0\0CR", "CR2, a camera's raw data"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2" + bytes(9), "TGA"),
    (b"\0\0\x0a" + bytes(9), "TGA"),
    (b"\0\0\2\0", "CUR"),
    (b"\x0a\5\1", "PCX"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"IIRO", "ORF, a camera's raw data"),
    (b"IIU\0", "RW2, a camera's raw data"),
    (b"CSFCHUNK", "Clip Studio (CLIP)"),
    (b"PDN3", "Paint.NET (PDN)"),
    (b"\0\xffKA", "Affinity"),
    (b"BLENDER", "Blender"),
    (b"\xabKTX ", "KTX"),
    (b"SIMPLE  =", "FITS"),
    (b"Rar!", "RAR"),
    (b"7z\xbc\xaf", "7z"),
    (b"\x1f\x8b", "gzip, as SVGZ and Telegram's TGS are"),
    (b"icns", "ICNS"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"FUJIFILMCCD-RAW", "RAF, a camera's raw data"),
    (b"\x8aMNG", "MNG"),
    (b"BPG\xfb", "BPG"),
)
FILMS = ((b"\x1aE\xdf\xa3", "WebM"), (b"OggS", "Ogg"))
ZIPPED = {b"application/x-krita": "Krita (KRA)", b"image/openraster": "OpenRaster (ORA)"}
PORTABLE = ("PBM", "PGM", "PPM", "PBM", "PGM", "PPM", "PAM")  # by the number after their P


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
    if data[:4] in (b"\x89PNG", b"PNG\r", b"PNG\n", b"\xc2\x89PN"):  # passed through something made for text
        raise BadInput("io.picture_as_text", format="PNG")
    start = data[:400].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"from: <saved by", b"[internetshortcut]")):
        raise BadInput("io.format_page")
    if start.startswith(b"version https://git-lfs"):
        raise BadInput("io.format_pointer")
    if film := _film(data):
        raise BadInput("io.format_film", format=film)
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
    if data[4:8] == b"ftyp" and (name := BRANDS.get(data[8:12])):
        brands = {data[at : at + 4] for at in range(16, min(len(data), 64), 4)}
        return "AVIF" if name == "HEIF" and b"avif" in brands else "HEIC" if name == "HEIF" else name
    head = data[:2000].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()  # UTF-16 too
    if head.startswith((b"<svg", b"<!doctype svg")) or (
        head.startswith((b"<?xml", b"<!--")) and b"<svg" in head
    ):
        return "SVG"
    if head.startswith(b"<?xml") and b"<error" in head:
        raise BadInput("io.format_page")
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[:4] == b"PK\x03\x04":
        return next((name for kind, name in ZIPPED.items() if kind in data[:100]), "ZIP")
    if portable := re.match(rb"P([1-7])\s", data):
        return PORTABLE[int(portable[1]) - 1]
    return next((name for mark, name in OTHERS if data.startswith(mark)), "")


def _film(data: bytes) -> str:
    """The name of a film's format; "" for other files."""
    if data[4:8] == b"ftyp" and data[8:12] not in BRANDS:
        return "MOV" if data[8:12] == b"qt  " else "MP4"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "AVI"
    return next((name for mark, name in FILMS if data.startswith(mark)), "")
