"""Larger pictures: crisper than bicubic, no halo, nothing hidden comes out, and any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pipelines.export.enlarge import doubled, enlarged
from pipelines.io.images import on_white, ssim, to_tensor


def drawn(side: int) -> Image.Image:
    """A ring, a bar and a slope, as they are drawn at this size."""
    large = Image.new("RGBA", (4 * side, 4 * side), (0, 255, 0, 0))
    pen, part = ImageDraw.Draw(large), side // 8
    pen.ellipse((4 * part, 4 * part, 26 * part, 26 * part), fill="#d04030", outline="#301010", width=part)
    pen.line((2 * part, 28 * part, 29 * part, 20 * part), fill="#2050c0", width=2 * part)
    return large.convert("RGBa").resize((side, side), Image.Resampling.BOX).convert("RGBA")


@pytest.mark.parametrize("factor", [2, 4])
def test_it_is_nearer_to_the_large_drawing_than_bicubic_is(factor: int) -> None:
    truth = (to_tensor([on_white(drawn(64 * factor))]) + 1) / 2
    size = (64 * factor, 64 * factor)
    plain = drawn(64).convert("RGBa").resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    ours, bicubic = (
        ssim(truth, (to_tensor([on_white(one)]) + 1) / 2).item() for one in (enlarged(drawn(64), size), plain)
    )
    assert 1 - ours < 0.75 * (1 - bicubic)


def test_no_value_is_beyond_those_around_it_and_the_small_picture_comes_back() -> None:
    x = torch.rand(1, 4, 12, 9, generator=torch.Generator().manual_seed(0))
    y = doubled(x)
    assert y.shape == (1, 4, 24, 18) and y.min() >= x.min() and y.max() <= x.max()
    flat = torch.full((1, 4, 8, 8), 0.25)
    assert torch.allclose(doubled(flat), torch.full((1, 4, 16, 16), 0.25), atol=1e-6)
    again = torch.nn.functional.avg_pool2d(y, 2)
    rough = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False)
    lost = torch.nn.functional.avg_pool2d(rough, 2)
    assert (again - x).abs().mean() < 0.5 * (lost - x).abs().mean()


@pytest.mark.parametrize("size", [(64, 64), (100, 40), (30, 200), (9, 9)])
def test_any_size_and_no_hidden_colour(size: tuple[int, int]) -> None:
    """Clear places are green, which must not be seen at any edge."""
    large = np.asarray(enlarged(drawn(32), size)).astype(int)
    assert large.shape == (size[1], size[0], 4)
    seen = large[large[..., 3] > 32]
    assert (seen[:, 1] <= np.maximum(seen[:, 0], seen[:, 2]) + 40).all()
