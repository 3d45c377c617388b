"""Pictures without EXIF and texts of other programs: the same pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines.errors import BadInput
from pipelines.io.images import open_picture
from pipelines.io.metadata import without_metadata

SECRET = "52.5200 N 13.4050 E"


def file_of(kind: str, orientation: int, mode: str = "RGB") -> bytes:
    """A picture that names a place and a maker in all the ways that its format has."""
    levels = np.random.default_rng(0).integers(0, 256, (24, 40, len(mode)), np.uint8)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = SECRET, orientation
    more: dict[str, object] = {"exif": exif, "xmp": SECRET.encode()}
    if kind == "PNG":
        texts = PngInfo()
        texts.add_text("parameters", SECRET)
        texts.add_itxt("XML:com.adobe.xmp", SECRET)
        texts.add_text("atelier", "ours")
        more = {"pnginfo": texts, "exif": exif}
    elif kind == "JPEG":
        more |= {"comment": SECRET.encode(), "progressive": True}
    buffer = io.BytesIO()
    Image.fromarray(levels, mode).save(buffer, kind, **more)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("WEBP", "RGBA")]
)
def test_pixels_stay_and_all_else_goes(kind: str, mode: str, orientation: int) -> None:
    data = file_of(kind, orientation, mode)
    assert SECRET.encode() in data
    bare = without_metadata(data)
    assert SECRET.encode() not in bare and b"Exif\0\0" not in bare and b"eXIf" not in bare
    before, after = open_picture(data), open_picture(bare)
    assert (after.mode, after.size, after.tobytes()) == (before.mode, before.size, before.tobytes())
    if orientation == 1:
        assert bare[:4] == data[:4]  # the same format
    assert (b"tEXtatelier\0ours" in bare) == (kind == "PNG" and orientation == 1)
    assert open_picture(without_metadata(bare)).tobytes() == before.tobytes()


@pytest.mark.parametrize("data", [b"", b"nothing", b"\xff\xd8\xff\xe1\0\x02", file_of("JPEG", 1)[:200]])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        without_metadata(data)
