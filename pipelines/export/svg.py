"""Pictures as vector graphics: areas of one colour traced by vtracer, as an SVG file that a browser opens."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pipelines.errors import BadInput
from pipelines.export.enlarge import enlarged
from pipelines.export.presets import SVG_BYTES

SIDE = 128  # pixels of the longer side that a trace is made for


@dataclass(frozen=True)
class Trace:
    """How finely a picture is traced."""

    scale: int  # times SIDE, at which it is traced
    colours: int = 0  # at most; 0 for all
    difference: int = 12  # levels between two areas that are kept apart
    speckle: int = 2  # areas smaller than its square, in pixels, are left out


TRACES = (  # fine first
    Trace(3, 32, 8, 3),
    Trace(2),
    Trace(2, 32, 16),
    Trace(2, 16, 24),
    Trace(1, 16, 24),
    Trace(1, 8, 48, 4),
    Trace(1, 6, 64, 8),
)


def svg_of(picture: Image.Image, title: str = "") -> bytes:
    """An RGBA picture as SVG of at most SVG_BYTES, as fine as that allows.

    Clear places stay clear; what is less than half opaque counts as clear. The file's size in pixels is the picture's.
    BadInput when even the coarsest trace is too heavy.
    """
    text = ""
    for text in _traced(picture):
        data = _framed(text, picture.size, title).encode()
        if len(data) <= SVG_BYTES:
            return data
    raise BadInput("export.too_heavy", kilobytes=len(text) / 1000, most=SVG_BYTES / 1000)


def _traced(picture: Image.Image) -> Iterator[str]:
    """SVG texts, the finest first."""
    import vtracer

    for trace in TRACES:
        share = SIDE * trace.scale / max(picture.size)
        size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
        large = enlarged(picture, size)
        inside = np.asarray(large.getchannel("A")) >= 128
        colours = large.convert("RGB")
        if trace.colours:
            few = colours.quantize(trace.colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            colours = few.convert("RGB")
        levels = np.dstack([np.asarray(colours), np.where(inside, 255, 0)]).astype(np.uint8)
        levels[~inside] = 0
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, "PNG")
        yield vtracer.convert_raw_image_to_svg(
            buffer.getvalue(),
            img_format="png",
            colormode="color",
            hierarchical="stacked",
            mode="spline",
            filter_speckle=trace.speckle,
            color_precision=7,
            layer_difference=trace.difference,
            corner_threshold=60,
            length_threshold=4.0,
            max_iterations=10,
            splice_threshold=45,
            path_precision=1,
        )


def _framed(text: str, size: tuple[int, int], title: str) -> str:
    """The paths of an SVG in a frame of this size, with a view box, so that it grows with its place, and a title."""
    found = re.search(r'<svg[^>]*\bwidth="(\d+)"[^>]*\bheight="(\d+)"[^>]*>(.*)</svg>', text, re.DOTALL)
    if found is None:
        raise BadInput("export.reads_otherwise", fact="svg", found=text[:40], wanted="<svg>")
    width, height, paths = found.groups()
    named = f"<title>{escape(title[:200])}</title>" if title else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {width} {height}">{named}{paths.strip()}</svg>\n'
    )


def size_of_svg(data: bytes) -> tuple[int, int]:
    """Width and height of an SVG of ours in pixels. BadInput when it is no whole SVG."""
    try:
        root = ElementTree.fromstring(data)
        size = (int(root.attrib["width"]), int(root.attrib["height"]))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise BadInput("export.reads_otherwise", fact="svg", found=str(error)[:40], wanted="<svg>") from None
    return size
