"""What See promises is measured right: by a CLIP that sees colours, on icons of one colour each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from pipelines.evaluation.see import composites, pointing, probes, wordings
from pipelines.training.data.icons import VALIDATION_STYLE, Icon
from tests.support.painter import PainterClip

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
STYLES = ("noto", "twemoji", VALIDATION_STYLE)


def coloured() -> Any:
    """Three things in three styles, discs of 128 pixels."""
    y, x = np.mgrid[:128, :128]
    disc = ((x - 63.5) ** 2 + (y - 63.5) ** 2 < 50**2)[..., None]
    icons = [Icon(style, name, chinese=f"{name}色") for style in STYLES for name in COLOURS]
    rgba = np.stack([disc * np.array([*COLOURS[icon.name], 255]) for icon in icons]).astype(np.uint8)
    places = np.arange(len(icons))
    validation = np.array([icon.style == VALIDATION_STYLE for icon in icons])
    return SimpleNamespace(icons=icons, rgba=rgba, train=places[~validation], validation=places[validation])


def test_composites_are_where_their_boxes_say() -> None:
    for composite in composites(coloured(), 6):
        for name, (left, top, right, bottom) in zip(composite.names, composite.boxes, strict=True):
            x, y = int(64 * (left + right)), int(64 * (top + bottom))
            colour = (composite.picture[0, :, y, x] > 0).tolist()
            assert colour == [each == name for each in COLOURS]
            assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    one, again = (composites(coloured(), 6, seed)[0].names for seed in (0, 0))
    assert one == again


def test_each_promise_is_measured() -> None:
    clip, emoji = PainterClip(), coloured()
    assert pointing(clip, emoji, 6) == {"peaks inside the named icon of two": 1.0}
    assert set(wordings(clip, emoji).values()) == {1.0} and len(wordings(clip, emoji)) == 4
    figures = probes(clip, emoji, 3)
    assert list(figures.values()) == [1.0, 1.0, 1.0] and "3 labels, taught by 5" in next(iter(figures))
    emoji.icons = [
        Icon(icon.style, {"red": "blue", "blue": "red"}.get(icon.name, icon.name)) for icon in emoji.icons
    ]
    assert (
        pointing(clip, emoji, 6)["peaks inside the named icon of two"] < 0.7
    )  # wrong names are found elsewhere
