"""How well pictures are enlarged and traced, on icons whose larger drawing, or own look, is known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.export.enlarge import enlarged
from pipelines.export.svg import svg_of
from pipelines.io.images import on_white, ssim, to_tensor
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.larger import SIDES, read_larger

EVERY = 8  # of the validation pictures
ALIKE = 0.9  # SSIM of an SVG that is drawn again
LARGER = {"twice": 2, "four times": 4}  # as exports to 256 and 512 pixels are


def exporting(emoji: Dataset, larger: Path) -> dict[str, float]:
    """Of every EVERYth validation picture, means: SSIM on white of what is enlarged to its size, from a half and a
    quarter of it, and by bicubic interpolation; SSIM of its SVG drawn again, and how many bytes that has.

    And of the icons in the file `larger`, where it is there: SSIM of what is enlarged to their larger drawings.
    """
    likeness: dict[str, list[float]] = {}
    traced, sizes = list[float](), list[int]()
    for row in emoji.validation[::EVERY]:
        picture = Image.fromarray(emoji.rgba[row])
        for times, factor in LARGER.items():
            small = picture.convert("RGBa").reduce(factor).convert("RGBA")
            _enlarge(small, picture, f"{times} as large", likeness)
        data = svg_of(picture)
        sizes.append(len(data))
        traced.append(_alike(picture, _drawn(data, picture.width)))
    for drawn in read_larger(larger) if larger.exists() else ():
        for side in SIDES[1:]:
            _enlarge(drawn[SIDES[0]], drawn[side], f"{SIDES[0]} to {side} pixels", likeness)
    return {
        **{name: float(np.mean(values)) for name, values in likeness.items()},
        "SVG drawn again, SSIM": float(np.mean(traced)),
        f"SVG drawn again, share with SSIM of at least {ALIKE}": float(np.mean(np.array(traced) >= ALIKE)),
        "SVG, kB": float(np.mean(sizes)) / 1000,
        "SVG, kB, the largest": max(sizes) / 1000,
    }


def _enlarge(small: Image.Image, large: Image.Image, name: str, likeness: dict[str, list[float]]) -> None:
    """Adds how much like the large drawing the small one is when it is enlarged, and by bicubic interpolation."""
    bicubic = small.convert("RGBa").resize(large.size, Image.Resampling.BICUBIC).convert("RGBA")
    likeness.setdefault(f"{name}, SSIM", []).append(_alike(large, enlarged(small, large.size)))
    likeness.setdefault(f"{name}, SSIM by bicubic interpolation", []).append(_alike(large, bicubic))


def _alike(a: Image.Image, b: Image.Image) -> float:
    first, second = ((to_tensor([on_white(one)]) + 1) / 2 for one in (a, b))
    return ssim(first, second).item()


def _drawn(svg: bytes, side: int) -> Image.Image:
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg.decode(), width=side, height=side))
    return Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGBA")
