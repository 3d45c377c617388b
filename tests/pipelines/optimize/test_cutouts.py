"""The views that CLIP gets."""

from __future__ import annotations

import pytest
import torch

from pipelines.clip.cutouts import (
    POOLED,
    WIDE,
    close_views,
    colour_jitter,
    cutouts,
    homographies,
    sample_views,
    whole_view,
)


@pytest.mark.parametrize("scheme", ["mixed", "pooled", "original"])
def test_cutouts_come_from_the_generator_alone(scheme: str) -> None:
    canvas = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first = cutouts(canvas, 9, 16, torch.Generator().manual_seed(7), scheme)
    torch.rand(3)
    again = cutouts(canvas, 9, 16, torch.Generator().manual_seed(7), scheme)
    other = cutouts(canvas, 9, 16, torch.Generator().manual_seed(8), scheme)
    assert first.shape == (9, 3, 16, 16) and torch.equal(first, again) and not torch.equal(first, other)
    first.square().sum().backward()
    assert canvas.grad is not None and canvas.grad.abs().sum() > 0


def test_the_identity_view_is_the_canvas() -> None:
    canvas = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sample_views(canvas, torch.eye(3)[None], 16, "border")[0], canvas[0], atol=1e-5)


def test_close_views_lie_inside_and_wide_ones_see_all() -> None:
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)])
    centre = torch.tensor([[0.0, 0.0, 1.0]])
    generator = torch.Generator().manual_seed(0)
    plain = close_views(0.5)
    still = type(plain)(plain.sides, plain.of, plain.stray)
    seen = corners @ homographies(still, 200, 40, 80, generator).transpose(1, 2)
    assert seen[..., :2].abs().max() <= 1 + 1e-5
    wide = type(WIDE)(WIDE.sides, WIDE.of, WIDE.stray)
    seen = corners @ homographies(wide, 200, 40, 80, generator).transpose(1, 2)
    assert seen[..., 0].abs().min() >= 0.9 and seen[..., 1].abs().min() >= 1.9
    turned = homographies(POOLED, 200, 16, 16, generator)
    assert (centre @ turned.transpose(1, 2))[..., :2].abs().max() <= 0.11


def test_colour_jitter_keeps_grey_grey() -> None:
    matrix, bias = colour_jitter(50, 0.2, torch.Generator().manual_seed(0))
    grey = torch.einsum("nij,j->ni", matrix, torch.tensor([0.3, 0.3, 0.3])) + bias
    assert torch.allclose(grey, grey[:, :1].expand(-1, 3), atol=1e-5)


def test_the_whole_view_squashes_nothing() -> None:
    canvas = torch.zeros(1, 3, 16, 32)
    canvas[..., 8:24] = 1  # a square in the middle
    view = whole_view(canvas, 16)
    assert view.shape == (1, 3, 16, 16)
    assert view[0, 0, 8].sum().item() == pytest.approx(8, abs=0.1)  # half as wide as the view
    assert view[0, 0, :, 8].sum().item() == pytest.approx(16, abs=0.1)  # its edges fill the rest
