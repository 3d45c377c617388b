"""The walk up the noise and down again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.edit.ddim import add_noise, ddim_invert, ddim_sample, time_grid
from pipelines.edit.directions import AdaptedUnet
from pipelines.edit.pipeline import Edit
from pipelines.io.images import to_pil, to_tensor
from pipelines.models.ddim import CLEAN
from tests.support.edit import (
    finish,
    random_direction,
    speckled,
)
from tests.support.tiny import tiny_unet


@pytest.mark.parametrize(
    ("return_step", "count"), [(500, 40), (500, 39), (301, 6), (999, 200), (7, 40), (1, 2)]
)
def test_a_grid_grows_from_the_clean_picture_to_the_return_step(return_step: int, count: int) -> None:
    grid = time_grid(return_step, count)
    assert grid[0] == CLEAN and grid[-1] == return_step - 1
    assert all(one < following for one, following in itertools.pairwise(grid))
    assert len(grid) == min(count, return_step) + 1
    jumps = np.diff(grid)
    assert jumps.max() - jumps.min() <= 1  # about evenly


class Gaussian:
    """For pictures from N(0, s^2), what the best noise guess is and where x arrives on the exact flow."""

    def __init__(self, s: float = 0.5):
        self.s, self.alphas = s, tiny_unet().alphas_cumprod.double()

    def noise_of(self, x: Tensor, step: int) -> Tensor:
        alpha = self.alphas[step]
        return (1 - alpha).sqrt() * x / (alpha * self.s**2 + 1 - alpha)

    def exact(self, x: Tensor, step: int) -> Tensor:
        alpha = self.alphas[step]
        return x * ((alpha * self.s**2 + 1 - alpha) / self.s**2).sqrt()


def test_each_refinement_brings_the_round_trip_nearer() -> None:
    model, x = Gaussian(), torch.full((1, 3, 2, 2), 0.7, dtype=torch.float64)
    grid = time_grid(500, 40)
    missed, kept = [], []
    for refine in range(4):
        inversion = finish(ddim_invert(model.noise_of, model.alphas, x, grid, refine))
        back = finish(ddim_sample(model.noise_of, inversion, add_back=False))
        missed.append((back / x - 1).abs().max().item())
        kept.append(max(error.abs().max().item() for error in inversion.errors))
    assert 0.03 < missed[0] < 0.12
    for few, more in itertools.pairwise(missed):
        assert more < few / 10
    for few, more in itertools.pairwise(kept):
        assert more < few / 5


def test_more_steps_bring_the_walk_nearer_to_the_exact_flow() -> None:
    model, x = Gaussian(), torch.full((1, 3, 2, 2), 0.7, dtype=torch.float64)
    far = {}
    for refine in (0, 3):
        for count in (40, 400):
            inversion = finish(ddim_invert(model.noise_of, model.alphas, x, time_grid(500, count), refine))
            far[refine, count] = (inversion.states[-1] / model.exact(x, 499) - 1).abs().max().item()
        assert far[refine, 40] < 0.06 and far[refine, 400] < far[refine, 40] / 7  # first order


@pytest.mark.parametrize("noise", [0.0, 0.37])
@pytest.mark.parametrize("grid", [[CLEAN, 3, 5, 250, 251, 600], [CLEAN, 999], time_grid(400, 13)])
def test_constant_noise_is_walked_exactly_on_any_grid(noise: float, grid: list[int]) -> None:
    alphas = tiny_unet().alphas_cumprod.double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inversion = finish(ddim_invert(lambda x, _: torch.full_like(x, noise), alphas, x, grid, 0))
    top = alphas[grid[-1]]
    assert torch.allclose(inversion.states[-1], top.sqrt() * x + (1 - top).sqrt() * noise, atol=1e-12)
    assert torch.allclose(
        finish(ddim_sample(lambda x, _: torch.full_like(x, noise), inversion, add_back=False)), x, atol=1e-9
    )


@pytest.mark.parametrize("refine", [0, 1, 2, 5])
@pytest.mark.parametrize("return_step", [150, 500, 900])
@torch.no_grad()
def test_the_way_back_ends_where_the_way_up_began(edit: Edit, refine: int, return_step: int) -> None:
    pictures = [speckled((16, 16), seed) for seed in range(2)]
    x, grid = to_tensor(pictures), time_grid(return_step, 7)
    inversion = finish(ddim_invert(edit._noise_of, edit.unet.alphas_cumprod, x, grid, refine))
    back = finish(ddim_sample(edit._noise_of, inversion, copies=3))
    assert back.shape == (6, 3, 16, 16)
    expected = [picture.tobytes() for picture in pictures for _ in range(3)]
    assert [one.tobytes() for one in to_pil(back)] == expected
    if refine == 0:
        plain = finish(ddim_sample(edit._noise_of, inversion, add_back=False))
        assert [one.tobytes() for one in to_pil(plain)] != [picture.tobytes() for picture in pictures]


@torch.no_grad()
def test_outside_a_mask_the_walk_down_follows_the_walk_up(edit: Edit) -> None:
    x = to_tensor([speckled((16, 16))])
    inversion = finish(ddim_invert(edit._noise_of, edit.unet.alphas_cumprod, x, time_grid(500, 5), 1))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    adapted_unet = AdaptedUnet(edit.unet)
    adapted_unet.load_adapter(random_direction(edit.unet))
    adapted_unet.set_strengths([torch.ones(1)])
    back = finish(ddim_sample(adapted_unet.noise_of, inversion, mask=mask))
    assert torch.equal(back[..., 8:], x[..., 8:]) and (back[..., :8] - x[..., :8]).abs().mean() > 0.01


def test_fresh_noise_has_its_share_of_the_variance() -> None:
    x = torch.full((1, 3, 64, 64), 0.5)
    one = add_noise(x, 0.36, torch.Generator().manual_seed(0))
    assert one.mean().item() == pytest.approx(0.3, abs=0.03) and one.std().item() == pytest.approx(
        0.8, abs=0.03
    )
    assert torch.equal(one, add_noise(x, 0.36, torch.Generator().manual_seed(0)))
