"""SVG: small, of the picture's size, and drawn again it looks as the picture."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pipelines.errors import BadInput
from pipelines.export.presets import SVG_BYTES
from pipelines.export.svg import size_of_svg, svg_of
from pipelines.io.images import on_white, ssim, to_tensor
from tests.support.pictures import noise


def face(side: int = 128) -> Image.Image:
    large = Image.new("RGBA", (4 * side, 4 * side))
    pen, part = ImageDraw.Draw(large), side // 4
    pen.ellipse((2 * part, 2 * part, 14 * part, 14 * part), fill="#fcc21b")
    for left in (5, 9):
        pen.ellipse((left * part, 6 * part, (left + 2) * part, 8 * part), fill="#403020")
    pen.arc((5 * part, 7 * part, 11 * part, 12 * part), 20, 160, fill="#403020", width=part // 2)
    return large.resize((side, side), Image.Resampling.BOX)


def drawn_again(data: bytes, side: int) -> Image.Image:
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=data.decode(), width=side, height=side)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def test_drawn_again_it_is_alike_and_clear_places_are_clear() -> None:
    picture = face()
    data = svg_of(picture, 'a <b>"face"</b> & more')
    again = drawn_again(data, 128)
    pair = [(to_tensor([on_white(one)]) + 1) / 2 for one in (picture, again)]
    assert ssim(*pair).item() > 0.95 and len(data) < 30_000
    alpha = [np.asarray(one.getchannel("A")) >= 128 for one in (picture, again)]
    assert (alpha[0] & alpha[1]).sum() / (alpha[0] | alpha[1]).sum() > 0.98
    root = ElementTree.fromstring(data)
    assert root[0].tag.endswith("title") and root[0].text == 'a <b>"face"</b> & more'
    assert size_of_svg(data) == (128, 128)


def test_it_is_crisp_when_it_is_drawn_large() -> None:
    """At twice the size it is nearer to the thing than a bicubic enlargement."""
    data, large = svg_of(face(128)), on_white(face(256))
    truth = (to_tensor([large]) + 1) / 2
    found = [drawn_again(data, 256), face(128).resize((256, 256), Image.Resampling.BICUBIC)]
    near = [ssim(truth, (to_tensor([on_white(one)]) + 1) / 2).item() for one in found]
    assert near[0] > 0.93 and near[0] > near[1] - 0.02


def test_a_busy_picture_is_traced_more_coarsely_until_it_fits() -> None:
    torch.manual_seed(0)
    soft = noise(24).resize((128, 96), Image.Resampling.BICUBIC).convert("RGBA")
    data = svg_of(soft)
    assert 5_000 < len(data) <= SVG_BYTES and size_of_svg(data) == (128, 96)


@pytest.mark.parametrize("data", [b"", b"<svg width='1'/>", b"<svg width='a' height='2'/>", b"<svg"])
def test_what_is_no_svg_is_found_out(data: bytes) -> None:
    with pytest.raises(BadInput):
        size_of_svg(data)
