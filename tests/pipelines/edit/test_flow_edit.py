"""FlowEdit: its steps against the paper's, where strengths begin, and edits in the latents of a prior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.clip.ranking import text_vector
from pipelines.core.execute import run
from pipelines.core.pipeline import Step
from pipelines.edit.ddim import alphas_at
from pipelines.edit.flow_edit import (
    NOISES,
    STEPS,
    edits_by_text,
    flow_edit,
    flow_grid,
    focused,
    size_of,
)
from pipelines.edit.inputs import read_inputs
from pipelines.edit.instant import FOCUSES
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.io.images import to_tensor
from pipelines.models.ddim import CLEAN
from pipelines.models.prior.denoiser import PriorDenoiser
from pipelines.models.prior.network import guided_velocity
from tests.support.edit import finish, finished, first, half, pixels, speckled, uri
from tests.support.tiny import tiny_edit, tiny_prior_edit

TEXTS: dict[str, Any] = {"source": "two cats", "prompt": "a red heart"}
INSTANT: dict[str, Any] = {"mode": "instant", "strip": 1, "steps": 4, **TEXTS}


@pytest.fixture(scope="module")
def edit() -> Edit:
    return tiny_prior_edit()


def predictor(denoiser: Any) -> Any:
    return lambda x, step: denoiser(x, torch.full((len(x),), step))


@torch.no_grad()
def test_its_steps_are_the_papers_on_the_flows_line(edit: Edit) -> None:
    """Velocities and times instead of clean pictures and levels of a diffusion."""
    unet = edit.unet
    assert isinstance(unet, PriorDenoiser)
    source, target = unet.under("two cats", 1.5), unet.under("a red heart", 5.5)
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    grid, begins = flow_grid(660, 6, [1.0])
    edited = finish(flow_edit(predictor(source), predictor(target), unet.alphas_cumprod, x, grid, begins, 3))

    def velocity(model: PriorDenoiser, z: Tensor, t: float) -> Tensor:
        text, empty = (
            (tokens.expand(NOISES, -1, -1), real.expand(NOISES, -1))
            for tokens, real in (model.text_context, model.empty_context)
        )
        return guided_velocity(model.prior, z, torch.full((NOISES,), t), text, empty, model.guidance)

    ratios = [(1 / alpha - 1) ** 0.5 for alpha in alphas_at(unet.alphas_cumprod, grid)]
    times = [ratio / (1 + ratio) for ratio in ratios]
    z = x
    for k in reversed(range(1, len(grid))):
        generator = torch.Generator().manual_seed((3 << 20) + k)
        noise = torch.randn(NOISES, 4, 4, 4, generator=generator)
        t = times[k]
        z_source = (1 - t) * x + t * noise
        z_target = z + z_source - x
        difference = velocity(target, z_target, t) - velocity(source, z_source, t)
        z = z + (times[k - 1] - t) * difference.mean(0, keepdim=True)
    assert torch.allclose(edited, z, atol=1e-3, rtol=1e-3) and (z - x).abs().mean() > 0.1


@torch.no_grad()
def test_equal_predictions_give_the_picture_back_bit_for_bit(edit: Edit) -> None:
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    grid, begins = flow_grid(660, 5, [0.5, 1.0])

    def noise_of(z: Tensor, step: int) -> Tensor:
        return torch.cat([edit.unet(one, torch.tensor([step])) for one in z.split(1)])

    edited = finish(flow_edit(noise_of, noise_of, edit.unet.alphas_cumprod, x, grid, begins, 0))
    assert torch.equal(edited, x.expand(2, -1, -1, -1))


@pytest.mark.parametrize(("return_step", "count"), [(660, STEPS), (900, 10), (7, 28), (999, 5)])
def test_a_strength_begins_at_its_share_of_the_return_step(return_step: int, count: int) -> None:
    strengths = [0.0, 0.01, 0.5, 1.0, 1.5]
    grid, begins = flow_grid(return_step, count, strengths)
    assert grid[0] == CLEAN and grid == sorted(set(grid)) and grid[-1] <= 999
    assert begins == sorted(begins) and begins[0] == 0
    assert grid[begins[3]] == return_step - 1 and begins[4] == len(grid) - 1
    assert grid[begins[4]] == min(round(1.5 * return_step), 1000) - 1 or return_step / count < 1
    assert abs(grid[begins[2]] + 1 - return_step / 2) <= max(return_step / count, 1)
    for strength, begin in zip(strengths, begins, strict=True):
        alone, places = flow_grid(return_step, count, [-strength])
        assert alone == grid[: begin + 1] and places == [begin]


def test_strengths_of_a_strip_are_those_of_single_runs_and_0_is_the_picture(edit: Edit) -> None:
    picture = speckled((41, 35), low=60, high=190)
    fields: dict[str, Any] = {**INSTANT, "image": uri(picture), "crop": "3,5,17x21"}
    result = finished(edit, EditSettings(**{**fields, "strip": 5}))
    strengths = {one.facts["strength"]: one.image for one in result.pictures}
    assert sorted(strengths) == [0, 0.375, 0.75, 1, 1.5]
    assert strengths[0].tobytes() == picture.tobytes()
    assert len({image.tobytes() for image in strengths.values()}) == 5
    for strength in (0.0, 0.375, 1.5):
        alone = first(finished(edit, EditSettings(**fields, strength=strength)))
        apart = np.abs(np.asarray(alone, np.int16) - np.asarray(strengths[strength], np.int16))
        assert apart.max() <= 1  # rounding of batches
    opposite = first(finished(edit, EditSettings(**fields, strength=-1.0)))
    swapped = {"source": TEXTS["prompt"], "prompt": TEXTS["source"]}
    assert opposite.tobytes() == first(finished(edit, EditSettings(**{**fields, **swapped}))).tobytes()
    assert opposite.tobytes() != strengths[1].tobytes()


def test_it_is_deterministic_and_differs_by_seed_texts_and_guidance(edit: Edit) -> None:
    fields: dict[str, Any] = {**INSTANT, "image": uri(speckled((32, 32)))}
    one = pixels(finished(edit, EditSettings(**fields)))
    torch.rand(3)
    assert one == pixels(finished(edit, EditSettings(**fields)))
    others = ({"seed": 1}, {"prompt": "green apple"}, {"source": "a 3d dog face"}, {"guidance": 0.5})
    drawn = [pixels(finished(edit, EditSettings(**{**fields, **other})))[0] for other in others]
    assert len({*drawn, *one}) == 5


def test_outside_the_mask_nothing_changes_not_even_in_latents(edit: Edit) -> None:
    picture, mask = speckled((32, 32)), half((32, 32))
    settings = edit.prepare(EditSettings(**{**INSTANT, "image": uri(picture), "mask": uri(mask)}))
    new, old = np.asarray(first(finished(edit, settings))), np.asarray(picture)
    inside = np.asarray(mask)[..., 0] > 0
    assert (new[~inside] == old[~inside]).all() and (new[inside] != old[inside]).mean() > 0.3
    inputs = read_inputs(edit, settings)
    assert inputs.small_mask is not None and inputs.small_mask.shape == (1, 1, 4, 4)
    *_, drawn = (
        step.preview
        for step in run(edit, settings)
        if isinstance(step, Step) and step.stage in ("choose", "draw")
    )
    assert drawn() and inputs.x.shape == (1, 4, 4, 4)
    with torch.no_grad():
        source, target = (predictor(edit.unet.under(text)) for text in ("two cats", "a red heart"))
        walk = flow_edit(source, target, edit.unet.alphas_cumprod, inputs.x, *flow_grid(660, 4, [1.0]), 0,
                         inputs.small_mask)  # fmt: skip
        edited = finish(walk)
    assert torch.equal(edited[..., 2:], inputs.x[..., 2:]) and not torch.equal(edited, inputs.x)


def test_a_mask_reaches_every_latent_that_it_touches(edit: Edit) -> None:
    mask = half((32, 32))
    mask.paste((255, 255, 255), (31, 31, 32, 32))
    settings = EditSettings(**{**INSTANT, "image": uri(speckled((32, 32))), "mask": uri(mask)})
    small = read_inputs(edit, settings).small_mask
    assert small is not None and small[0, 0, 3].tolist() == [1, 1, 0, 1] and small.sum() == 9


def test_who_reads_no_text_or_is_shown_pictures_follows_clips_gradient(edit: Edit) -> None:
    settings = EditSettings(**{**INSTANT, "image": uri(speckled((32, 32)))})
    assert edits_by_text(edit.unet, settings) and not edits_by_text(tiny_edit().unet, settings)
    assert edit.prepare(EditSettings(mode="instant")).steps == STEPS
    shown = EditSettings(**{**INSTANT, "image": settings.image, "target_images": uri(speckled((32, 32), 5))})
    assert not edits_by_text(edit.unet, shown)
    stages = [step.stage for step in run(edit, shown) if isinstance(step, Step)]
    assert "invert" in stages
    assert {step.stage for step in run(edit, settings) if isinstance(step, Step)} == {"choose"}
    moved = to_tensor([first(finished(edit, shown))]) - to_tensor([speckled((32, 32))])
    assert moved.abs().mean() > 0.002


def test_focus_keeps_to_where_the_texts_differ_most() -> None:
    difference = torch.full((2, 3, 8, 8), 0.1)
    difference[0, :, 2:5, 2:5] = 1.0
    sizes = size_of(difference)
    assert torch.allclose(sizes[0, 0, 3, 3], torch.tensor(1.0)) and sizes[0, 0, 7, 7] < 0.11
    half_way = torch.full((2, 1, 1, 1), 0.5)
    weighed = focused(difference, sizes, half_way)
    assert weighed[0, :, 3, 3].eq(1).all(), "whole where it is large"
    assert torch.allclose(weighed[0, :, 7, 7], torch.tensor(0.1 * 0.1 / 0.5)), "in proportion where it is not"
    assert torch.allclose(weighed[1], difference[1]), "a picture that differs alike everywhere is not weighed"
    assert focused(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4), half_way[:1]).eq(0).all()


def test_focus_is_of_each_strength_by_itself(edit: Edit) -> None:
    settings = EditSettings(image=uri(speckled((32, 32))), **INSTANT)
    drawn = [first(finished(edit, replace(settings, focus=focus))).tobytes() for focus in (0.0, 0.6, 1.0)]
    assert len(set(drawn)) == 3
    strip, alone = finished(edit, replace(settings, strip=3)), finished(edit, settings)
    assert first(strip).tobytes() == first(alone).tobytes()


@pytest.mark.parametrize(
    ("certain", "place"), [((0.99, 1.0, 1.0), 0), ((0.9, 0.975, 0.1), 1), ((0.1, 0.2, 0.3), 2)]
)
def test_the_largest_focus_is_chosen_under_which_clip_is_sure(
    edit: Edit, monkeypatch: pytest.MonkeyPatch, certain: tuple[float, ...], place: int
) -> None:
    """CLIP's vectors are put in the place of what it would see: along the texts' difference, as far as each is certain."""
    settings = edit.prepare(EditSettings(image=uri(speckled((32, 32))), **INSTANT))
    towards = text_vector(edit.clip, settings.target) - text_vector(edit.clip, settings.source)
    wanted = torch.tensor(certain).clamp(max=0.9999).logit() / edit.clip.logit_scale
    seen = wanted[:, None] * towards / towards.square().sum()
    real = edit.clip.encode_image
    monkeypatch.setattr(edit.clip, "encode_image", lambda images: seen if len(images) == 3 else real(images))
    result = finished(edit, settings)
    monkeypatch.undo()
    assert result.pictures[0].facts["focus"] == FOCUSES[place]
    given = first(finished(edit, replace(settings, focus=FOCUSES[place])))
    assert (to_tensor([first(result)]) - to_tensor([given])).abs().max() <= 2 / 255 + 1e-6


def test_a_record_without_a_choice_of_focus_lets_clip_choose_again(edit: Edit) -> None:
    settings = EditSettings(image=uri(speckled((32, 32))), **INSTANT)
    assert settings.focus is None
    assert EditSettings.recorded(settings.to_dict(), {})["focus"] is None
    strip, alone = finished(edit, replace(settings, strip=3)), finished(edit, settings)
    assert first(strip).tobytes() == first(alone).tobytes()


def test_records_without_focus_were_made_without() -> None:
    assert EditSettings.recorded({"mode": "instant"}, {})["focus"] == 0
    assert EditSettings.recorded({"prompt": "a cat", "focus": 0.3}, {})["focus"] == 0.3
