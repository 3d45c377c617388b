"""Masks, and what lies beyond the edges of a picture: given pixels stay bit for bit, the rest is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from pipelines.core.execute import run
from pipelines.core.pipeline import Result, Step
from pipelines.diffuse.canvas import FADE, joined, offset
from pipelines.diffuse.latents import NEAR, read_scene
from pipelines.diffuse.settings import PLACES, DiffuseSettings
from pipelines.diffuse.sketch import reduced, sketch_size
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, picture_to_uri, to_pil, to_tensor
from pipelines.models.prior.diffusion import PriorDiffusion
from tests.support.diffuse import half_mask, painting, pictures_of
from tests.support.tiny import SIDE, tiny_diffuse, tiny_prior_diffuse

QUICK: dict[str, Any] = {"candidates": 1, "steps": 2}


def odd_mask(size: tuple[int, int]) -> Image.Image:
    """A slanted line of one pixel, and a block on no grid."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    diagonal = np.arange(min(size))
    pixels[diagonal, diagonal] = 255
    pixels[13:22, 5:16] = 255
    return Image.fromarray(pixels).convert("RGB")


def thin_mask(size: tuple[int, int]) -> Image.Image:
    """One column of pixels, between those that a latent is sampled at."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, 13] = 255
    return Image.fromarray(pixels).convert("RGB")


# ------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    "make", [tiny_prior_diffuse, lambda: tiny_diffuse("1.5"), lambda: tiny_diffuse("inpainting")]
)
@pytest.mark.parametrize("mask_of", [odd_mask, thin_mask, half_mask])
@pytest.mark.parametrize("invert", [False, True])
def test_no_pixel_outside_the_mask_changes(make: Any, mask_of: Any, invert: bool) -> None:
    size = (72, 64)
    image, mask = painting(size=size), mask_of(size)
    settings = DiffuseSettings(
        **QUICK, strength=1.0, image=picture_to_uri(image), mask=picture_to_uri(mask), invert=invert,
        width=72, height=64,
    )  # fmt: skip
    picture = pictures_of(make(), settings)[0].image
    drawn, before = np.asarray(picture), np.asarray(image)
    may = (np.asarray(mask)[..., 0] > 127) != invert
    assert (drawn[~may] == before[~may]).all()
    assert (drawn[may] != before[may]).any(1).mean() > 0.5


def test_an_inverted_mask_is_the_mask_of_the_rest() -> None:
    pipeline, image, mask = tiny_prior_diffuse(), painting(), odd_mask((SIDE, SIDE))
    given = DiffuseSettings(**QUICK, image=picture_to_uri(image), mask=picture_to_uri(mask), invert=True)
    other = replace(given, mask=picture_to_uri(ImageOps.invert(mask)), invert=False)
    one, same = (pictures_of(pipeline, settings)[0].image.tobytes() for settings in (given, other))
    assert one == same
    prepared = pipeline.prepare(given)
    assert prepared.invert and pipeline.prepare(prepared) == prepared


def as_files_have_it(mask: Image.Image, kind: str) -> Image.Image:
    """A grey mask of two halves as other programs save it."""
    if kind == "opacity":
        clear = Image.new("RGBA", mask.size, (9, 99, 9, 255))
        clear.putalpha(mask)
        return clear
    if kind == "opaque":
        return Image.merge("RGBA", (mask, mask, mask, Image.new("L", mask.size, 255)))
    if kind == "16 bit":
        return Image.fromarray(np.asarray(mask).astype(np.uint16) * 257)
    if kind == "soft":
        return mask.filter(ImageFilter.BoxBlur(3))
    if kind == "larger":
        return mask.resize((4 * mask.width + 1, 4 * mask.height), Image.Resampling.NEAREST)
    return mask.convert(kind)


@pytest.mark.parametrize(
    "kind", ["L", "1", "P", "LA", "RGB", "opacity", "opaque", "16 bit", "soft", "larger"]
)
def test_masks_of_every_kind_of_file_are_one(kind: str, tmp_path: Path) -> None:
    size = (40, 72)
    mask = as_files_have_it(half_mask(size).convert("L"), kind)
    mask.save(tmp_path / "mask.png")
    settings = DiffuseSettings(image=picture_to_uri(painting(size=size)), mask=str(tmp_path / "mask.png"))
    prepared = tiny_prior_diffuse().prepare(settings)
    light = np.asarray(open_picture(prepared.mask).convert("L"))
    assert light[:, : light.shape[1] // 2].all() and not light[:, light.shape[1] // 2 :].any()


def test_a_black_mask_of_what_stays_lets_all_change() -> None:
    black = picture_to_uri(Image.new("RGB", (SIDE, SIDE)))
    given = DiffuseSettings(**QUICK, rounds=0, image=picture_to_uri(painting()), mask=black, invert=True)
    plain = replace(given, mask="", invert=False)
    one, other = (
        pictures_of(tiny_prior_diffuse(), settings)[0].image.tobytes() for settings in (given, plain)
    )
    assert one == other
    with pytest.raises(BadInput, match="black everywhere"):
        tiny_prior_diffuse().prepare(replace(given, invert=False))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (64, 64)), ((200, 333), (64, 104)), ((64, 512), (64, 256)), ((1, 300), (64, 256))],
)
def test_pictures_of_any_shape_are_drawn(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """In their proportions, where the model of 64 x 64 pixels can draw them: 64 to 256."""
    image = picture_to_uri(Image.new("RGB", size, "red"))
    prepared = tiny_diffuse("turbo").prepare(DiffuseSettings(image=image))
    assert (prepared.width, prepared.height) == expected == open_picture(prepared.image).size


def test_a_mask_that_lets_nothing_change_is_refused() -> None:
    white = picture_to_uri(Image.new("RGB", (SIDE, SIDE), "white"))
    with pytest.raises(BadInput, match="white everywhere"):
        tiny_diffuse("1.5").prepare(
            DiffuseSettings(image=picture_to_uri(painting()), mask=white, invert=True)
        )


# -------------------------------------------------------------------------------------------------- beyond the edges


@pytest.mark.parametrize("place", list(PLACES)[1:])
def test_the_given_pixels_stay_and_the_rest_is_drawn(place: str) -> None:
    image = painting(size=(40, 32)).crop((0, 0, 37, 30))
    settings = DiffuseSettings(**QUICK, image=picture_to_uri(image), place=place, width=96, height=64)
    pipeline = tiny_prior_diffuse()
    picture = pictures_of(pipeline, settings)[0].image
    left, top = offset(place, image.size, (96, 64), 8)
    assert left == {"left": 0, "right": 59}.get(place.split("-")[-1], 24)
    assert top == {"top": 0, "bottom": 34}.get(place.split("-")[0], 16)
    assert picture.size == (96, 64)
    assert picture.crop((left, top, left + 37, top + 30)).tobytes() == image.tobytes()
    scene = read_scene(pipeline.diffusion, pipeline.prepare(settings))
    assert scene is not None and scene.mask is not None
    changed = (np.asarray(picture) != np.asarray(scene.picture)).any(2)
    assert changed[np.asarray(scene.mask) > 127].mean() > 0.9


@pytest.mark.parametrize("kind", ["1.5", "inpainting", "xl"])
def test_stable_diffusion_draws_beyond_the_edges_too(kind: str) -> None:
    image = painting()
    settings = DiffuseSettings(**QUICK, image=picture_to_uri(image), place="left", width=112, height=64)
    picture = pictures_of(tiny_diffuse(kind), settings)[0].image
    assert picture.crop((0, 0, SIDE, SIDE)).tobytes() == image.tobytes()
    assert np.asarray(picture)[:, SIDE:].std() > 1


def test_the_canvas_is_twice_the_picture_where_it_is_not_set() -> None:
    pipeline = tiny_diffuse("1.5")
    image = picture_to_uri(painting(size=(48, 40)))
    for place, size in (("centre", (96, 80)), ("left", (96, 64)), ("top", (64, 80)), ("top-left", (96, 80))):
        settings = pipeline.prepare(DiffuseSettings(image=image, place=place))
        assert (settings.width, settings.height) == size, place
        assert open_picture(settings.image).size == (48, 40) and settings.strength == 1
        assert pipeline.prepare(settings) == settings
    large = picture_to_uri(painting(size=(640, 160)))  # twice as large is more than the model draws
    settings = pipeline.prepare(DiffuseSettings(image=large, place="centre"))
    assert open_picture(settings.image).size == (256, 64) and (settings.width, settings.height) == (512, 128)
    settings = pipeline.prepare(DiffuseSettings(image=large, place="top", width=128, height=128))
    assert open_picture(settings.image).size == (128, 32) and (settings.width, settings.height) == (128, 128)
    settings = pipeline.prepare(DiffuseSettings(image=large, place="centre", width=128))
    assert open_picture(settings.image).size == (64, 16) and (settings.width, settings.height) == (128, 64)
    awkward = picture_to_uri(
        painting(size=(648, 488))
    )  # whose canvas must not be rounded to more than the most
    settings = pipeline.prepare(DiffuseSettings(image=awkward, place="top-left"))
    assert 0.9 * 256**2 < (settings.width or 0) * (settings.height or 0) <= 256**2
    with pytest.raises(BadInput, match="covers the whole canvas of 64x64"):
        pipeline.prepare(DiffuseSettings(image=picture_to_uri(painting()), place="left", width=64, height=64))


def test_a_mask_may_open_the_picture_too() -> None:
    pipeline, image, mask = tiny_prior_diffuse(), painting(size=(64, 64)), odd_mask((64, 64))
    settings = DiffuseSettings(
        **QUICK, image=picture_to_uri(image), mask=picture_to_uri(mask), place="right", width=96, height=64
    )
    drawn = np.asarray(pictures_of(pipeline, settings)[0].image)[:, 32:]
    may = np.asarray(mask)[..., 0] > 127
    assert (drawn[~may] == np.asarray(image)[~may]).all()
    assert (drawn[may] != np.asarray(image)[may]).any(1).mean() > 0.5


def test_what_the_codec_loses_goes_out_beyond_the_edges() -> None:
    """A drawn picture that is darker than the given one is as light beside it, and itself FADE pixels away."""
    picture, drawn = torch.full((1, 3, 48, 160), 0.5), torch.full((1, 3, 48, 160), 0.1)
    row = joined(drawn, picture, (0, 0, 80, 48))[0, 0, 24]
    assert torch.equal(row[:80], drawn[0, 0, 24, :80])  # where the picture itself is put
    beyond = row[80:]
    assert beyond[0] > 0.46 and torch.equal(beyond[FADE:], drawn[0, 0, 0, 80 + FADE :])
    assert (beyond[1:] <= beyond[:-1]).all()


def test_there_is_no_seam_at_the_edges_of_the_picture() -> None:
    """Also where the codec darkens the picture and takes of its contrast."""
    settings = DiffuseSettings(
        image=picture_to_uri(painting(size=(64, 64))), place="left", width=128, height=64
    )
    pipeline = tiny_prior_diffuse()
    scene = read_scene(pipeline.diffusion, pipeline.prepare(settings))
    assert scene is not None
    canvas = to_tensor([scene.picture])
    lossy = 0.7 * canvas - 0.2
    steps = np.abs(np.diff(np.asarray(scene.finished(lossy)[0], float), axis=1)).mean((0, 2))
    plain = np.abs(np.asarray(to_pil(lossy)[0], float)[:, 64] - np.asarray(scene.picture)[:, 63]).mean()
    assert steps[63] < 1.2 * steps[:63].mean() < plain


def test_what_lies_near_the_edges_is_drawn_late() -> None:
    pipeline = tiny_prior_diffuse()  # windows of 4 x 4 latents
    settings = DiffuseSettings(
        image=picture_to_uri(painting(size=(64, 64))), place="left", width=128, height=64
    )
    scene = read_scene(pipeline.diffusion, pipeline.prepare(settings))
    assert scene is not None and scene.known.mask is not None
    shares = scene.known.mask[0, 0]
    assert shares.shape == (8, 16) and (shares[:, :8] == 0).all() and (shares[:, 10:] > 0.999).all()
    assert NEAR < shares[0, 8] < shares[0, 9] < 1


@pytest.fixture
def _larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 8 x 8 latents, and one picture at a time."""
    monkeypatch.setattr(PriorDiffusion, "image_size", 64)
    monkeypatch.setattr(PriorDiffusion, "rows", lambda *_: 1)


@pytest.mark.usefixtures("_larger")
@pytest.mark.parametrize(
    ("size", "expected"),
    [((128, 128), (64, 64)), ((192, 128), (96, 64)), ((256, 64), None), ((96, 64), None)],
)
def test_a_large_canvas_is_drawn_small_first(size: tuple[int, int], expected: tuple[int, int] | None) -> None:
    pipeline = tiny_prior_diffuse()
    settings = pipeline.prepare(
        DiffuseSettings(
            image=picture_to_uri(painting(size=(64, 64))), place="left", width=size[0], height=size[1]
        )
    )
    scene = read_scene(pipeline.diffusion, settings)
    assert sketch_size(pipeline.diffusion, settings, scene) == expected
    assert sketch_size(pipeline.diffusion, replace(settings, place="fill"), None) is None


@pytest.mark.usefixtures("_larger")
def test_a_reduced_scene_shows_the_same_at_the_same_place() -> None:
    pipeline, image = tiny_prior_diffuse(), Image.new("RGB", (64, 64), (200, 30, 30))
    mask = Image.new("RGB", (64, 64))
    mask.putpixel((33, 40), (255, 255, 255))
    settings = DiffuseSettings(
        image=picture_to_uri(image), mask=picture_to_uri(mask), place="right", width=192, height=128
    )
    scene = read_scene(pipeline.diffusion, pipeline.prepare(settings))
    assert scene is not None
    small = reduced(pipeline.diffusion, scene, (96, 64))
    assert small.frame == (64, 16, 96, 48) and small.picture.size == (96, 64)
    assert small.mask is not None and small.known.mask is not None
    white = np.asarray(small.mask) == 255
    assert white[:, :64].all() and white[:16].all() and white[48:].all()
    assert np.argwhere(white[16:48, 64:]).tolist() == [[20, 16]]  # a pixel that was open stays so
    held = np.argwhere(small.known.mask[0, 0].numpy() == 0)
    assert {(row, column) for row, column in held.tolist()} == {
        (row, column) for row in range(2, 6) for column in range(8, 12)
    } - {(4, 10)}


@pytest.mark.usefixtures("_larger")
def test_the_windows_draw_the_details_of_the_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    encode: Any = PriorDiffusion.encode
    monkeypatch.setattr(PriorDiffusion, "encode", lambda model, x: seen.append(x) or encode(model, x))
    image = painting(size=(64, 64))
    settings = DiffuseSettings(
        candidates=1, steps=4, image=picture_to_uri(image), place="left", width=128, height=128
    )
    apart: list[float] = []
    for share in (0.25, 1.0):
        monkeypatch.setattr("pipelines.diffuse.sketch.DETAIL", share)
        pipeline = tiny_prior_diffuse()
        drawn = pictures_of(pipeline, settings)[0].image
        assert drawn.crop((0, 32, 64, 96)).tobytes() == image.tobytes()
        canvas = to_pil(seen[-1])[0]  # the sketch enlarged, with the picture in it and its edges drawn out
        assert canvas.size == (128, 128) and canvas.crop((0, 32, 64, 96)).tobytes() == image.tobytes()
        with torch.no_grad():
            kept = to_pil(pipeline.diffusion.decode(encode(pipeline.diffusion, seen[-1])))[0]
        apart.append(np.abs(np.asarray(drawn, float) - np.asarray(kept, float))[:, 96:].mean())
    assert apart[0] < 0.8 * apart[1]


@pytest.mark.usefixtures("_larger")
def test_a_sketched_candidate_redrawn_alone_is_the_same() -> None:
    settings = DiffuseSettings(
        candidates=2, keep=2, steps=2, image=picture_to_uri(painting(size=(64, 64))), place="centre",
        width=128, height=128,
    )  # fmt: skip
    events = list(run(tiny_prior_diffuse(), settings))
    shares = [
        event.done / event.total for event in events if isinstance(event, Step) and event.stage == "draw"
    ]
    assert shares == sorted(set(shares)) and shares[-1] == 1
    result = events[-1]
    assert isinstance(result, Result)
    second = next(picture for picture in result.pictures if picture.facts["candidate"] == 1)
    alone = pictures_of(tiny_prior_diffuse(), replace(settings, candidates=1, keep=1, seed=second.seed))
    assert alone[0].image.tobytes() == second.image.tobytes()
