"""Every row of the table: what is written keeps to it, and a file that does not is found out."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.IcoImagePlugin import IcoImageFile

from pipelines.errors import BadInput
from pipelines.export.files import check, encoded, paced
from pipelines.export.framing import box_of, framed, outlined
from pipelines.export.presets import PRESETS, TABLE, Form
from tests.support.pictures import noise


def thing(side: int = 64) -> Image.Image:
    """Something round and red in the lower left of nothing."""
    picture = Image.new("RGBA", (side, side))
    ImageDraw.Draw(picture).ellipse((side // 8, side // 2, side // 2, side - side // 8), fill=(200, 30, 30))
    return picture


STILL = [
    (preset.name, form)
    for preset in TABLE
    for form in (*preset.still, *preset.once)
    if form.suffix != ".svg" and not form.together
]
MOVING = [(preset.name, form) for preset in TABLE for form in preset.moving]


@pytest.mark.parametrize(("place", "form"), STILL, ids=[f"{name}-{form.ending}" for name, form in STILL])
def test_a_still_picture_keeps_to_its_form(place: str, form: Form) -> None:
    picture = framed(thing(), box_of([thing()]), form)
    data = encoded([picture], form)
    size = check(data, form)
    assert max(size) == (form.side or 64) and (not form.most or len(data) <= form.most)
    opened = IcoImageFile if form.suffix == ".ico" else Image.open  # other tests may have restricted Pillow
    again = opened(io.BytesIO(data)).convert("RGBA")
    if not form.whole:  # the thing fills the canvas up to the margin
        shown = again if not form.ground else Image.fromarray(255 - np.asarray(again.convert("L")))
        box = (shown if form.ground else again.getchannel("A")).getbbox()
        assert box is not None and box[1] == pytest.approx(form.margin, abs=2)
        assert max(box[2] - box[0], box[3] - box[1]) == pytest.approx(form.side - 2 * form.margin, abs=4)


@pytest.mark.parametrize(("place", "form"), MOVING, ids=[name for name, _ in MOVING])
def test_a_moving_picture_keeps_to_its_form(place: str, form: Form) -> None:
    small = replace(form, side=64, margin=0)  # what the encoders do does not depend on it
    frames = [framed(thing().rotate(60 * k), (0, 0, 64, 64), small) for k in range(6)]
    data = encoded(frames, small)
    assert check(data, small) == (64, 64) and len(data) <= form.most
    with pytest.raises(BadInput, match="moves False"):
        check(encoded([frames[0]], replace(small, seconds=0, suffix=".webp")), replace(small, suffix=".webp"))


def test_many_frames_are_thinned_to_the_seconds_allowed() -> None:
    form = PRESETS["telegram"].moving[0]
    frames = [thing()] * 300
    kept, rate = paced(frames, form)
    assert len(kept) <= form.seconds * form.rate and rate <= form.rate and len(kept) / rate <= form.seconds
    few, slow = paced(frames[:6], form)
    assert len(few) == 6 and slow == 8


def test_a_heavy_picture_loses_quality_before_it_is_refused() -> None:
    heavy = noise(128).convert("RGBA")
    heavy.putpixel((0, 0), (0, 0, 0, 0))
    webp, png = Form(".webp", 128, 20_000), Form(".png", 128, 20_000)
    assert 4_000 < len(encoded([heavy], webp)) <= 20_000
    assert len(encoded([heavy], png)) <= 20_000 < len(encoded([heavy], replace(png, most=0)))
    with pytest.raises(BadInput, match="4 KB are allowed"):
        encoded([heavy], replace(webp, most=4_000))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"most": 10}, "0 KB are allowed"),
        ({"side": 100}, "where 100 are wanted"),
        ({"suffix": ".webp"}, "kind png"),
        ({"ground": "#fff"}, "clear True"),
    ],
)
def test_a_file_that_is_something_else_is_found_out(change: dict, said: str) -> None:
    form = Form(".png", 64)
    data = encoded([thing()], form)
    assert check(data, form) == (64, 64)
    with pytest.raises(BadInput, match=said):
        check(data, replace(form, **change))


def test_an_outline_is_white_and_as_wide_as_asked() -> None:
    picture = Image.new("RGBA", (64, 64))
    picture.paste((200, 30, 30, 255), (24, 24, 40, 40))
    drawn = np.asarray(outlined(picture, 5))
    assert drawn[32, 30].tolist() == [200, 30, 30, 255] and drawn[32, 22].tolist() == [255] * 4
    assert drawn[32, 19].tolist()[3] == 255 and drawn[32, 17].tolist()[3] == 0  # 24 - 5
    assert drawn[20, 20, 3] == 0 or drawn[20, 20, 3] < 128  # round at the corner: 5.7 pixels away


def test_resizing_brings_no_hidden_colour_out() -> None:
    """Clear places are green here, and no edge becomes green."""
    picture = Image.new("RGBA", (32, 32), (0, 255, 0, 0))
    picture.paste((200, 30, 30, 255), (8, 8, 24, 24))
    large = np.asarray(framed(picture, (0, 0, 32, 32), Form(".png", 100)))
    assert large[large[..., 3] > 16][:, 1].max() < 60
