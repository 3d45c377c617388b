"""The one safe way to open a stranger's picture."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image, PngImagePlugin, UnidentifiedImageError

from pipelines.errors import BadInput
from pipelines.io.images import (
    as_seen,
    fit_square,
    on_white,
    open_picture,
    open_untouched,
    picture_notes,
    picture_to_uri,
    restrict_pillow,
    to_pil,
    to_tensor,
)
from pipelines.io.metadata import without_metadata

ADDRESSES = str.maketrans("+/", "-_")


def as_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str = "RGB") -> Image.Image:
    return Image.effect_noise((20, 12), 80).convert(mode)


def test_tensors_and_pictures_agree() -> None:
    image = noise()
    tensor = to_tensor([image])
    assert tensor.shape == (1, 3, 12, 20) and tensor.min() >= -1 and tensor.max() <= 1
    assert to_pil(tensor)[0].tobytes() == image.tobytes()
    assert to_pil(torch.full((1, 3, 2, 2), 9.0))[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})]
)
def test_three_formats_are_opened(kind: str, options: dict, tmp_path: Path) -> None:
    data = as_bytes(noise(), kind, **options)
    (tmp_path / "a.bin").write_bytes(data)  # what it is called does not matter
    assert open_picture(tmp_path / "a.bin").size == open_picture(data).size == (20, 12)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "PDF"])
def test_other_formats_are_refused_whatever_they_are_called(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(as_bytes(noise(), kind))
    with pytest.raises(BadInput, match=f"PNG, JPEG|picture is {kind}"):
        open_picture(tmp_path / "a.png")


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_giants_are_refused_from_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(BadInput, match="the most is 64,000,000"):
        open_picture(png_of(50_000, 50_000), max_pixels=16_000_000)
    with pytest.raises(BadInput, match="the most is 64,000,000"):
        open_picture(png_of(12_000, 12_000))
    with pytest.raises(BadInput, match="the most is 1,000"):
        open_picture(png_of(50, 50), max_pixels=1000)


def test_truncated_damaged_empty_and_missing_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = as_bytes(noise(), "PNG")
    for data in (b"", whole[:10], whole[:60], whole[:-60], whole[:40] + b"\xff" * 30 + whole[70:]):
        with pytest.raises(BadInput):
            open_picture(data)
    with pytest.raises(BadInput, match=r"nothing\.png"):
        open_picture(Path("nothing.png"))
    with pytest.raises(BadInput):
        open_picture(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    with pytest.raises(BadInput):
        open_picture(as_bytes(frames[0], kind, save_all=True, append_images=frames[1:], duration=100))


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert on_white(open_picture(as_bytes(clear, "PNG"))).getpixel((1, 1)) == (255, 255, 255)
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert on_white(half).getpixel((0, 0)) == (127, 127, 127)


def test_exif_turns_the_picture_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_picture(as_bytes(noise(), "JPEG", exif=exif)).size == (12, 20)


def jpeg_with(*segments: bytes) -> bytes:
    """A JPEG with application segments put in front of all others."""
    data = as_bytes(noise(), "JPEG")
    marked = [b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments]
    return data[:2] + b"".join(marked) + data[2:]


def test_exif_made_to_keep_a_reader_busy_costs_nothing() -> None:
    segment = b"Exif\0\0" * 10_000
    assert open_picture(jpeg_with(*[segment] * 400)).size == (20, 12)  # 24 MB of beginnings of EXIF
    loop = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    assert open_picture(jpeg_with(loop + struct.pack("<I", 8))).size == (20, 12)
    assert open_picture(jpeg_with(b"Exif\0\0II*\0\xff\xff\xff\xff")).size == (20, 12)


def test_jpegs_of_endless_scans_or_broken_segments_are_refused() -> None:
    whole = as_bytes(noise(), "JPEG")
    scan = whole[whole.index(b"\xff\xda") : -2]
    with pytest.raises(BadInput, match="scans"):
        open_picture(whole[:-2] + scan * 200 + whole[-2:])
    for data in (
        whole[:2] + b"\xff\xe1\0\0" + whole[2:],
        whole[:2] + b"\xff\xe1\xff\xff",
        whole[:3] + b"\xff" * 99,
    ):
        with pytest.raises(BadInput, match="damaged"):
            open_picture(data)


def test_a_film_behind_a_photo_is_no_scan() -> None:
    whole = as_bytes(noise(), "JPEG")
    film = np.random.default_rng(0).integers(0, 256, 99_999, np.uint8).tobytes() + b"\xff\xda\0\x08" * 200
    assert open_picture(whole + film).tobytes() == open_picture(whole).tobytes()
    assert film not in without_metadata(whole + film)


def test_bytes_between_the_segments_of_a_jpeg_are_passed_over() -> None:
    whole = as_bytes(noise(), "JPEG")
    at = whole.index(b"\xff\xdb")
    data = whole[:at] + b"\0\1\xff\0\2" + whole[at:]
    assert (
        open_picture(data).tobytes()
        == open_picture(without_metadata(data)).tobytes()
        == open_picture(whole).tobytes()
    )


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\xff\xc0\x00\x11\x0c", "JPEG of 12 bits"),
        (b"\xff\xc3\x00\x11\x08", "JPEG without loss"),
        (b"\xff\xf7\x00\x11\x08", "JPEG-LS"),
    ],
)
def test_jpegs_of_other_kinds_are_named(head: bytes, words: str) -> None:
    data = as_bytes(noise(), "JPEG")
    with pytest.raises(BadInput, match=words):
        open_picture(data.replace(b"\xff\xc0\x00\x11\x08", head))


def test_paths_and_uris_as_they_are_copied(tmp_path: Path) -> None:
    file, image = tmp_path / "a b.png", noise()
    image.save(file)
    uri = picture_to_uri(image)
    lines = "\n".join(uri[k : k + 76] for k in range(0, len(uri), 76))
    plain, body = uri.split(",")
    for source in (
        f'"{file}"',
        f" {file} ",
        file.as_uri(),
        f" {uri}\n",
        lines,
        f"{plain}," + body.translate(ADDRESSES),
    ):
        assert open_picture(source).tobytes() == image.tobytes()
    with pytest.raises(BadInput, match="is an address"):
        open_picture("https://example.com/a.png")


def test_sixteen_bits_of_grey_become_eight() -> None:
    levels = Image.new("I;16", (3, 3), 0x8040)
    assert open_picture(as_bytes(levels, "PNG")).getpixel((1, 1)) == (128, 128, 128)


def test_data_uris_round_trip_and_bad_ones_are_refused() -> None:
    image = noise()
    assert open_picture(picture_to_uri(image)).tobytes() == image.tobytes()
    for uri in ("data:image/png;base64,", "data:image/png;base64,!!!", "data:image/svg+xml;base64,PHN2Zy8+"):
        with pytest.raises(BadInput):
            open_picture(uri)


def test_squares_are_cut_from_the_middle() -> None:
    image = Image.new("RGB", (30, 10), "white")
    image.paste("red", (10, 0, 20, 10))
    square = fit_square(image, 8)
    assert square.size == (8, 8) and square.getpixel((4, 4)) == (255, 0, 0)


def test_restricted_pillow_opens_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    opened = {
        **Image.OPEN,
        "GIF": (GifImagePlugin.GifImageFile, None),
    }  # by all that is known, whatever ran before
    monkeypatch.setattr(Image, "OPEN", opened)
    monkeypatch.setattr(Image, "ID", list(opened))
    for place, name in (
        (Image, "MAX_IMAGE_PIXELS"), (PngImagePlugin, "MAX_TEXT_CHUNK"), (PngImagePlugin, "MAX_TEXT_MEMORY"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, getattr(place, name))  # as it was, after this test
    file = io.BytesIO(as_bytes(Image.new("L", (4, 4)), "GIF"))
    assert Image.open(file).format == "GIF"
    restrict_pillow()
    with pytest.raises(UnidentifiedImageError):
        Image.open(file)
    assert set(Image.OPEN) == set(Image.ID) == {"PNG", "JPEG", "WEBP"}


def test_a_png_with_long_texts_and_profiles_is_opened() -> None:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=True)
    texts.add_itxt("notes", "红" * 1_000_000, zip=True)
    image, exif = noise(), Image.Exif()
    exif[0x0112] = 6
    data = as_bytes(image, "PNG", pnginfo=texts, icc_profile=b"p" * 2_000_000, exif=exif)
    assert len(data) < 100_000
    opened = open_picture(data)
    assert opened.tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()
    whole = as_bytes(image, "PNG")
    with pytest.raises(BadInput, match="20,000 chunks"):
        open_picture(whole[:33] + (b"\0\0\0\0tEXt" + b"\0" * 4) * 20_000 + whole[33:])


def test_dark_sixteen_bits_of_grey_stay_dark_and_their_transparent_level_stays_clear() -> None:
    levels = Image.new("I;16", (3, 3), 250)
    assert open_picture(as_bytes(levels, "PNG")).getpixel((1, 1)) == (0, 0, 0)
    levels.putpixel((0, 0), 0x8040)
    opened = open_picture(as_bytes(levels, "PNG", transparency=250))
    assert opened.getpixel((1, 1)) == (0, 0, 0, 0) and opened.getpixel((0, 0)) == (128, 128, 128, 255)


def png_with_clear(levels: list[list[int]], colour: int, bits: int, clear: bytes) -> bytes:
    """A PNG of rows of packed bytes, of a colour type, with the one clear colour of a tRNS chunk."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = [bytes(row) for row in levels]
    samples = {0: 1, 2: 3}[colour]
    header = struct.pack(">IIBBBBB", len(rows[0]) * 8 // bits // samples, len(rows), bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", clear) + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "alphas"),
    [
        (png_with_clear([[0b00_01_10_11]], 0, 2, b"\0\x01"), [255, 0, 255, 255]),
        (png_with_clear([[0x0F]], 0, 4, b"\0\x0f"), [255, 0]),
        (png_with_clear([[0b01000000]], 0, 1, b"\0\x01"), [255, 0, *[255] * 6]),
        (png_with_clear([[9, 200]], 0, 8, b"\0\xc8"), [255, 0]),
        (
            png_with_clear(
                [[18, 52, 86, 120, 154, 188, *[9] * 6]], 2, 16, bytes([18, 52, 86, 120, 154, 188])
            ),
            [0, 255],
        ),
        (png_with_clear([[0x80, 0x40, 0x80, 0x41]], 0, 16, b"\x80\x40"), [0, 255]),
    ],
)
def test_the_one_clear_colour_of_a_png_is_clear_at_any_depth(data: bytes, alphas: list[int]) -> None:
    assert list(open_picture(data).getchannel("A").tobytes()) == alphas


def test_what_is_lost_of_a_png_is_told() -> None:
    deep = png_with_clear([[0, 0, 0, 0, 0, 0]], 2, 16, bytes(6))
    assert [note.code for note in picture_notes(deep)] == ["io.sixteen_bits"]
    plain = as_bytes(noise(), "PNG")
    for body, codes in (((1, 13, 0, 1), []), ((9, 16, 0, 1), ["io.colours_by_number"])):
        chunk = (
            struct.pack(">I", 4)
            + b"cICP"
            + bytes(body)
            + struct.pack(">I", zlib.crc32(b"cICP" + bytes(body)))
        )
        assert [note.code for note in picture_notes(plain[:33] + chunk + plain[33:])] == codes
    assert picture_notes(as_bytes(Image.new("I;16", (3, 3)), "PNG")) == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "LA", "I;16"])
def test_larger_pictures_are_halved_in_any_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.io.images.MAX_PIXELS", 100)
    monkeypatch.setattr("pipelines.io.images.LARGEST", {"PNG": 400})
    large = Image.new("L", (20, 15), 128)
    large.paste(255, (0, 0, 10, 15))
    deep = Image.fromarray(np.asarray(large).astype(np.uint16) * 257)
    large = deep if mode == "I;16" else large.convert(mode)
    for picture in (
        open_picture(as_bytes(large, "PNG"), max_pixels=100),
        open_untouched(as_bytes(large, "PNG")),
    ):
        assert picture.size == (10, 8)
        assert on_white(as_seen(picture)).getpixel((1, 1)) == (255, 255, 255)
    (note,) = picture_notes(as_bytes(large, "PNG"))
    assert (note.facts["smaller_width"], note.facts["smaller_height"]) == (10, 8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\n\x1a\n\0\0", "took it for text"),
        (b"\xc2\x89PNG\r\n", "took it for text"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "web page"),
        (b"<html><body><svg>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b'<!-- Generator: x -->\n<svg width="1">', "SVG"),
        (b"<!DOCTYPE svg PUBLIC>", "SVG"),
        (b"\0\0\0\x18ftypheim\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "film.*MP4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "film.*MOV"),
        (b"RIFF\0\0\0\0AVI LIST", "film.*AVI"),
        (b"\x1aE\xdf\xa3\x01", "film.*WebM"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "CR3"),
        (b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/x-krita", "Krita"),
        (b"PK\x03\x04" + bytes(40), "ZIP"),
        (b"P6\n2 2\n255\n", "PPM"),
        (b"\0\0\2" + bytes(9) + b"\x60\0\x40\0\x18\0", "TGA"),
        (b"MM\0+\0\x08", "TIFF"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b'{"prompt": {}}', "not a PNG"),
        (b"\0\0\0\x1cftypMA1B\0\0\0\0avif", "AVIF"),
        (b"\0\0\0\x18ftypMiHB\0\0\0\0", "HEIC"),
        (b"II*\0\x10\0\0\0CR\2\0", "CR2"),
        (b"IIRO\x08\0", "ORF"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\0\0\2\0\1\0", "CUR"),
        (b"CSFCHUNK", "Clip Studio"),
        (bytes(128) + b"DICM", "DICOM"),
        ("<svg xmlns='x'>".encode("utf-16"), "SVG"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "web page"),
    ],
)
def test_files_in_a_pictures_place_are_named(data: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words) as told:
        open_picture(data)
    assert told.value.text("zh") != told.value.text()


def test_a_png_of_a_palette_without_it_is_damaged() -> None:
    data = as_bytes(noise("P"), "PNG")
    with pytest.raises(BadInput, match="no palette"):
        open_picture(data.replace(b"PLTE", b"PLTe", 1))


def test_a_png_as_in_apps_for_ios_is_named() -> None:
    plain = as_bytes(noise(), "PNG")
    with pytest.raises(BadInput, match="iOS"):
        open_picture(plain[:8] + struct.pack(">I", 4) + b"CgBI" + bytes(8) + plain[8:])
