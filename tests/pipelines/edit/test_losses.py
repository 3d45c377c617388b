"""What an edit asks for: directions, lengths, and what keeps the rest."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.clip.cutouts import views_alike
from pipelines.clip.losses import (
    UNIT_SHIFT,
    directional_loss,
    directional_similarity,
    magnitude_loss,
    preservation_loss,
    text_direction,
)
from pipelines.clip.ranking import ensemble
from tests.support.tiny import tiny_clip

EAST, NORTH = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def vectors(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 5, dtype=torch.float64, generator=generator), dim=1)


@pytest.mark.parametrize(
    ("change", "cosine"), [((0.3, 0.0), 1), ((-0.3, 0.0), -1), ((0.0, 2.0), 0), ((3.0, 4.0), 0.6)]
)
def test_the_directional_loss_by_hand(change: tuple[float, float], cosine: float) -> None:
    before = torch.tensor([0.2, -0.1])
    after = before + torch.tensor(change)
    assert directional_similarity(before, after, EAST).item() == pytest.approx(cosine, abs=1e-5)
    assert directional_loss(before, after, EAST).item() == pytest.approx(1 - cosine, abs=1e-5)
    logarithm = directional_loss(before, after, EAST, "log").item()
    if cosine == -1:
        assert 10 < logarithm < 100
    else:
        assert logarithm == pytest.approx(-math.log((1 + cosine) / 2), abs=1e-5)


@pytest.mark.parametrize("form", ["plain", "log"])
def test_the_loss_of_pictures_alike_is_finite_and_so_is_its_slope(form: str) -> None:
    before = vectors(3)
    for after in (before.clone(), before - 0.3 * EAST.double().repeat(3)[:5]):
        after.requires_grad_()
        loss = directional_loss(before, after, F.normalize(torch.ones(5).double(), dim=0), form).sum()
        loss.backward()
        assert loss.isfinite() and after.grad is not None and after.grad.isfinite().all()
    same = directional_loss(before, before, before, form)
    assert torch.allclose(same, torch.full_like(same, math.log(2) if form == "log" else 1.0))


@pytest.mark.parametrize("form", ["plain", "log"])
def test_the_slopes_are_those_of_finite_differences(form: str) -> None:
    before, after, direction = vectors(4, 0), vectors(4, 1).requires_grad_(), vectors(4, 2)
    assert torch.autograd.gradcheck(lambda x: directional_loss(before, x, direction, form), (after,))
    strength = torch.tensor([1.0, -0.5, 1.5, 0.7], dtype=torch.float64)
    line = vectors(1, 3)[0]
    assert torch.autograd.gradcheck(lambda x: magnitude_loss(before, x, line, strength), (after,))
    pictures = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(
        lambda x: preservation_loss(pictures[0], x, 0.3, 0.7), (pictures[1].clone().requires_grad_(),)
    )


def test_the_reach_by_hand() -> None:
    start = torch.zeros(2)
    assert magnitude_loss(start, start, EAST).item() == 1
    assert magnitude_loss(start, UNIT_SHIFT / 2 * EAST, EAST).item() == pytest.approx(0.5)
    assert magnitude_loss(start, 2 * UNIT_SHIFT * EAST, EAST).item() == 0  # arrived, and farther
    assert magnitude_loss(start, UNIT_SHIFT * NORTH, EAST).item() == 1  # length elsewhere counts for nothing
    assert magnitude_loss(start, -UNIT_SHIFT * EAST, EAST).item() == pytest.approx(2)
    assert magnitude_loss(start, -UNIT_SHIFT * EAST, EAST, -1.0).item() == pytest.approx(0, abs=1e-6)
    strengths = torch.tensor([0.0, 0.5, 1.5])
    assert magnitude_loss(start.expand(3, 2), start.expand(3, 2), EAST, strengths).tolist() == [0, 0.5, 1.5]


def test_what_keeps_the_rest_by_hand() -> None:
    before = torch.zeros(2, 3, 4, 4)
    after = before.clone()
    after[1] = 0.5
    assert preservation_loss(before, after, 0.3, 7.0).tolist() == pytest.approx(
        [0, 0.15]
    )  # no edges in a shift
    after[1] = 0
    after[1, :, :, 2:] = 1.0  # one edge among the three between four columns
    assert preservation_loss(before, after, 0.0, 1.0)[1].item() == pytest.approx(1 / 3)
    assert preservation_loss(before, after.transpose(2, 3), 0.0, 1.0)[1].item() == pytest.approx(1 / 3)
    assert preservation_loss(before, after, 2.0, 0.0)[1].item() == pytest.approx(1.0)


def test_a_text_direction_is_the_mean_over_wordings() -> None:
    clip = tiny_clip()
    found = text_direction(clip, "two cats", "a red heart")
    assert found.norm().item() == pytest.approx(1, abs=1e-6)
    ends = [clip.encode_text(ensemble(text)).mean(0) for text in ("two cats", "a red heart")]
    assert torch.allclose(found, F.normalize(ends[1] - ends[0], dim=0), atol=1e-6)
    single = clip.encode_text(["two cats", "a red heart"])
    assert not torch.allclose(found, F.normalize(single[1] - single[0], dim=0), atol=1e-3)
    assert torch.allclose(found, -text_direction(clip, "a red heart", "two cats"), atol=1e-6)


def test_pictures_compared_are_seen_alike() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    other = picture.clone().requires_grad_()
    seen = views_alike(torch.cat([picture, other, -picture]), 4, 12, torch.Generator().manual_seed(3))
    assert seen.shape == (3, 4, 3, 12, 12)
    assert torch.equal(seen[0], seen[1]) and not torch.allclose(seen[0], seen[2], atol=0.1)
    assert not torch.allclose(seen[0, 0], seen[0, 1], atol=0.1)  # the views differ among themselves
    again = views_alike(torch.cat([picture, other, -picture]), 4, 12, torch.Generator().manual_seed(3))
    assert torch.equal(seen, again)
    seen.square().sum().backward()
    assert other.grad is not None and other.grad.abs().sum() > 0
