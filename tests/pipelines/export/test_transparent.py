"""Cutting out: opacity at any size, colours without the ground, and what is left as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from pipelines.errors import BadInput
from pipelines.export.foreground import at_edges, foreground
from pipelines.export.transparent import cut_out, opacity
from pipelines.models.matting.network import barrier, border_colour, filled, guides, scenes
from tests.support.tiny import tiny_matting


def disc(side: int, ground: str = "white", colour: str = "#c02020") -> tuple[Image.Image, np.ndarray]:
    """A round thing with soft edges on a ground, and its opacity (side, side) in [0, 1]."""
    large = Image.new("L", (8 * side, 8 * side))
    ImageDraw.Draw(large).ellipse((2 * side, 2 * side, 6 * side, 6 * side), fill=255)
    mask = large.resize((side, side), Image.Resampling.BOX)
    picture = Image.new("RGB", (side, side), ground)
    picture.paste(Image.new("RGB", (side, side), colour), mask=mask)
    return picture, np.asarray(mask, np.float32) / 255


def test_what_is_closed_off_from_the_border_is_inside() -> None:
    """A white ring's hole is behind a barrier; a gap in it lets the outside in."""
    height = torch.zeros(1, 16, 16)
    height[0, 4, 4:12] = height[0, 11, 4:12] = height[0, 4:12, 4] = height[0, 4:12, 11] = 0.7
    climbed = barrier(height)[0]
    assert climbed[8, 8] == pytest.approx(0.7) and climbed[0, 0] == 0 == climbed[2, 8]
    height[0, 4, 7] = 0.1
    assert barrier(height)[0, 8, 8] == pytest.approx(0.1)


def test_the_barrier_of_a_spiral_is_found() -> None:
    """A path that turns: what a few scans must find."""
    height = torch.ones(1, 9, 9)
    for row, column in [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (4, 2),
        (4, 3),
        (3, 3),
        (2, 3),
        (2, 4),
        (2, 5),
    ]:
        height[0, row, column] = 0
    assert barrier(height)[0, 2, 5] == 0 and barrier(height)[0, 2, 2] == 1


def test_guides_are_of_the_border_of_each_picture() -> None:
    images = torch.stack([torch.full((3, 16, 16), -0.5), torch.full((3, 16, 16), 1.0)])
    images[:, :, 6:10, 6:10] = 0.25
    assert torch.allclose(border_colour(images), torch.tensor([[-0.5] * 3, [1.0] * 3]))
    seen = guides(images)
    assert torch.allclose(seen[:, 0, 8, 8], torch.tensor([0.75, -0.75])) and seen[:, :, 0, 0].abs().max() == 0
    assert torch.allclose(seen[:, 3, 8, 8], torch.tensor([0.75, 0.75]))
    assert (seen[:, 4:, 8, 8] > 0.95).all()
    images[0, :, 7, 7] = -0.5 + 4 / 127.5  # 4 levels: faint, and yet half of the way
    assert guides(images)[0, 5, 7, 7] == pytest.approx(0.5, abs=0.02)


def test_a_faint_even_area_is_of_the_thing_unless_the_border_is_noisy() -> None:
    """A stripe 6 levels below white; a slope of a shadow is left to the network."""
    images = torch.ones(1, 3, 32, 32)
    images[..., 8:16, 8:24] -= 12 / 255
    images[..., 20:28, 8:24] -= torch.linspace(0, 0.8, 16)
    found = filled(images)[0, 0]
    assert found[8:16, 8:24].all() and not found[:8].any() and found[20:28].sum() == 0
    noisy = images + 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert not filled(noisy).any()


def test_white_is_the_ground_where_a_thing_covers_most_of_the_border() -> None:
    images = torch.full((2, 3, 32, 32), -0.5)
    images[0, :, :4, :6] = 1.0  # a corner, 8 % of the border
    images[1, :, :4, :2] = 1.0  # a mark, under 5 %
    assert torch.equal(border_colour(images), torch.tensor([[1.0] * 3, [-0.5] * 3]))


def test_a_drawn_scene_fills_its_square() -> None:
    """Sky above sand; not beside a white ground, on one colour, on a gradient or with noise."""
    sky = torch.full((3, 32, 32), -0.2)
    sky[:, 16:] = 0.6
    beside = sky.clone()
    beside[:, :, 26:] = 1.0
    plain = torch.full((3, 32, 32), -0.2)
    plain[:, 20:28, 8:24] = 0.6
    gradient = torch.linspace(-1, 0.6, 32).expand(3, 32, 32)
    noisy = sky + 0.01 * torch.randn(sky.shape, generator=torch.Generator().manual_seed(0))
    images = torch.stack([sky, beside, plain, gradient, noisy])
    assert scenes(images).tolist() == [True, False, False, False, False]
    assert filled(images)[0].all() and not filled(images)[1, :, :, 26:].any()


@pytest.mark.parametrize("size", [(32, 32), (24, 18), (200, 96), (65, 200)])
def test_opacity_has_the_size_of_the_picture(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, "white")
    picture.paste("#202020", (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4))
    alpha = opacity(picture, tiny_matting())
    assert alpha.shape == size[::-1] and alpha.min() == 0 and alpha.max() == 1
    truth = np.asarray(picture)[..., 0] < 128
    assert (((alpha > 0.5) & truth).sum() / ((alpha > 0.5) | truth).sum()) > 0.85


def test_a_large_picture_keeps_its_edges_sharp() -> None:
    picture, truth = disc(256)
    alpha = opacity(picture, tiny_matting())
    inside, outside = truth > 0.99, truth < 0.01
    assert alpha[inside].mean() > 0.98 and alpha[outside].mean() < 0.02
    plain = np.asarray(Image.fromarray(truth).resize((32, 32)).resize((256, 256), Image.Resampling.BILINEAR))
    assert np.abs(alpha - truth).mean() < 0.5 * np.abs(plain - truth).mean()


@pytest.mark.parametrize("ground", ["white", "#30a0e0"])
def test_colours_at_the_edge_are_those_of_the_thing(ground: str) -> None:
    """On black no fringe of the ground is left: the error is a small part of what it is without."""
    picture, truth = disc(64, ground)
    colours = np.asarray(picture, np.float32) / 255
    found = foreground(colours, truth)
    edge = (truth > 0.02) & (truth < 0.98)
    right = np.array([0xC0, 0x20, 0x20]) / 255
    fringe = np.abs(truth[edge, None] * (colours[edge] - right)).mean()
    left = np.abs(truth[edge, None] * (found[edge] - right)).mean()
    assert left < 0.1 * fringe
    assert np.array_equal(found[truth == 1], colours[truth == 1])


def test_opacity_at_edges_is_what_the_colours_say() -> None:
    picture, truth = disc(64)
    colours = np.asarray(picture, np.float32) / 255
    blurred = Image.fromarray((truth * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(1))
    guess = np.asarray(blurred, np.float32) / 255
    found = at_edges(colours, guess)
    edge = (truth > 0.02) & (truth < 0.98)
    assert np.abs(found - truth)[edge].mean() < 0.2 * np.abs(guess - truth)[edge].mean()
    assert found[truth == 1].min() > 0.95 and found[truth == 0].max() < 0.05


@pytest.mark.parametrize("colour", ["white", "#fff8f0"])
def test_what_the_colours_do_not_say_stays(colour: str) -> None:
    _, truth = disc(64)
    alike = np.broadcast_to(np.asarray(Image.new("RGB", (1, 1), colour), np.float32) / 255, (64, 64, 3))
    assert np.array_equal(at_edges(alike, truth), truth)
    stroke = np.zeros((64, 64), np.float32)
    stroke[30:33] = 0.8
    assert np.array_equal(at_edges(np.random.default_rng(0).random((64, 64, 3), np.float32), stroke), stroke)


def test_pictures_are_cut_out_and_those_that_are_stay(disc_side: int = 32) -> None:
    picture, truth = disc(disc_side)
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    clear.putpixel((4, 4), (1, 2, 3, 255))
    cut, same = cut_out([picture, clear], tiny_matting())
    assert cut.mode == "RGBA" and same.tobytes() == clear.tobytes()
    alpha = np.asarray(cut.getchannel("A"), np.float32) / 255
    assert np.abs(alpha - truth).mean() < 0.06
    assert cut.getpixel((16, 16)) == (0xC0, 0x20, 0x20, 255) and cut.getpixel((0, 0))[3] == 0  # type: ignore[index]


def test_a_picture_of_nothing_is_told_by_its_number() -> None:
    with pytest.raises(BadInput, match="found in 2") as problem:
        cut_out([disc(32)[0], Image.new("RGB", (32, 32), "white")], tiny_matting())
    assert problem.value.code == "export.nothing_found"
