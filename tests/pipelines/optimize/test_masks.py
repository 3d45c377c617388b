"""Masks, and drafts of Generate's as starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.core.record import record_of, write_png
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.io.images import open_picture, picture_to_uri
from pipelines.optimize.run import OptimizeRun
from pipelines.optimize.settings import OptimizeSettings
from pipelines.optimize.timelapse import restyle
from tests.support.optimize import finished, half, in_both, last, saved, speckled
from tests.support.tiny import tiny_generate, tiny_optimize


@in_both
def test_outside_the_mask_no_pixel_changes() -> None:
    pipeline = tiny_optimize()
    start = speckled((45, 37))
    mask = half(start.size)
    settings = OptimizeSettings(
        steps=12, step_size=0.5, image=picture_to_uri(start), mask=picture_to_uri(mask.convert("RGB"))
    )
    steps = list(run(pipeline, settings))
    result = steps[-1]
    assert isinstance(result, Result)
    inside = np.asarray(mask) > 0
    for picture in result.pictures:
        new, old = np.asarray(picture.image), np.asarray(start)
        assert (new[~inside] == old[~inside]).all()
        assert (new[inside] != old[inside]).mean() > 0.5


@in_both
def test_a_mask_painted_in_mid_run_keeps_what_was_there() -> None:
    pipeline = tiny_optimize()
    plain = OptimizeSettings(steps=6, coarse=0, step_size=0.5)
    there = np.asarray(last(finished(pipeline, plain)))
    masked = OptimizeSettings(steps=12, coarse=0, step_size=0.5).changed(
        6, mask=picture_to_uri(half((32, 32)).convert("RGB"))
    )
    end = np.asarray(last(finished(pipeline, masked)))
    inside = np.asarray(half((32, 32))) > 0
    assert (end[~inside] == there[~inside]).all() and (end[inside] != there[inside]).any()


def test_painted_masks_are_read_by_their_alpha(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    painted = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    painted.paste((255, 0, 0, 255), (0, 0, 16, 32))
    settings = OptimizeSettings(mask=saved(painted, tmp_path / "m.png"), steps=1)
    prepared = pipeline.prepare(settings)
    assert np.array_equal(np.asarray(open_picture(prepared.mask).convert("L")), np.asarray(half((32, 32))))


def test_wrong_masks_are_refused(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    for mask, words in (
        (Image.new("L", (20, 32), 255), "the mask is 20x32; it must be 32x32"),
        (Image.new("L", (32, 32), 0), "black everywhere"),
    ):
        with pytest.raises(BadInput, match=words):
            pipeline.prepare(OptimizeSettings(mask=saved(mask, tmp_path / "m.png")))
    with pytest.raises(BadInput, match="mask and animate"):
        OptimizeSettings(mask="m.png", animate=5)


@in_both
def test_a_draft_goes_on_from_its_own_tokens(tmp_path: Path) -> None:
    generate, pipeline = tiny_generate(), tiny_optimize()
    *_, drawn = run(generate, GenerateSettings(candidates=2, keep=1))
    assert isinstance(drawn, Result)
    picture = drawn.pictures[0]
    record = record_of(
        pipeline="generate",
        pack="tiny",
        device="cpu",
        models={},
        settings=drawn.settings,
        picture=picture,
        rank=1,
    )
    write_png(tmp_path / "draft.png", picture.image, record)
    prepared = pipeline.prepare(OptimizeSettings(image=str(tmp_path / "draft.png")))
    assert [int(one) for one in prepared.tokens.split()] == picture.facts["tokens"]
    assert pipeline.prepare(prepared) == prepared
    optimize_run = OptimizeRun(pipeline.vqgan, pipeline.clip, pipeline.critic, prepared)
    optimize_run.begin()
    assert optimize_run.state.z.equal(
        pipeline.vqgan.embed(torch.tensor(picture.facts["tokens"]).view(1, 4, 4))
    )
    liar = Image.new("RGB", picture.image.size, "white")  # the record of another picture
    write_png(tmp_path / "liar.png", liar, record)
    assert pipeline.prepare(OptimizeSettings(image=str(tmp_path / "liar.png"))).tokens == ""


def test_tokens_that_do_not_fit_are_refused() -> None:
    pipeline = tiny_optimize()
    with pytest.raises(BadInput, match="a canvas of 32x32 has 16"):
        pipeline.prepare(OptimizeSettings(tokens="1 2 3"))
    with pytest.raises(BadInput, match="the largest is 31"):
        pipeline.prepare(OptimizeSettings(tokens=" ".join(["32"] * 16)))


@in_both
def test_restyling_pulls_to_the_frame_and_starts_from_the_last_result() -> None:
    pipeline = tiny_optimize()
    frames = [speckled((32, 32), seed) for seed in range(2)]
    settings = OptimizeSettings(steps=3)
    first = finished(pipeline, restyle(settings, frames[0], None))
    following = restyle(settings, frames[1], first.pictures[-1])
    assert following.image == picture_to_uri(frames[1]) and following.tokens.split() == [
        str(k) for k in first.pictures[-1].facts["tokens"]
    ]
    assert last(finished(pipeline, following)).size == (32, 32)
