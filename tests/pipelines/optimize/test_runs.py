"""Whole runs: starts, pulls, sizes, moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.errors import BadInput
from pipelines.io.images import open_picture, picture_to_uri
from pipelines.optimize.pipeline import Optimize
from pipelines.optimize.run import OptimizeRun
from pipelines.optimize.settings import OptimizeSettings
from tests.support.optimize import finished, in_both, last, speckled
from tests.support.tiny import tiny_clip, tiny_optimize, tiny_prior


def begun(pipeline: Optimize, **fields: Any) -> OptimizeRun:
    optimize_run = OptimizeRun(pipeline.vqgan, pipeline.clip, pipeline.critic, OptimizeSettings(**fields))
    with torch.no_grad():
        optimize_run.begin()
    return optimize_run


@in_both
def test_the_loss_falls_and_z_stays_in_the_codebook() -> None:
    pipeline = tiny_optimize()
    optimize_run = begun(
        pipeline, steps=60, cutouts=32, min_crop=0.9, anchor_weight=0.0
    )  # views alike: little chance in the loss
    losses = []
    with torch.no_grad():
        for _ in range(60):
            assert optimize_run.step() is None
            losses.append(optimize_run.loss)
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.04
    z = optimize_run.state.z
    assert (z >= optimize_run.canvas.low).all() and (z <= optimize_run.canvas.high).all()


@in_both
def test_weights_stops_and_signs_reach_the_gradient() -> None:
    pipeline = tiny_optimize()

    def gradient(**fields: Any) -> torch.Tensor:
        optimize_run = begun(pipeline, **{"cutouts": 6, "start": "white", "anchor_weight": 0.0, **fields})
        generator = torch.Generator().manual_seed(0)
        return optimize_run._gradient(optimize_run.current, generator)[1]

    red, far = gradient(prompt="a red heart"), gradient(prompt="green apple")
    mixed = gradient(prompt="a red heart:1 | green apple:-0.5")
    expected = (red - 0.5 * far) / 1.5  # but for what the one-sided clamps let through
    assert F.cosine_similarity(mixed.flatten(), expected.flatten(), dim=0) > 0.98
    assert mixed.norm().item() == pytest.approx(expected.norm().item(), rel=0.05)
    assert torch.allclose(gradient(prompt="a red heart | green apple:0"), red)
    assert gradient(prompt="a red heart:1:5").abs().max() == 0  # already nearer than 5
    assert torch.allclose(gradient(prompt="a red heart:1:0.0"), red)


def test_a_region_moves_only_its_part() -> None:
    pipeline = tiny_optimize()
    optimize_run = begun(pipeline, regions="green apple @ left", size="64x32")
    picture = torch.rand(1, 3, 32, 64, requires_grad=True)
    from pipelines.optimize.canvas import crop_to_region, named_region

    part = crop_to_region(picture, named_region("left", (32, 64)))
    assert part.shape == (1, 3, 32, 32)
    part.square().sum().backward()
    assert picture.grad is not None
    assert picture.grad[..., :32].abs().min() > 0 and picture.grad[..., 32:].abs().max() == 0
    with torch.no_grad():
        assert optimize_run.step() is None


def test_each_of_several_regions_is_pulled_by_its_own_text() -> None:
    pipeline = tiny_optimize()
    both = "green apple @ left | red heart @ right"
    gradients = []
    for regions in ("green apple @ left", both, "green apple @ left | green apple @ right"):
        optimize_run = begun(pipeline, regions=regions, size="64x32", cutouts=4)
        gradients.append(optimize_run._gradient(optimize_run.current, torch.Generator().manual_seed(0))[1])
    one, two, other = gradients
    assert not torch.allclose(one, two) and not torch.allclose(two, other)


@in_both
def test_every_option_runs() -> None:
    pipeline = tiny_optimize()
    picture = picture_to_uri(speckled((32, 32)))
    for fields in (
        {"start": "noise"},
        {"start": "gradient"},
        {"image": picture, "anchor_weight": 0.5, "ema_decay": 0.8},
        {"image_prompts": f"{picture}:0.5", "noise_prompts": "7:0.3"},
        {"optimizer": "adamw", "cutout_scheme": "pooled", "cutouts": 2, "cutouts_end": 5},
        {"optimizer": "radam", "cutout_scheme": "original"},
        {"optimizer": "adagrad", "smooth": 1.0, "colour": 1.0, "palette": "#ff0000 #00ff00", "symmetry": 1.0},
        {"tile": True},
        {"coarse": 2, "size": "48x80", "steps": 9},
        {"animate": 2, "zoom": 1.1, "pan_x": 3, "rotate": 5, "steps": 7},
        {"prompt": "a red heart ^ green apple:1 | two cats:0.2 @3"},
    ):
        result = finished(pipeline, OptimizeSettings(**{"steps": 5, "cutouts": 4, **fields}))
        assert result.pictures[0].facts["steps"] == fields.get("steps", 5), fields


@in_both
def test_the_pull_keeps_the_start_picture() -> None:
    pipeline = tiny_optimize()
    tokens = " ".join(str(7 * k % 32) for k in range(16))

    def distance(pull: float) -> float:
        optimize_run = begun(pipeline, tokens=tokens, steps=30, step_size=0.3, anchor_weight=pull)
        with torch.no_grad():
            for _ in range(30):
                optimize_run.step()
        assert optimize_run.anchor is not None
        return (optimize_run.draw() - optimize_run.anchor).square().mean().item()

    assert distance(10.0) < 0.5 * distance(0.0)


def test_where_a_run_begins_and_what_pulls(precision: str) -> None:
    pipeline = tiny_optimize()
    sheet = torch.ones(1, 3, 32, 32)
    white, splash = begun(pipeline, start="white", coarse=0), begun(pipeline, coarse=0)
    assert torch.equal(white.state.z, pipeline.vqgan.encode(sheet))
    same = (splash.state.z == white.state.z).all(1)[0]
    assert same.sum() == 12 and not same[1:3, 1:3].any()  # random codes in the middle only
    for one in (white, splash):
        assert one.anchor is not None and torch.equal(one.anchor, sheet)
    tokens = torch.full((1, 4, 4), 7)
    draft = begun(pipeline, tokens=" ".join(["7"] * 16))
    assert draft.anchor is not None and torch.equal(draft.anchor, draft.render(tokens))
    exact = pipeline.vqgan.decode_tokens(tokens).clamp(-1, 1)
    assert torch.allclose(draft.anchor, exact, atol=1e-5 if precision == "float32" else 0.03)
    for start in ("codes", "noise", "gradient"):
        assert begun(pipeline, start=start).anchor is None
    masked = begun(pipeline, mask=picture_to_uri(Image.new("L", (32, 32), 255)))
    assert masked.state.base is not None and torch.equal(masked.state.base, sheet)


def test_a_crisp_codec_begins_small_where_nothing_is_given() -> None:
    pipeline = tiny_optimize()  # factor 8
    settings = OptimizeSettings(steps=4)
    assert pipeline.prepare(settings).coarse == 1
    assert begun(pipeline, steps=4).state.z.shape[-2:] == (2, 2)
    tokens = " ".join(["7"] * 16)
    picture = picture_to_uri(Image.new("RGB", (32, 32)))
    for fields in ({"tokens": tokens}, {"image": picture}, {"coarse": 0}):
        assert pipeline.prepare(replace(settings, **fields)).coarse == 0
        assert begun(pipeline, **fields).state.z.shape[-2:] == (4, 4)
    pipeline.vqgan.config = replace(pipeline.vqgan.config, patch=16)
    assert pipeline.vqgan.config.factor == 32 and pipeline.prepare(settings).coarse == 0


@in_both
@pytest.mark.parametrize("start", ["splash", "codes", "noise", "gradient"])
def test_clip_picks_the_nearest_of_the_starts_that_chance_makes(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny_optimize()

    def distance(count: int) -> float:
        monkeypatch.setattr("pipelines.optimize.start.STARTS", count)
        optimize_run = begun(pipeline, start=start, prompt="a dog | a cat:0.5")
        return optimize_run.judges.scores(
            optimize_run._picture(optimize_run.state.z), optimize_run.current_targets()
        )[0]

    assert distance(32) > distance(1)


def test_a_start_can_be_drawn_and_is_then_part_of_the_settings() -> None:
    clip = tiny_clip()
    pipeline = replace(tiny_optimize(), clip=clip, diffusion=tiny_prior(clip))
    asked = OptimizeSettings(prompt="fog:0.5 | two cats ^ a red heart", start="drawn", steps=2, seed=3)
    prepared = pipeline.prepare(asked)
    assert prepared.start == "drawn" and open_picture(prepared.image).size == (32, 32)
    assert pipeline.prepare(prepared) == prepared == pipeline.prepare(asked)
    assert pipeline.prepare(replace(asked, seed=4)).image != prepared.image
    assert (
        pipeline.prepare(replace(asked, prompt="two cats")).image == prepared.image
    )  # the heaviest of the first scene
    optimize_run = begun(pipeline, image=prepared.image, start="drawn")
    assert optimize_run.anchor is not None and optimize_run.given is not None
    own = picture_to_uri(Image.new("RGB", (32, 32), "red"))
    assert pipeline.prepare(replace(asked, image=own)).image == own
    with pytest.raises(BadInput, match="nothing to draw a start with"):
        tiny_optimize().prepare(asked)


def test_seamless_pictures_meet_themselves() -> None:
    pipeline = tiny_optimize()
    tokens = torch.randint(32, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    twin = pipeline.vqgan.seamless()
    assert twin.codes is pipeline.vqgan.codes
    shifted = twin.decode_tokens(tokens.roll(1, 2))
    assert torch.allclose(twin.decode_tokens(tokens).roll(8, 3), shifted, atol=1e-4)
    plain = pipeline.vqgan
    assert not torch.allclose(
        plain.decode_tokens(tokens).roll(8, 3), plain.decode_tokens(tokens.roll(1, 2)), atol=1e-2
    )


def test_sizes_follow_the_picture_or_the_wish() -> None:
    pipeline = tiny_optimize()
    assert last(finished(pipeline, OptimizeSettings(steps=2, size="48x32"))).size == (48, 32)
    odd = picture_to_uri(speckled((45, 37)))
    assert last(finished(pipeline, OptimizeSettings(steps=2, image=odd))).size == (45, 37)
    assert last(finished(pipeline, OptimizeSettings(steps=2, image=odd, size="32x32"))).size == (32, 32)
    for size, words in (
        ("50x32", "width 50 is not a multiple of 8.*try 48"),
        ("8x32", "try 16"),
        ("8000x800", "the most is"),
    ):
        with pytest.raises(BadInput, match=words):
            finished(pipeline, OptimizeSettings(steps=2, size=size))
