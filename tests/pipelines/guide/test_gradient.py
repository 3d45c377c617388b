"""The gradient of guidance, against a plain reference."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.clip.ranking import text_vector
from pipelines.core.candidates import generator_at
from pipelines.guide.cutouts import guide_cutouts
from pipelines.guide.gradient import clamped
from pipelines.guide.pipeline import Guide
from pipelines.guide.run import GuideRun
from pipelines.guide.settings import GuideSettings
from pipelines.io.images import picture_to_uri
from pipelines.models.ddim import stochastic_ddim_step
from tests.support.optimize import speckled
from tests.support.tiny import tiny_guide, tiny_pixel_guide

PROMPT = "a red heart | green apple:0.5 | two cats:-0.3"
WEIGHTS = {"a red heart": 1.0, "green apple": 0.5, "two cats": -0.3}
SETTINGS = GuideSettings(
    prompt=PROMPT, steps=8, guidance=3.0, clip_guidance_scale="700", cut_overview="2", cut_innercut="3",
    cut_icgray_p="0.4", cutn_batches=2, tv_scale=20, range_scale=60, sat_scale=30, init_scale=90,
    image=picture_to_uri(speckled((32, 32))), skip_steps=2,
)  # fmt: skip


def loss_of(pipeline: Guide, picture: Tensor, cuts: list[Tensor], start: Tensor) -> Tensor:
    """Disco's loss as its notebook writes it, cut by cut and target by target; LPIPS is replaced as documented."""
    loss = torch.zeros(())
    for batch in cuts:
        for text, weight in WEIGHTS.items():
            target = text_vector(pipeline.clip, text)
            for cut in batch:
                vector = F.normalize(pipeline.clip.encode_image(cut[None])[0], dim=0)
                angle = 2 * torch.arcsin((vector - target).norm() / 2)
                loss = loss + 700 / 2 * weight / 1.8 * angle**2 / 2 / len(batch)
    right = torch.cat([picture[..., 1:], picture[..., -1:]], -1) - picture
    below = torch.cat([picture[..., 1:, :], picture[..., -1:, :]], -2) - picture
    loss = loss + 20 * (right**2 + below**2).mean()
    beyond = (picture - 1).relu() + (-1 - picture).relu()
    loss = loss + 60 * (beyond**2).mean() + 30 * beyond.mean()
    sizes = [F.avg_pool2d(picture - start, side) for side in (1, 2, 4)]
    return loss + 90 * sum((apart**2).mean() for apart in sizes) / 3


def reference(pipeline: Guide, run: GuideRun, x: Tensor, *, whole: bool) -> tuple[Tensor, Tensor]:
    """The noise that is predicted at x before the third step, and the gradient of the loss at x."""
    step = run.grid[2]
    alpha = float(pipeline.unet.alphas_cumprod[step])
    x = x.clone().requires_grad_()
    noise = torch.zeros_like(x)
    if pipeline.unet.reads_text:
        for text, share in (("a red heart", 1 / 1.5), ("green apple", 0.5 / 1.5)):
            without, under = (pipeline.unet.under(words)(x, torch.tensor([step])) for words in ("", text))
            noise = noise + share * (without + 3 * (under - without))
    else:
        noise = pipeline.unet(x, torch.tensor([step]))
    noise = noise if whole else noise.detach()
    picture = pipeline.unet.decode((x - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha))
    generator = generator_at(0, 0, "cuts")
    cuts = [guide_cutouts(picture, 2, 3, 12, generator, 1.0, 0.4) for _ in range(2)]
    assert run.state.base is not None
    (gradient,) = torch.autograd.grad(loss_of(pipeline, picture, cuts, run.state.base), x)
    return noise.detach(), gradient


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("make", [tiny_guide, tiny_pixel_guide])
def test_the_gradient_is_that_of_a_plain_reference(make: Any, whole: bool) -> None:
    pipeline: Guide = make()
    side = pipeline.unet.config.image_size
    settings = replace(
        SETTINGS, whole_gradient=whole, size=f"{side}x{side}", clamp_max=0.02, eta=0, guidance=3.0
    )
    settings = pipeline.prepare(settings)
    with torch.no_grad():
        run = pipeline._run(settings)
        run.begin()
        x = run.state.x
    noise, gradient = reference(pipeline, run, x, whole=whole)
    seen = run._look(settings, x, 2, 0, run.state.base, generator_at(0, 0, "cuts"))
    assert torch.allclose(seen.noise, noise, atol=1e-5)
    scale = gradient.abs().max()
    assert scale > 0 and torch.allclose(seen.gradient / scale, gradient / scale, atol=2e-4)
    alpha, following = (float(pipeline.unet.alphas_cumprod[step]) for step in run.grid[2:4])
    size = gradient.square().mean().sqrt()
    noise = noise + math.sqrt(1 - alpha) * gradient * (min(0.02, size) / size)
    clean = (x - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
    with torch.no_grad():
        run.step()
    assert torch.allclose(
        run.state.x, math.sqrt(following) * clean + math.sqrt(1 - following) * noise, atol=1e-4
    )


def test_the_clamp_shortens_and_keeps_the_direction() -> None:
    gradient = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    short = clamped(gradient, 0.05)
    assert short.square().mean().sqrt().item() == pytest.approx(0.05)
    assert F.cosine_similarity(short.flatten(), gradient.flatten(), dim=0).item() == pytest.approx(1)
    assert torch.equal(clamped(gradient, 0), gradient) and torch.allclose(clamped(gradient, 10), gradient)
    assert torch.equal(clamped(torch.zeros(3), 0.05), torch.zeros(3))


def test_eta_1_has_the_variance_of_ancestral_sampling() -> None:
    x, noise = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    alpha, following = 0.3, 0.5
    steps = [
        stochastic_ddim_step(x, noise, alpha, following, 1.0, torch.Generator().manual_seed(k))
        for k in (1, 2)
    ]
    variance = (1 - following) / (1 - alpha) * (1 - alpha / following)
    assert (steps[0] - steps[1]).var().item() / 2 == pytest.approx(variance, rel=0.1)
    still = stochastic_ddim_step(x, noise, alpha, following, 0.0, torch.Generator())
    assert torch.allclose(still, 0.5**0.5 * (x - 0.7**0.5 * noise) / 0.3**0.5 + 0.5**0.5 * noise, atol=1e-6)


def test_cuts_come_from_the_generator_alone_and_some_are_grey() -> None:
    picture = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cuts = guide_cutouts(picture, 3, 4, 12, torch.Generator().manual_seed(1), 2.0, 0.5)
    torch.rand(3)
    assert torch.equal(cuts, guide_cutouts(picture, 3, 4, 12, torch.Generator().manual_seed(1), 2.0, 0.5))
    assert cuts.shape == (7, 3, 12, 12)
    spread = cuts.std(1).mean((1, 2))  # noise alone where there is no colour
    assert [bool(one < 0.03) for one in spread] == [False, True, False, True, True, False, False]
    cuts.square().sum().backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0


def test_cut_power_makes_inner_cuts_small() -> None:
    ramp = torch.linspace(-1, 1, 256).expand(1, 3, 256, 256)

    def width(power: float) -> float:
        cuts = guide_cutouts(ramp, 0, 64, 16, torch.Generator().manual_seed(0), power)
        return (cuts.amax((1, 2, 3)) - cuts.amin((1, 2, 3))).mean().item()

    assert width(8.0) < 0.6 * width(1.0)
