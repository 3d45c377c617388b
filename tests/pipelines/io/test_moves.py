"""Moves of a canvas."""

from __future__ import annotations

import torch

from pipelines.io.moves import move_matrix, moved


def test_moves_go_where_they_say() -> None:
    x = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    still = moved(x, move_matrix((12, 12), 1, 0, 0, 0))
    assert torch.allclose(still, x, atol=1e-5)
    right = moved(x, move_matrix((12, 12), 1, 4, 0, 0))
    assert torch.allclose(right[..., 4:], x[..., :-4], atol=1e-5)
    down = moved(x, move_matrix((12, 12), 1, 0, 3, 0))
    assert torch.allclose(down[..., 3:, :], x[..., :-3, :], atol=1e-5)
    turned = moved(x, move_matrix((12, 12), 1, 0, 0, 90))
    assert torch.allclose(turned, torch.rot90(x, 1, (2, 3)), atol=1e-5)  # counter-clockwise
    ramp = torch.linspace(-1, 1, 24).expand(1, 1, 12, 24)
    larger = moved(ramp, move_matrix((12, 24), 2, 0, 0, 0))
    assert (larger.amax() - larger.amin()).item() < 1.05 < (ramp.amax() - ramp.amin()).item()
