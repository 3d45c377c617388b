"""Pruning while drawing: which candidates are finished, and that each can be drawn again alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipelines.clip.ranking import score_terms
from pipelines.core.candidates import batches, candidate_seeds
from pipelines.core.execute import run
from pipelines.core.pipeline import Step
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.prune import LOOK
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri, to_pil, to_tensor
from pipelines.models.latent_diffusion import Course, Midway, walk
from tests.support.diffuse import painting, pictures_of
from tests.support.tiny import tiny_diffuse, tiny_prior, tiny_prior_diffuse

SIZE = (64, 64)  # of which the tiny prior draws four together
ASKED = DiffuseSettings(
    prompt="two cats", candidates=5, keep=16, steps=10, seed=3, prune=True, windows="never"
)


@torch.no_grad()
def end(ticks: Any) -> tuple[torch.Tensor, Any]:
    """The latents of a walk and its last tick."""
    tick = None
    while True:
        try:
            tick = next(ticks)
        except StopIteration as stop:
            return stop.value, tick


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_walk_in_two_parts_is_the_whole_walk(sampler: str) -> None:
    model, seeds, size = tiny_prior(), [1, 2], (32, 32)
    under = model.condition("two cats", "", *size, 2, True)
    course = Course(sampler, interval=(0.2, 0.6), unguided=model.condition("two cats", "", *size, 2, False))
    whole, _ = end(walk(model, seeds, size, under, 10, 3.0, course=course))
    begun, tick = end(walk(model, seeds, size, under, 10, 3.0, course=replace(course, last=4)))
    finished, _ = end(walk(model, seeds, size, under, 10, 3.0, Midway(begun, 4), course))
    assert tick.done == tick.total and not torch.equal(begun, whole)
    assert torch.equal(finished, whole)


@torch.no_grad()
def test_the_quarter_that_clip_likes_best_on_the_way_is_finished() -> None:
    pipeline = tiny_prior_diffuse()
    seeds, model = candidate_seeds(3, 10), pipeline.diffusion
    rows = model.rows(*SIZE)  # walked together, as rounding may depend on their number
    under = model.condition("two cats", "", *SIZE, rows, True)
    course, guesses = Course(last=round(LOOK * 10)), []
    for part in batches(seeds, rows):
        _, tick = end(walk(model, part.row_seeds, SIZE, under, 10, model.proposed_guidance, course=course))
        guesses.append(model.decode(model.clean(tick.latents, tick.output, tick.t))[: len(part.seeds)])
    seen = pipeline.clip.encode_image(to_tensor(to_pil(torch.cat(guesses))))
    scores, _ = score_terms(pipeline.clip, [("two cats", 1.0)], seen)
    liked = scores.argsort(descending=True)[:3].tolist()
    found = pictures_of(pipeline, ASKED)
    assert {one.seed for one in found} == {seeds[k] for k in liked}
    ends = pipeline.clip.encode_image(to_tensor([one.image for one in found]))
    for one, vector in zip(found, ends, strict=True):
        after, _ = score_terms(pipeline.clip, [("two cats", 1.0)], vector[None])
        assert one.score == pytest.approx((after.item() + scores[seeds.index(one.seed)].item()) / 2, abs=1e-5)


@pytest.mark.parametrize("pipeline", [tiny_prior_diffuse(), tiny_diffuse("1.5")], ids=["rows", "one by one"])
def test_a_finished_candidate_redrawn_alone_is_the_same(pipeline: Diffuse) -> None:
    asked = replace(ASKED, candidates=9, style="flat", width=64, height=64)
    found = pictures_of(pipeline, asked)  # 18 are begun, 16 and 2 together
    assert len(found) == 5 and len({one.image.tobytes() for one in found}) == 5
    for one in found:
        alone = replace(asked, candidates=1, seed=one.seed)
        assert pictures_of(pipeline, alone)[0].image.tobytes() == one.image.tobytes()


def test_steps_are_counted_to_the_end() -> None:
    steps = [one for one in run(tiny_prior_diffuse(), ASKED) if isinstance(one, Step)]
    assert [(one.done, one.total) for one in steps] == [
        (k, 16) for k in range(1, 17)
    ]  # 3 parts of 3, one of 7
    assert [len(one.preview()) for one in steps[::3]] == [4, 4, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"image": picture_to_uri(painting())}, "leave out image or prune"),
        ({"source_prompt": "a cat"}, "leave out source_prompt or prune"),
        ({"steps": 7}, "with 7 steps .* at least 8"),
    ],
)
def test_what_cannot_be_pruned_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        tiny_prior_diffuse().prepare(replace(ASKED, **fields))
