"""The losses and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipelines.clip.losses import great_circle
from pipelines.optimize.canvas import clamp_with_gradient, straight_through
from pipelines.optimize.regularizers import colourfulness
from tests.support.tiny import tiny_optimize


def test_great_circle_is_half_the_squared_angle_with_a_finite_slope() -> None:
    vectors = F.normalize(
        torch.randn(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1
    )
    a, b = vectors.chunk(2)
    assert torch.allclose(great_circle(a, b), torch.arccos((a * b).sum(1)) ** 2 / 2, atol=1e-6)
    one = torch.eye(4, dtype=torch.float64)
    assert great_circle(one[0], one[1]).item() == pytest.approx(math.pi**2 / 8)
    for other in (one[0], -one[0]):
        x = one[0].clone().requires_grad_()
        great_circle(x, other).backward()
        assert x.grad is not None and torch.isfinite(x.grad).all()
    x = a[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: great_circle(x, b[:1]), (x,), atol=1e-5)


def test_the_clamp_lets_gradients_lead_back_only() -> None:
    x = torch.tensor([-2.0, -2.0, 0.5, 0.5, 2.0, 2.0], requires_grad=True)
    y = clamp_with_gradient(x, -1.0, 1.0)
    assert y.tolist() == [-1, -1, 0.5, 0.5, 1, 1]
    y.backward(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))  # descent moves against the gradient
    assert x.grad is not None and x.grad.tolist() == [0, -1, 1, -1, 1, 0]


def test_straight_through_gives_codes_and_the_gradient_as_it_came() -> None:
    vqgan = tiny_optimize().vqgan
    z = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    codes = straight_through(z, vqgan)
    flat = z.detach().permute(0, 2, 3, 1).reshape(-1, 4)
    nearest = torch.cdist(flat, vqgan.codes).argmin(1)
    assert torch.equal(vqgan.quantize(z.detach()).flatten(), nearest)
    assert torch.allclose(codes, vqgan.embed(nearest.view(1, 3, 5)), atol=1e-6)
    upstream = torch.randn_like(codes)
    codes.backward(upstream)
    assert z.grad is not None and torch.equal(z.grad, upstream)


def test_colourfulness_knows_grey() -> None:
    grey = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(1, 3, 8, 8)
    colours = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert colourfulness(grey).item() < 1e-3 < 0.1 < colourfulness(colours).item()
