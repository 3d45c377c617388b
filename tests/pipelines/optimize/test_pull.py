"""The pull of a diffusion model in Optimize."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Step
from pipelines.errors import BadInput
from pipelines.models.latent_diffusion import clean_guess, under_terms
from pipelines.models.sampling import generator_of
from pipelines.optimize.pipeline import Optimize
from pipelines.optimize.pull import Pull, apart
from pipelines.optimize.settings import OptimizeSettings
from tests.support.optimize import finished, last
from tests.support.tiny import tiny_clip, tiny_optimize, tiny_prior


def pulled() -> Optimize:
    clip = tiny_clip()
    return replace(tiny_optimize(), clip=clip, diffusion=tiny_prior(clip))


@torch.no_grad()
def test_a_guess_is_the_clean_end_of_a_noised_picture() -> None:
    model, picture = tiny_prior(), torch.rand(1, 3, 32, 32, generator=generator_of(0)) * 2 - 1
    under = under_terms(model, [("two cats", 1.0)], (32, 32), 1)
    found = clean_guess(model, picture, under, 3.0, 0.6, generator_of(5))
    noise = torch.randn(1, 4, 4, 4, generator=generator_of(5))
    times = model.scheduler(model.proposed_steps).timesteps
    t = times[round(0.4 * len(times))]
    noised = (1 - t / 1000) * model.encode(picture) + t / 1000 * noise
    plain, told = model.predict(torch.cat([noised] * 2), t, under[0]).chunk(2)
    expected = model.decode(noised - t / 1000 * (plain + 3.0 * (told - plain)))
    assert torch.allclose(found, expected, atol=2e-3)  # times are rounded to thousandths


@torch.no_grad()
def test_guesses_follow_the_prompt_and_the_shape_of_the_canvas() -> None:
    pull, wide = Pull(tiny_prior(), OptimizeSettings()), torch.zeros(1, 3, 48, 96)

    def guess(prompt: str, step: int = 0, steps: int = 100, picture: torch.Tensor = wide) -> torch.Tensor:
        return pull.guess(picture, OptimizeSettings(prompt=prompt, steps=steps), step)

    cats = guess("two cats")
    assert cats.shape == (1, 3, 32, 64) and cats.abs().max() <= 1
    assert torch.equal(cats, guess("two cats")) and not torch.equal(cats, guess("a red heart"))
    assert not torch.equal(cats, guess("two cats | a red heart:-0.5"))
    assert not torch.equal(cats, guess("two cats", 10))  # other noise
    scenes = "two cats ^ a red heart @50"
    assert torch.equal(guess(scenes), cats) and torch.equal(guess(scenes, 60), guess("a red heart", 60))
    assert guess("two cats", picture=torch.zeros(1, 3, 16, 16)).shape == (1, 3, 32, 32)


def test_pictures_are_compared_in_the_smaller_size() -> None:
    fine = torch.ones(1, 3, 8, 8)
    fine[..., ::2] = -1  # grey from afar
    assert apart(fine, torch.zeros(1, 3, 4, 4)) == 0 and apart(torch.zeros(1, 3, 4, 4), fine) == 0
    assert apart(fine, torch.zeros(1, 3, 8, 8)) == 1


@torch.no_grad()
def test_a_strong_pull_leads_to_the_guess() -> None:
    pipeline = pulled()

    def distance(weight: float) -> float:
        settings = pipeline.prepare(
            OptimizeSettings(prompt="two cats", steps=10, cutouts=2, coarse=0, diffusion_weight=weight)
        )
        optimize_run = pipeline._run(settings)
        optimize_run.begin()
        picture = optimize_run._picture(optimize_run.state.z)
        assert optimize_run.pull is not None
        aim = optimize_run.pull.guess(picture, settings, 0)
        for _ in range(10):
            optimize_run.step()
        return apart(optimize_run._picture(optimize_run.state.z), aim).item()

    assert distance(50.0) < 0.8 * distance(0.0)


def test_the_weight_is_the_models_own_unless_it_is_given() -> None:
    pipeline, asked = pulled(), OptimizeSettings(steps=2)
    assert pipeline.prepare(asked).diffusion_weight == tiny_prior().proposed_pull > 0
    assert tiny_optimize().prepare(asked).diffusion_weight == 0
    assert pipeline.prepare(replace(asked, diffusion_weight=2.0)).diffusion_weight == 2
    later = json.dumps({"1": {"diffusion_weight": 2.0}})
    for fields in ({"diffusion_weight": 2.0}, {"changes": later}):
        with pytest.raises(BadInput, match="no diffusion model that could pull"):
            tiny_optimize().prepare(replace(asked, **fields))
    old = OptimizeSettings.from_dict(OptimizeSettings.recorded({"prompt": "two cats"}, {}))
    assert old.diffusion_weight == 0  # made before there was one
    free = finished(pipeline, replace(asked, steps=12, diffusion_weight=0.0))
    assert last(free).tobytes() == last(finished(tiny_optimize(), replace(asked, steps=12))).tobytes()
    assert last(free).tobytes() != last(finished(pipeline, replace(asked, steps=12))).tobytes()


@pytest.mark.parametrize("fields", [{}, {"coarse": 1}, {"animate": 7}], ids=["plain", "coarse", "moving"])
def test_a_killed_run_resumes_to_the_same_bits(fields: dict[str, Any], tmp_path: Path) -> None:
    settings = OptimizeSettings(**{"steps": 30, "cutouts": 4, "coarse": 0, **fields})
    whole = finished(pulled(), settings)
    events = run(pulled(), settings, Journal(tmp_path / "run"))
    for event in events:
        if isinstance(event, Step) and event.done == 24:
            break
    events.close()
    resumed = finished(pulled(), settings, Journal(tmp_path / "run"))
    assert [one.image.tobytes() for one in resumed.pictures] == [
        one.image.tobytes() for one in whole.pictures
    ]
