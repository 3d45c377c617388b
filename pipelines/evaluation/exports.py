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
# as exports to 256 and 512 pixels are; the data have no larger drawings
LARGER = {"twice": 2, "four times": 4}


def exporting(emoji: Dataset) -> dict[str, float]:
    """Of every EVERYth validation picture, means: SSIM on white of what is enlarged to its size, from a half and a
    quarter of it, and by bicubic interpolation; SSIM of its SVG drawn again, and how many bytes that has.
    """
    likeness: dict[str, list[float]] = {}
    traced, sizes = list[float](), list[int]()
    for row in emoji.validation[::EVERY]:
        picture = Image.fromarray(emoji.rgba[row])
        for times, factor in LARGER.items():
            small = picture.convert("RGBa").reduce(factor)
            bicubic = small.resize(picture.size, Image.Resampling.BICUBIC).convert("RGBA")
            crisp = enlarged(small.convert("RGBA"), picture.size)
            likeness.setdefault(f"{times} as large, SSIM", []).append(_alike(picture, crisp))
            name = f"{times} as large, SSIM by bicubic interpolation"
            likeness.setdefault(name, []).append(_alike(picture, bicubic))
        data = svg_of(picture)
        sizes.append(len(data))
        traced.append(_alike(picture, _drawn(data, picture.width)))
    return {
        **{name: float(np.mean(values)) for name, values in likeness.items()},
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
