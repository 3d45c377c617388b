"""The latent prior as a Denoiser: the coordinates of its flow, its texts, and the walk up the noise and down again."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pipelines.edit.ddim import NoisePredictor, add_noise, ddim_invert, ddim_sample, time_grid
from pipelines.models.ddim import CLEAN, ddim_walk
from pipelines.models.prior import denoiser as module
from pipelines.models.prior.denoiser import PriorDenoiser
from pipelines.models.prior.network import guided_velocity
from pipelines.models.typed import floats
from tests.support.edit import finish
from tests.support.tiny import tiny_prior, tiny_unet

SHAPE = (1, 4, 4, 4)


@pytest.fixture(scope="module")
def denoiser() -> PriorDenoiser:
    return PriorDenoiser(tiny_prior(), "two cats")


def noise_of(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def line(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The flow's time where alphas_cumprod is alpha, and what its states are divided by."""
    ratio = (1 / alpha - 1).sqrt()
    time = ratio / (1 + ratio)
    return time, ((1 - time).square() + time.square()).sqrt()


@torch.no_grad()
def test_a_flow_that_knows_the_line_tells_the_noise(
    denoiser: PriorDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, steps = noise_of(0), torch.tensor([0, 1, 300, 660, 999])
    x = torch.cat(
        [add_noise(clean, denoiser.alphas_cumprod[k], torch.Generator().manual_seed(1)) for k in steps]
    )
    noise, seen = noise_of(1), []

    def exact(prior: object, x: Tensor, times: Tensor, *_: object) -> Tensor:
        seen.append((x, times[:, None, None, None]))
        return (noise - clean).expand(len(x), -1, -1, -1)

    monkeypatch.setattr(module, "guided_velocity", exact)
    assert torch.allclose(denoiser(x, steps), noise.expand_as(x), atol=1e-4)
    states, times = seen[0]
    assert torch.allclose(states, torch.lerp(clean, noise, times), atol=1e-5)
    assert torch.allclose(times.flatten(), line(denoiser.alphas_cumprod[steps])[0], atol=1e-5)
    assert 0.85 < times[3] < 0.92 and times[4] > 0.99 > 0.02 > times[0]


def test_its_steps_have_the_noise_of_a_pixel_models() -> None:
    assert torch.equal(PriorDenoiser(tiny_prior()).alphas_cumprod, tiny_unet().alphas_cumprod)


@torch.no_grad()
def test_many_ddim_steps_end_where_many_euler_steps_of_the_flow_end(denoiser: PriorDenoiser) -> None:
    x, last = noise_of(2), 800
    time, scale = line(denoiser.alphas_cumprod[last])
    ends = []
    for count in (10, 80, 400):
        on_line = x * scale
        for t, later in pairwise(floats(torch.linspace(float(time), 0, count + 1))):
            velocity = guided_velocity(
                denoiser.prior, on_line, torch.tensor([t]), denoiser.text_context, denoiser.empty_context, 1.0
            )
            on_line = on_line + (later - t) * velocity
        ends.append((ddim_walk(denoiser, x, last, CLEAN, count), on_line))
    apart = [(down - on_line).abs().max().item() for down, on_line in ends]
    assert apart[2] < 0.01 * ends[2][0].std() and apart[2] < apart[1] < apart[0]


@torch.no_grad()
def test_the_round_trip_gives_latents_back(denoiser: PriorDenoiser) -> None:
    x = denoiser.encode(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1)
    missed = []
    for refine in (0, 1, 3):
        grid = time_grid(600, 10)
        inversion = finish(ddim_invert(noise_at(denoiser), denoiser.alphas_cumprod, x, grid, refine))
        missed.append((finish(ddim_sample(noise_at(denoiser), inversion, add_back=False)) - x).abs().max())
        assert torch.allclose(finish(ddim_sample(noise_at(denoiser), inversion)), x, atol=1e-5)
    assert missed[2] < missed[1] < missed[0] and missed[2] < 0.02


def noise_at(denoiser: PriorDenoiser) -> NoisePredictor:
    return lambda x, step: denoiser(x, torch.full((len(x),), step))


@torch.no_grad()
def test_a_text_changes_what_it_says_and_guidance_moves_away_from_no_text(denoiser: PriorDenoiser) -> None:
    x, steps = torch.cat([noise_of(4), noise_of(5)]), torch.tensor([200, 700])
    without, text = denoiser.under("")(x, steps), denoiser(x, steps)
    other = denoiser.under("a red heart")
    assert torch.equal(other.under("two cats")(x, steps), text)
    assert min((text - without).abs().max(), (text - other(x, steps)).abs().max()) > 1e-3
    guided = denoiser.under("two cats", 3.0)(x, steps)
    assert torch.allclose(guided, without + 3 * (text - without), atol=1e-4)
    assert torch.allclose(denoiser.under("", 3.0)(x, steps), without, atol=1e-5)


@torch.no_grad()
def test_pictures_become_latents_and_pictures_again(denoiser: PriorDenoiser) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(6)) * 2 - 1
    x = denoiser.encode(images)
    assert x.shape == (2, 4, 4, 4) and denoiser.config.image_size == 32
    plain = denoiser.codec.decode(denoiser.codec.encode(images))
    assert torch.allclose(denoiser.decode(x), plain, atol=1e-5)
