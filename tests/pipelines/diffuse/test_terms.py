"""Prompts of several weighted parts in Generate and Diffuse: a sum of guidance terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.core.candidates import candidate_seeds
from pipelines.core.execute import run
from pipelines.core.generators import finished
from pipelines.core.pipeline import Result
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.walkthrough import explain
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.models.latent_diffusion import walk
from tests.support.diffuse import pictures_of
from tests.support.tiny import (
    tiny_diffuse,
    tiny_generate,
    tiny_prior,
    tiny_prior_diffuse,
    tiny_refining_generate,
)


def drawn(prompt: str, refine: bool = False, **settings: Any) -> dict[int, Any]:
    """Seed -> picture of Generate."""
    asked = GenerateSettings(prompt=prompt, candidates=3, keep=3, **settings)
    *_, result = run(tiny_refining_generate() if refine else tiny_generate(), asked)
    assert isinstance(result, Result)
    return {picture.seed: picture for picture in result.pictures}


def test_the_dalle_draws_under_all_parts() -> None:
    alone, halves = drawn("two cats"), drawn("two cats | two cats")
    assert {seed: one.facts["tokens"] for seed, one in alone.items()} == {
        seed: one.facts["tokens"] for seed, one in halves.items()
    }
    away = drawn("two cats | a red heart:-0.9", guidance=6.0)
    towards = drawn("two cats | a red heart:0.9", guidance=6.0)
    assert any(away[seed].facts["tokens"] != towards[seed].facts["tokens"] for seed in away)
    assert next(iter(away.values())).facts["read"] == [["two cats", 1.0], ["a red heart", -0.9]]


def test_a_refinement_is_under_all_parts() -> None:
    one, other = (drawn(f"two cats | a red heart:{weight}", refine=True) for weight in (0.9, -0.9))
    seed = next(iter(one))
    assert one[seed].image.tobytes() != other[seed].image.tobytes()


@torch.no_grad()
def test_diffuse_walks_by_the_sum_of_shares() -> None:
    model = tiny_prior()
    settings = DiffuseSettings(
        prompt="two cats | a red heart:-0.4", candidates=1, steps=4, guidance=3.0, windows="never"
    )
    pipeline = tiny_prior_diffuse()
    (picture,) = pictures_of(pipeline, settings)
    parts = [(1.0, model.condition("two cats", "", 64, 64, 4, False))]
    parts.append((-0.4, model.condition("a red heart", "", 64, 64, 4, False)))
    empty = model.condition("", "", 64, 64, 4, False)

    class Summed:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def predict(self, x: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
            base = model.predict(x, t, empty)
            return base + 3 * sum(share * (model.predict(x, t, under) - base) for share, under in parts)

    seeds = candidate_seeds(0, 1) * 4
    ticks = walk(Summed(), seeds, (64, 64), empty, 4, 1.0)  # type: ignore[arg-type]
    expected = model.decode(finished(ticks))[0].permute(1, 2, 0).add(1).mul(127.5).clamp(0, 255).numpy()
    assert np.abs(np.asarray(picture.image, float) - expected).max() <= 1


def test_one_part_with_any_weight_is_the_prompt_alone() -> None:
    def picture(prompt: str) -> bytes:
        settings = DiffuseSettings(prompt=prompt, candidates=1, steps=2)
        return pictures_of(tiny_prior_diffuse(), settings)[0].image.tobytes()

    assert (
        picture("two cats") == picture("two cats:0.5") == picture('"two cats"') != picture("two cats | fruit")
    )


def test_every_model_and_windows_take_parts() -> None:
    settings: dict[str, Any] = {"prompt": "two cats | fruit:0.5", "candidates": 1, "steps": 2}
    xl = DiffuseSettings(**settings, negative_prompt="a red heart", guidance=3.0, guidance_end=0.6)
    assert pictures_of(tiny_diffuse("xl"), xl)
    wide = DiffuseSettings(**settings, width=64, height=64, windows="always")
    (picture,) = pictures_of(tiny_prior_diffuse(), wide)
    assert picture.image.size == (64, 64)


def test_what_needs_one_text_says_so() -> None:
    pipeline, prompt = tiny_prior_diffuse(), "two cats | fruit"
    for more in ({"source_prompt": "a cat"}, {"word_weights": "cats=2"}):
        with pytest.raises(BadInput, match="prompt of one part"):
            pipeline.prepare(DiffuseSettings(prompt=prompt, **more))
    with pytest.raises(BadInput, match="several parts"):
        next(explain(pipeline, DiffuseSettings(prompt=prompt), 0))


def test_prompts_of_old_records_are_words() -> None:
    for kind in (GenerateSettings, DiffuseSettings):
        old = kind.recorded({"prompt": "a castle | fog:0.5"}, {})
        assert kind.from_dict(old).terms() == [("a castle | fog:0.5", 1.0)]
        new = kind.recorded({"prompt": "a castle | fog"}, {"read": []})
        assert [text for text, _ in kind.from_dict(new).terms()] == ["a castle", "fog"]
        assert kind.recorded({"prompt": "a red heart"}, {})["prompt"] == "a red heart"


def test_reading_tells_of_all_parts() -> None:
    read = tiny_prior_diffuse().read_prompt("two cats | a zebra:0.5 | 🐱:0.2")
    assert read.unknown == ["zebra", "🐱"]
