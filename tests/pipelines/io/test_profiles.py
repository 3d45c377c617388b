"""Colour profiles: what the models see is in sRGB."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.errors import BadInput
from pipelines.io.formats import picture_format
from pipelines.io.images import MAX_PIXELS, open_picture, open_untouched, picture_notes
from pipelines.io.metadata import without_metadata
from pipelines.io.profiles import MAX_PROFILE, profile_of_jpeg, profile_of_png, to_srgb
from tests.support.pictures import matrix_profile


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})],
)
def test_a_wide_colour_is_shown_as_it_was_meant(kind: str, options: dict[str, Any]) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    opened = open_picture(saved(image, kind, icc_profile=matrix_profile(), **options))
    seen = np.asarray(opened, float).mean((0, 1))
    to_srgb_primaries = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    linear = to_srgb_primaries @ (np.array([200, 100, 50]) / 255) ** 2.2
    assert np.abs(seen - 255 * (1.055 * linear ** (1 / 2.4) - 0.055)).max() < 2
    plain = open_picture(saved(image, kind, **options))
    assert np.abs(np.asarray(plain, float).mean((0, 1)) - (200, 100, 50)).max() <= 1


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def numbered(image: Image.Image, *chunks: bytes) -> bytes:
    """A PNG with chunks behind its head."""
    data = saved(image, "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


P3 = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
OF_SRGB = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))


@pytest.mark.parametrize(
    "chunks", [[P3], [P3, chunk(b"gAMA", struct.pack(">I", 45455))], [chunk(b"cICP", bytes([12, 13, 0, 1]))]]
)
def test_colours_said_by_numbers_are_shown_as_they_were_meant(chunks: list[bytes]) -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    opened = open_picture(data := numbered(image, *chunks))
    to_srgb_primaries = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    level = np.array([200, 100, 50]) / 255
    linear = to_srgb_primaries @ ((level + 0.055) / 1.055) ** 2.4
    assert np.abs(np.array(opened.getpixel((0, 0))) - 255 * (1.055 * linear ** (1 / 2.4) - 0.055)).max() < 2
    own = open_untouched(data)
    assert (
        own.tobytes() == image.tobytes()
        and to_srgb(own, own.info["icc_profile"]).tobytes() == opened.tobytes()
    )
    assert picture_notes(data) == []
    assert open_picture(without_metadata(data)).tobytes() == opened.tobytes()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_linear_levels_become_lighter(mode: str) -> None:
    image = Image.new("L", (8, 8), 55).convert(mode)  # 0.2157 of the light, which is 128 in sRGB
    opened = open_picture(numbered(image, chunk(b"gAMA", struct.pack(">I", 100_000))))
    assert np.abs(np.asarray(opened, int) - 128).max() <= 1


@pytest.mark.parametrize(
    "chunks",
    [
        [OF_SRGB, chunk(b"gAMA", struct.pack(">I", 45455))],
        [chunk(b"sRGB", b"\0"), P3],
        [chunk(b"cICP", bytes([1, 13, 0, 1])), P3],
        [chunk(b"cHRM", bytes(32))],
        [chunk(b"cHRM", b"\xff" * 32)],
        [chunk(b"gAMA", bytes(4))],
        [chunk(b"gAMA", b"\1")],
        [chunk(b"cICP", bytes([9, 16, 0, 1]))],
    ],
)
def test_numbers_of_srgb_and_damaged_ones_change_nothing(chunks: list[bytes]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    assert open_picture(numbered(image, *chunks)).tobytes() == image.tobytes()


def test_transparency_stays() -> None:
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 90))
    opened = open_picture(saved(image, "PNG", icc_profile=matrix_profile()))
    assert opened.mode == "RGBA" and set(opened.getchannel("A").tobytes()) == {90}
    assert cast(Any, opened.getpixel((0, 0)))[0] > 205


@pytest.mark.parametrize(
    "profile", [b"", b"no profile at all", matrix_profile()[:200], matrix_profile(space=b"GRAY")]
)
def test_a_profile_that_is_no_help_changes_nothing(profile: bytes) -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    assert to_srgb(image, profile).tobytes() == image.tobytes()
    opened = open_picture(saved(image, "PNG", icc_profile=profile or None))
    assert opened.tobytes() == image.tobytes()


def test_srgb_is_not_converted_to_itself() -> None:
    profile = ImageCms.ImageCmsProfile(cast(Any, ImageCms).createProfile("sRGB")).tobytes()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    assert open_picture(saved(image, "PNG", icc_profile=profile)).tobytes() == image.tobytes()


def test_profiles_in_parts_and_too_large_ones() -> None:
    profile = matrix_profile()
    parts = [
        b"ICC_PROFILE\0" + bytes([k + 1, 2]) + half for k, half in enumerate((profile[:99], profile[99:]))
    ]
    assert profile_of_jpeg(parts) == profile_of_jpeg(parts[::-1]) == profile
    assert profile_of_jpeg(parts[:1]) == profile_of_jpeg([b"ICC_PROFILE\0"]) == profile_of_jpeg([]) == b""
    assert profile_of_png(b"name\0\0" + zlib.compress(profile)) == profile
    assert profile_of_png(b"name\0\0" + zlib.compress(bytes(MAX_PROFILE + 1))) == b""
    assert profile_of_png(b"name\0\0broken") == profile_of_png(b"") == b""


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x20ftypheic\0\0\0\0mif1heic", "HEIC.*JPEG"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "AVIF.*PNG"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"GIF89a", "GIF.*MP4"),
        (b"BM\0\0", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"\xff\x0a", "JPEG XL"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG.*size"),
        (b"%PDF-1.7", "PDF"),
        (b"hello", "not a PNG, JPEG or WebP"),
        (b"", "empty"),
    ],
)
def test_other_formats_are_refused_by_name(head: bytes, name: str) -> None:
    with pytest.raises(BadInput, match=name):
        picture_format(head)


@pytest.mark.parametrize("served", [False, True])
def test_a_phones_large_picture_is_made_smaller(served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", MAX_PIXELS // 2 if served else None
    )  # as `restrict_pillow` does
    large = Image.new("L", (5000, 4000), 128)
    for kind, options in (("JPEG", {}), ("PNG", {"compress_level": 1})):
        data = saved(large, kind, **options)
        opened = open_picture(data)
        assert opened.size == (2500, 2000) and opened.width * opened.height <= MAX_PIXELS
        (note,) = picture_notes(data)
        assert note.text() == "the picture is 5000 x 4000; it is used at 2500 x 2000"
    assert picture_notes(saved(large.resize((40, 30)), "JPEG")) == picture_notes(b"no picture") == []
