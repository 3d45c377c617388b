"""Looks in Generate, Diffuse, Optimize, Guide and Edit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Result
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.edit.settings import EditSettings
from pipelines.generate.settings import GenerateSettings
from tests.support.diffuse import pictures_of
from tests.support.tiny import (
    tiny_diffuse,
    tiny_prior,
    tiny_prior_diffuse,
    tiny_prior_edit,
    tiny_refining_generate,
)

PLAIN: dict[str, Any] = {"prompt": "two cats", "steps": 2, "windows": "never"}


def made(pipeline: Any, settings: Any) -> list[Picture]:
    *_, result = run(pipeline, settings)
    assert isinstance(result, Result)
    return result.pictures


@torch.no_grad()
def test_only_rows_under_the_prompt_are_in_a_style() -> None:
    model = tiny_prior()
    plain, mask = model.condition("two cats", "", 32, 32, 4, True)
    styled, same = model.in_styles(["round", "flat"]).condition("two cats", "", 32, 32, 4, True)
    assert (
        (mask == same).all() and (styled[:4] == plain[:4]).all() and (styled[4:, 1:] == plain[4:, 1:]).all()
    )
    rows = model.prior.style(torch.tensor([2, 1, 2, 1]))
    assert (styled[4:, 0] == rows).all()


def test_candidates_of_diffuse_take_turns_and_redraw_alone() -> None:
    pipeline = tiny_prior_diffuse()
    asked = DiffuseSettings(**PLAIN, style="flat, 3d", candidates=5, keep=5)
    kept = pictures_of(pipeline, asked)
    assert sorted(picture.facts["style"] for picture in kept) == ["3d", "3d", "flat", "flat", "flat"]
    for picture in kept[:3]:
        alone = replace(asked, style=picture.facts["style"], seed=picture.seed, candidates=1)
        assert pictures_of(pipeline, alone)[0].image.tobytes() == picture.image.tobytes()


def test_candidates_of_generate_take_turns_and_redraw_alone() -> None:
    pipeline = tiny_refining_generate()
    asked = GenerateSettings(prompt="two cats", style="flat, retro", candidates=4, keep=4)
    kept = made(pipeline, asked)
    assert sorted(picture.facts["style"] for picture in kept) == ["flat", "flat", "retro", "retro"]
    for picture in kept[:2]:
        alone = replace(asked, style=picture.facts["style"], seed=picture.seed, candidates=1)
        assert made(pipeline, alone)[0].image.tobytes() == picture.image.tobytes()


def test_a_style_changes_the_picture_and_none_changes_nothing() -> None:
    pipeline = tiny_prior_diffuse()
    any_, flat = (
        pictures_of(pipeline, DiffuseSettings(**PLAIN, style=style, candidates=1))[0]
        for style in ("", "flat")
    )
    assert any_.image.tobytes() != flat.image.tobytes()
    assert "style" not in any_.facts


def test_models_without_slots_read_words() -> None:
    pipeline = tiny_diffuse("1.5")
    styled = pictures_of(pipeline, DiffuseSettings(prompt="two cats", style="flat", steps=2, candidates=1))
    worded = pictures_of(pipeline, DiffuseSettings(prompt="flat two cats", steps=2, candidates=1))
    assert styled[0].image.tobytes() == worded[0].image.tobytes()


def test_edit_goes_to_a_look_of_the_same_words() -> None:
    asked = EditSettings(
        source="a red heart", prompt="a red heart", style="flat", mode="instant", strip=1, steps=4
    )
    assert made(tiny_prior_edit(), asked)
    assert asked.target == "a flat red heart"
