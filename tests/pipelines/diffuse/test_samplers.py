"""Samplers: each as diffusers' own pipelines have it, and on a flow's line as its formula says; guidance; the pace."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.core.generators import finished
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri
from pipelines.models.ddim import linear_alphas_cumprod
from pipelines.models.latent_diffusion import Course, Known, walk
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.models.schedulers import SAMPLERS, ddim_times
from tests.support.diffuse import assert_same_walk, half_mask, painting, pictures_of
from tests.support.tiny import SIDE, tiny_diffuse, tiny_prior, tiny_prior_diffuse

SIZE = (32, 32)
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def drawn(
    sampler: str, steps: int, model: PriorDiffusion, known: Known | None = None, **course: Any
) -> Tensor:
    condition = model.condition("two cats", "", *SIZE, 1, True)
    return finished(walk(model, [3], SIZE, condition, steps, 3.0, known, Course(sampler, **course)))


def velocity(model: PriorDiffusion, x: Tensor, time: float, guidance: float = 3.0) -> Tensor:
    t = torch.tensor(1000 * time)
    if guidance == 1:
        return model.predict(x, t, model.condition("two cats", "", *SIZE, 1, False))
    without, given = model.predict(
        torch.cat([x, x]), t, model.condition("two cats", "", *SIZE, 1, True)
    ).chunk(2)
    return without + guidance * (given - without)


def noise() -> Tensor:
    return torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))


@each_sampler
@pytest.mark.parametrize("kind", ["1.5", "2.1"])
def test_from_text_each_sampler_is_diffusers_own(
    kind: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DiffuseSettings(candidates=1, steps=4, sampler=sampler, seed=5)
    assert_same_walk(tiny_diffuse(kind), settings, "Text2Image", monkeypatch, height=SIDE, width=SIDE)


@each_sampler
def test_from_a_picture_each_sampler_is_diffusers_own(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = painting()
    settings = DiffuseSettings(
        candidates=1, steps=5, strength=0.6, image=picture_to_uri(image), sampler=sampler
    )
    assert_same_walk(tiny_diffuse("1.5"), settings, "Image2Image", monkeypatch, image=image, strength=0.6)


@each_sampler
def test_within_a_mask_each_sampler_is_diffusers_own(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = painting(), half_mask()
    settings = DiffuseSettings(
        candidates=1, steps=4, strength=0.8, image=picture_to_uri(image), mask=picture_to_uri(mask), sampler=sampler
    )  # fmt: skip
    given = {"image": image, "mask_image": mask, "strength": 0.8, "height": SIDE, "width": SIDE}
    assert_same_walk(tiny_diffuse("1.5"), settings, "Inpainting", monkeypatch, **given)


@torch.no_grad()
def test_on_a_flow_euler_and_ddim_are_what_their_formulas_say() -> None:
    model = tiny_prior()
    x = noise()
    for time, later in pairwise([1, 0.75, 0.5, 0.25, 0]):
        x = x + (later - time) * velocity(model, x, time)
    assert torch.allclose(drawn("euler", 4, model), x, atol=1e-4)

    alphas = linear_alphas_cumprod()[torch.linspace(999, 0, 6).round().long()]
    times = ddim_times(5)
    x = state = noise()
    for k, time in enumerate(times):
        output = velocity(model, x, time)
        clean, noised = x - time * output, x + (1 - time) * output
        alpha = alphas[k + 1] if k < 4 else torch.tensor(1.0)
        state = (
            alpha.sqrt() * clean + (1 - alpha).sqrt() * noised
        )  # Song et al. 2021, equation 12, without noise
        x = state / (alpha.sqrt() + (1 - alpha).sqrt())
    assert torch.allclose(drawn("ddim", 5, model), x, atol=1e-4)
    assert times[0] == 1 and times == sorted(times, reverse=True)


@cache
def end_of_the_flow() -> Tensor:
    model, x = tiny_prior(), noise()
    for time, later in pairwise(torch.linspace(1, 0, 121).tolist()):
        x = x + (later - time) * velocity(model, x, time)
    return x


@each_sampler
@torch.no_grad()
def test_on_a_flow_every_sampler_comes_to_the_same_picture_in_many_steps(sampler: str) -> None:
    x = end_of_the_flow()
    near, far = ((drawn(sampler, steps, tiny_prior()) - x).abs().mean() / x.std() for steps in (24, 4))
    assert near < 0.1 and near < far / 2


@each_sampler
@torch.no_grad()
def test_a_flow_keeps_what_lies_outside_the_mask_and_begins_from_a_picture(sampler: str) -> None:
    model = tiny_prior()
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = model.encode(picture)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    inside = drawn(sampler, 6, model, Known(latents, 1.0, mask))
    assert torch.equal(inside[..., 2:], latents[..., 2:])
    assert (inside[..., :2] - latents[..., :2]).abs().mean() > 0.1
    near, far = ((drawn(sampler, 10, model, Known(latents, s)) - latents).abs().mean() for s in (0.2, 1.0))
    assert near < far


@torch.no_grad()
def test_a_share_of_the_walk_is_a_strength_of_each_latent() -> None:
    model = tiny_prior()
    latents = model.encode(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    half = drawn("euler", 8, model, Known(latents, 1.0, torch.full((1, 1, 4, 4), 0.5)))
    assert torch.allclose(half, drawn("euler", 8, model, Known(latents, 0.5)), atol=1e-5)
    shares = torch.linspace(0, 1, 4).expand(1, 1, 4, 4)
    apart = (drawn("euler", 8, model, Known(latents, 1.0, shares)) - latents).abs().mean((0, 1, 2))
    assert apart[0] == 0 and apart[1] < apart[3]


@torch.no_grad()
def test_within_a_mask_a_step_is_made_again_from_its_guess_with_new_noise() -> None:
    model = tiny_prior()
    latents = model.encode(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    generator = torch.Generator().manual_seed(3)
    x = fresh = torch.randn(1, 4, 4, 4, generator=generator)
    for k, (time, later) in enumerate(pairwise([1, 0.75, 0.5, 0.25, 0])):
        output = velocity(model, x, time)
        if k in (1, 2):  # not at pure noise, and not in the last steps
            fresh = torch.randn(1, 4, 4, 4, generator=generator)
            x = torch.lerp(mask * (x - time * output) + (1 - mask) * latents, fresh, time)
            output = velocity(model, x, time)
        x = x + (later - time) * output
        x = mask * x + (1 - mask) * torch.lerp(latents, fresh, later)
    again = drawn("euler", 4, model, Known(latents, 1.0, mask), rounds=1)
    assert torch.allclose(again, x, atol=1e-4) and torch.equal(again[..., 2:], latents[..., 2:])
    assert (again - drawn("euler", 4, model, Known(latents, 1.0, mask))).abs().mean() > 1e-3
    assert torch.equal(drawn("euler", 4, model, rounds=1), drawn("euler", 4, model))  # nothing to fit


@torch.no_grad()
def test_with_heun_only_whole_steps_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    predict = PriorDiffusion.predict
    monkeypatch.setattr(
        PriorDiffusion, "predict", lambda model, x, t, *rest: times.append(float(t)) or predict(model, x, t, *rest)
    )  # fmt: skip
    model = tiny_prior()
    latents = model.encode(torch.zeros(1, 3, 32, 32))
    drawn("heun", 4, model, Known(latents, 1.0, torch.ones(1, 1, 4, 4)), rounds=1)
    counts = [times.count(time) for time in dict.fromkeys(times)]
    assert counts == [1, 3, 3, 2]  # the first of a time ends a step, the next begin one


@torch.no_grad()
def test_outside_the_interval_there_is_no_guidance() -> None:
    model = tiny_prior()
    plain = model.condition("two cats", "", *SIZE, 1, False)
    x = noise()
    for k, (time, later) in enumerate(pairwise([1, 0.75, 0.5, 0.25, 0])):
        x = x + (later - time) * velocity(model, x, time, 3.0 if k in (1, 2) else 1.0)
    within = drawn("euler", 4, model, interval=(0.25, 0.75), unguided=plain)
    assert torch.allclose(within, x, atol=1e-4)
    assert (within - drawn("euler", 4, model)).abs().mean() > 1e-3
    # Counted on the whole walk, also where a picture is begun from: the last two of four steps.
    latents = model.encode(torch.zeros(1, 3, 32, 32))
    late = drawn("euler", 4, model, Known(latents, 0.5), interval=(0.0, 0.5), unguided=plain)
    x = torch.lerp(latents, noise(), 0.5)
    for time, later in ((0.5, 0.25), (0.25, 0)):
        x = x + (later - time) * velocity(model, x, time, 1.0)
    assert torch.allclose(late, x, atol=1e-4)


def test_an_interval_and_a_sampler_reach_the_run() -> None:
    settings = {"candidates": 1, "steps": 4, "guidance": 3.0, "width": 64, "height": 64}
    pictures = {
        str(changes): pictures_of(pipeline, DiffuseSettings(**settings, **changes))[0].image.tobytes()
        for pipeline in (tiny_prior_diffuse(), tiny_diffuse("1.5"))
        for changes in ({}, {"guidance_end": 0.5}, {"guidance_start": 0.5}, {"sampler": "heun"})
    }
    assert len(set(pictures.values())) == 4
    with pytest.raises(BadInput, match=r"begins at 0\.6 and ends at 0\.5"):
        DiffuseSettings(guidance_start=0.6, guidance_end=0.5)


@pytest.mark.parametrize(
    ("make", "pace", "sampler", "steps"),
    [
        (tiny_prior_diffuse, "normal", "auto", 20),
        (tiny_prior_diffuse, "fast", "dpm++2m", 10),
        (tiny_prior_diffuse, "careful", "heun", 20),
        (lambda: tiny_diffuse("1.5"), "fast", "dpm++2m", 12),
        (tiny_diffuse, "fast", "auto", 1),  # made for one step
        (tiny_diffuse, "careful", "auto", 4),
    ],
)
def test_the_pace_chooses_sampler_and_steps(make: Any, pace: str, sampler: str, steps: int) -> None:
    pipeline = make()
    settings = pipeline.prepare(DiffuseSettings(pace=pace))
    assert (settings.sampler, settings.steps) == (sampler, steps)
    assert pipeline.prepare(settings) == settings
    asked = pipeline.prepare(DiffuseSettings(pace=pace, sampler="ddim", steps=7))
    assert (asked.sampler, asked.steps) == ("ddim", 7)
