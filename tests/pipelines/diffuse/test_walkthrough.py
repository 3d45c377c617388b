"""Watching a candidate being drawn again: it is the same picture, and what is told of it is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.pipeline import Result, Step
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.walkthrough import Explanation, explain, word_map_picture
from pipelines.errors import BadInput
from tests.support.tiny import WithoutAttention, tiny_diffuse, tiny_prior_diffuse


def watched(pipeline: Diffuse, settings: DiffuseSettings, seed: int) -> tuple[list[Step], Explanation]:
    watching, steps = explain(pipeline, settings, seed), list[Step]()
    while True:
        try:
            steps.append(next(watching))
        except StopIteration as end:
            return steps, end.value


def apart(one: Image.Image, other: Image.Image) -> int:
    return int(abs(np.asarray(one).astype(int) - np.asarray(other)).max())


@pytest.mark.parametrize("make", [tiny_prior_diffuse, lambda: tiny_diffuse("1.5")])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source_prompt": "a red heart", "word_weights": "cats=2"},
        {"windows": "always", "width": 96, "height": 64, "guidance_end": 0.6},
    ],
)
def test_it_is_the_candidate_itself(make: Callable[[], Diffuse], changes: dict[str, Any]) -> None:
    pipeline = make()
    settings = DiffuseSettings(prompt="two cats", candidates=3, keep=3, steps=4, guidance=3.0, **changes)
    *_, result = run(pipeline, settings)
    assert isinstance(result, Result)
    picture = result.pictures[1]
    steps, found = watched(pipeline, result.settings, picture.seed)
    assert apart(found.picture, picture.image) <= 1 < apart(found.picture, result.pictures[0].image)
    count = len(found.moments)
    assert [(step.done, step.total) for step in steps] == [(k, 2 * count) for k in range(1, 2 * count + 1)]
    *_, plain = run(pipeline, DiffuseSettings(
        prompt="two cats", candidates=1, seed=picture.seed, steps=4, guidance=1.0, **changes
    ))  # fmt: skip
    assert isinstance(plain, Result) and found.unguided is not None
    assert apart(found.unguided, plain.pictures[0].image) <= 1
    assert [word_map.text for word_map in found.word_maps] == ["two", "cats"]
    if "word_weights" not in changes:
        shares = [word_map.share for word_map in found.word_maps]
        assert all(0 < share < 1 for share in shares) and sum(shares) < 1


@pytest.mark.parametrize("make", [tiny_prior_diffuse, lambda: tiny_diffuse("2.1")])
def test_the_schedule_goes_from_noise_to_the_picture(make: Callable[[], Diffuse]) -> None:
    _, found = watched(make(), DiffuseSettings(prompt="two cats", steps=5, guidance=1.0), 7)
    noise = [moment.noise for moment in found.moments]
    picture = [moment.picture for moment in found.moments]
    assert noise == sorted(noise, reverse=True) and noise[0] > 0.9
    assert picture == sorted(picture) and len(noise) == 5
    assert found.unguided is None and all(moment.unguided is None for moment in found.moments)


def test_the_last_guess_is_nearly_the_picture() -> None:
    _, found = watched(tiny_prior_diffuse(), DiffuseSettings(prompt="two cats", steps=20, guidance=1.0), 7)
    misses = [
        np.abs(np.asarray(moment.guess).astype(int) - np.asarray(found.picture)).mean()
        for moment in found.moments
    ]
    assert misses[-1] < 2 and misses[-1] < misses[0]


def test_a_word_that_occurs_twice_is_one() -> None:
    settings = DiffuseSettings(prompt="a cat, a dog", steps=2, word_weights="a cat=2")
    _, found = watched(tiny_prior_diffuse(), settings, 7)
    assert [word_map.text for word_map in found.word_maps] == ["a", "cat", "dog", "a cat"]


def test_where_a_word_looks_the_picture_is_seen() -> None:
    picture = Image.new("RGB", (64, 32), "#FF0000")
    map = torch.zeros(4, 8)
    map[:, 4:] = 0.2
    seen = word_map_picture(picture, map, 32)
    assert seen.size == (32, 16)
    assert seen.getpixel((30, 8)) == (255, 0, 0)
    dark = seen.getpixel((1, 8))
    assert isinstance(dark, tuple) and max(dark) < 60
    assert word_map_picture(picture, torch.ones(4, 8)).size == (64, 32)  # flat maps divide by nothing


def test_a_model_whose_attention_cannot_be_watched_says_so() -> None:
    pipeline = tiny_prior_diffuse()
    pipeline.diffusion = WithoutAttention(pipeline.diffusion)  # type: ignore[assignment]
    with pytest.raises(BadInput, match="cannot be watched"):
        next(explain(pipeline, DiffuseSettings(), 0))
