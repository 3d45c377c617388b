"""How well pictures are enlarged and traced, on icons whose larger drawing, or own look, is known."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pipelines.export.enlarge import enlarged
from pipelines.export.svg import svg_of
from pipelines.io.images import on_white, ssim, to_tensor
from pipelines.training.data.dataset import Dataset

EVERY = 8  # of the validation pictures
ALIKE = 0.9  # SSIM of an SVG that is drawn again


def exporting(emoji: Dataset) -> dict[str, float]:
    """Of every EVERYth validation picture, means: SSIM on white of what is enlarged to twice the size, from half of its
    own, and by bicubic interpolation; SSIM of its SVG drawn again, and how many bytes that has.
    """
    likeness, plain, traced, sizes = list[float](), list[float](), list[float](), list[int]()
    for row in emoji.validation[::EVERY]:
        picture = Image.fromarray(emoji.rgba[row])
        half = picture.convert("RGBa").reduce(2).convert("RGBA")
        bicubic = half.convert("RGBa").resize(picture.size, Image.Resampling.BICUBIC).convert("RGBA")
        likeness.append(_alike(picture, enlarged(half, picture.size)))
        plain.append(_alike(picture, bicubic))
        data = svg_of(picture)
        sizes.append(len(data))
        traced.append(_alike(picture, _drawn(data, picture.width)))
    return {
        "twice as large, SSIM": float(np.mean(likeness)),
        "twice as large, SSIM by bicubic interpolation": float(np.mean(plain)),
        "SVG drawn again, SSIM": float(np.mean(traced)),
        f"SVG drawn again, share with SSIM of at least {ALIKE}": float(np.mean(np.array(traced) >= ALIKE)),
        "SVG, kB": float(np.mean(sizes)) / 1000,
        "SVG, kB, the largest": max(sizes) / 1000,
    }


def _alike(a: Image.Image, b: Image.Image) -> float:
    first, second = ((to_tensor([on_white(one)]) + 1) / 2 for one in (a, b))
    return ssim(first, second).item()


def _drawn(svg: bytes, side: int) -> Image.Image:
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg.decode(), width=side, height=side))
    return Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGBA")
