"""Between a picture of any size and the model's square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.edit.framing import Framing
from pipelines.errors import BadInput
from pipelines.io.images import to_tensor
from tests.support.edit import (
    half,
    speckled,
)


@pytest.mark.parametrize("size", [(16, 16), (40, 28), (9, 13), (33, 8)])
def test_no_change_gives_the_picture_back(size: tuple[int, int]) -> None:
    picture = speckled(size)
    framing = Framing.of(size, None, 16)
    assert framing.reduced(picture).shape == (1, 3, 16, 16)
    back = framing.returned(picture, torch.zeros(1, 3, 16, 16), None)
    assert back.tobytes() == picture.tobytes() and back is not picture


def test_at_the_models_size_the_change_arrives_as_it_is() -> None:
    picture, other = speckled((16, 16), 0), speckled((16, 16), 1)
    framing = Framing.of((16, 16), None, 16)
    change = to_tensor([other]) - framing.reduced(picture)
    assert framing.returned(picture, change, None).tobytes() == other.tobytes()
    large = speckled((50, 40), 2)
    part = Framing.of(large.size, (7, 9, 23, 25), 16)
    assert torch.equal(part.reduced(large), to_tensor([large.crop((7, 9, 23, 25))]))
    pasted = part.returned(large, to_tensor([other]) - part.reduced(large), None)
    assert pasted.crop((7, 9, 23, 25)).tobytes() == other.tobytes()
    pasted.paste(large.crop((7, 9, 23, 25)), (7, 9))
    assert pasted.tobytes() == large.tobytes()


@pytest.mark.parametrize("size", [(64, 64), (61, 40), (30, 90), (12, 10)])
@pytest.mark.parametrize("box", [False, True])
def test_a_shift_of_colour_arrives_everywhere_and_detail_stays(size: tuple[int, int], box: bool) -> None:
    picture = speckled(size, low=90, high=160)
    part = (1, 2, size[0] - 2, size[1]) if box else (0, 0, *size)
    framing = Framing.of(size, part if box else None, 16)
    change = torch.tensor([0.2, -0.1, 0.05]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    new = np.asarray(framing.returned(picture, change, None), np.int16)
    moved = new - np.asarray(picture, np.int16)
    inside = np.zeros(size[::-1], bool)
    inside[part[1] : part[3], part[0] : part[2]] = True
    assert np.abs(moved[inside] - np.array([25.5, -12.75, 6.4])).max() <= 1  # all the noise is still there
    assert (moved[~inside] == 0).all()


def test_a_larger_picture_keeps_its_detail_under_any_change() -> None:
    """What comes back of a change has no finer detail of its own than the model's pixels."""
    picture = speckled((128, 128), low=110, high=146)
    framing = Framing.of(picture.size, None, 16)
    change = F.interpolate(
        torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.3, (16, 16), mode="bicubic"
    )
    moved = to_tensor([framing.returned(picture, change, None)]) - to_tensor([picture])
    arrived = F.interpolate(moved, (16, 16), mode="area")
    assert F.cosine_similarity(arrived.flatten(), change.flatten(), dim=0) > 0.97
    fine = moved - F.interpolate(F.interpolate(moved, (32, 32), mode="area"), (128, 128), mode="bilinear")
    assert fine.square().mean() < 0.02 * moved.square().mean()


def test_edges_of_a_change_follow_those_of_the_picture() -> None:
    """A disc that changes colour: on the large picture the change ends where the disc does."""
    y, x = np.mgrid[:128, :128]
    disc = (x - 64) ** 2 + (y - 64) ** 2 < 40**2
    levels = np.where(disc[..., None], 190, 60).astype(np.uint8).repeat(3, 2)
    picture = Image.fromarray(levels)
    framing = Framing.of(picture.size, None, 16)
    reduced = framing.reduced(picture)
    share = (reduced - reduced.min()) / (reduced.max() - reduced.min())
    moved = np.asarray(framing.returned(picture, -0.4 * share, None), np.int16) - levels
    ring = ((x - 64) ** 2 + (y - 64) ** 2 > 44**2) & ((x - 64) ** 2 + (y - 64) ** 2 < 50**2)
    plain = F.interpolate(-0.4 * share, (128, 128), mode="bilinear")[0].permute(1, 2, 0).numpy() * 127.5
    assert np.abs(moved[ring]).mean() < 0.5 * np.abs(plain[ring]).mean()
    assert np.abs(moved[disc].mean() + 51) < 6


def test_masks_are_framed_like_the_picture() -> None:
    mask = half((40, 20))
    framing = Framing.of((40, 20), (10, 0, 30, 20), 10)
    small = framing.reduced_mask(mask)
    assert small.shape == (1, 1, 10, 10)
    assert torch.equal(small, torch.tensor([1.0] * 5 + [0.0] * 5).expand(1, 1, 10, 10))
    picture = speckled((40, 20), low=60, high=150)
    new = np.asarray(framing.returned(picture, torch.full((1, 3, 10, 10), 0.3), mask), np.int16)
    moved = (new != np.asarray(picture)).any(2)
    assert moved[:, 10:20].all() and not moved[:, :10].any() and not moved[:, 20:].any()


def test_crops_that_do_not_fit_are_refused() -> None:
    for box, words in (
        ((10, 0, 41, 20), "the crop ends at 41x20, the picture at 40x20"),
        ((0, 0, 40, 21), "the crop ends at 40x21"),
        ((0, 0, 7, 20), "the least is 8x8"),
    ):
        with pytest.raises(BadInput, match=words):
            Framing.of((40, 20), box, 16)
    with pytest.raises(BadInput, match="the least is 8x8"):
        Framing.of((100, 5), None, 16)
