"""Large canvases by overlapping windows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.diffuse.canvas import LARGEST
from pipelines.diffuse.course import by_windows
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.models.windows import Windows
from tests.support.diffuse import pictures_of
from tests.support.tiny import tiny_diffuse, tiny_prior, tiny_prior_diffuse


class Tiles(Windows):
    """Windows that do not overlap, for comparison."""

    @property
    def places(self) -> list[tuple[int, int]]:
        height, width = self.side
        canvas = [side // self.model.factor for side in self.size]
        return [(top, left) for top in range(0, canvas[1], height) for left in range(0, canvas[0], width)]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", range(32, 200, 8))
def test_windows_cover_the_canvas_and_overlap_by_half(width: int) -> None:
    windows = Windows(tiny_prior(), (width, 24), 1)
    assert windows.side == (3, 4) and {top for top, _ in windows.places} == {0}
    starts = [left for _, left in windows.places]
    assert starts[0] == 0 and starts[-1] == width // 8 - 4
    assert all(0 < after - before <= 2 for before, after in pairwise(starts))


@torch.no_grad()
@pytest.mark.parametrize(("rows", "guided"), [(1, True), (2, True), (1, False)])
def test_the_output_is_the_weighted_mean_of_the_windows(rows: int, guided: bool) -> None:
    model = tiny_prior()
    windows = Windows(model, (56, 40), rows)
    t, x = torch.tensor(400.0), noise(rows * (1 + guided), 4, 5, 7)
    ours = windows.predict(x, t, windows.condition("two cats", "a red heart", guided))
    total, weights = torch.zeros_like(x), torch.zeros(5, 7)
    tent = torch.tensor([1.0, 2, 2, 1])
    conditions = [
        model.condition(text, "", 32, 32, 1, False) for text in ("a red heart", "two cats")[not guided :]
    ]
    for top, left in windows.places:
        for row in range(len(x)):
            part = x[row : row + 1, :, top : top + 4, left : left + 4]
            output = model.predict(part, t, conditions[row // rows])
            total[row, :, top : top + 4, left : left + 4] += tent[:, None] * tent * output[0]
        weights[top : top + 4, left : left + 4] += tent[:, None] * tent
    assert torch.allclose(ours, total / weights, atol=1e-5)


@torch.no_grad()
def test_further_channels_are_cut_with_the_latents() -> None:
    pipeline = tiny_diffuse("inpainting")
    windows = Windows(pipeline.diffusion, (64, 64), 1)
    condition = windows.condition("two cats", "", False)
    x, more, t = noise(1, 4, 8, 8), noise(1, 5, 8, 8), torch.tensor(400)
    whole = pipeline.diffusion.predict(x, t, condition, more)
    assert torch.equal(windows.predict(x, t, condition, more), whole)
    wide = Windows(pipeline.diffusion, (96, 64), 1)
    first = wide.predict(torch.cat([x, x], 3)[..., :12], t, condition, torch.cat([more, more], 3)[..., :12])
    assert torch.allclose(first[..., :4], whole[..., :4], atol=1e-5)  # seen by the first window alone


def step_at_edges(windows: Windows, model: PriorDiffusion) -> float:
    """How much larger an output steps where windows without overlap would meet than elsewhere, for grey latents."""
    output = windows.predict(
        torch.zeros(1, 4, 8, 32), torch.tensor(500.0), windows.condition("two cats", "", False)
    )
    steps = (output[..., 1:] - output[..., :-1]).abs().mean((0, 1, 2))
    edges = torch.arange(1, len(steps) + 1) % windows.side[1] == 0
    return (steps[edges].mean() / steps[~edges].mean()).item()


@torch.no_grad()
def test_there_is_no_seam_where_windows_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PriorDiffusion, "image_size", 64)  # windows of 8 x 8 latents
    model = tiny_prior()
    smooth, tiled = (step_at_edges(kind(model, (256, 64), 1), model) for kind in (Windows, Tiles))
    assert smooth < 1.2 < tiled, (smooth, tiled)


def test_they_are_used_where_the_canvas_is_much_larger_than_the_model_draws() -> None:
    pipeline = tiny_diffuse("1.5")
    for changes, expected in (
        ({}, False),
        ({"width": 96, "height": 64}, False),
        ({"width": 104, "height": 64}, True),
        ({"width": 64, "height": 128, "windows": "never"}, False),
        ({"windows": "always"}, True),
    ):
        settings = pipeline.prepare(DiffuseSettings(**changes))
        assert by_windows(pipeline.diffusion, settings) is expected, changes
    assert DiffuseSettings.recorded({"prompt": "a"}, {})["windows"] == "never"  # before there were any
    assert DiffuseSettings.recorded({"windows": "auto"}, {})["windows"] == "auto"


@pytest.mark.parametrize("kind", ["1.5", "xl"])
def test_one_window_is_the_whole_picture(kind: str) -> None:
    pipeline, settings = tiny_diffuse(kind), DiffuseSettings(candidates=1, steps=2)
    pictures = [
        pictures_of(pipeline, replace(settings, windows=choice))[0].image.tobytes()
        for choice in ("always", "never")
    ]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("make", [tiny_prior_diffuse, lambda: tiny_diffuse("xl")])
def test_a_large_candidate_redrawn_alone_is_the_same(make: Any) -> None:
    pipeline = make()
    settings = DiffuseSettings(candidates=3, keep=3, steps=2, width=112, height=72)
    together = pictures_of(pipeline, settings)
    for picture in together[1:]:
        alone = pictures_of(pipeline, replace(settings, candidates=1, keep=1, seed=picture.seed))
        assert alone[0].image.tobytes() == picture.image.tobytes() and picture.image.size == (112, 72)


def test_a_canvas_that_the_model_cannot_draw_is_refused_early() -> None:
    pipeline = tiny_prior_diffuse()
    side = LARGEST * 32
    assert pipeline.prepare(DiffuseSettings(width=2 * side, height=64)).width == 256
    with pytest.raises(BadInput, match="264x72 is too large for this model; the most is 128x128"):
        pipeline.prepare(DiffuseSettings(width=264, height=72))
