"""Masks as programs write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadInput
from pipelines.io.masks import read_mask

SIZE = (8, 6)
LEFT = np.repeat([[True] * 4 + [False] * 4], 6, 0)


def seen(picture: Image.Image, folder: Path) -> list[bool]:
    """Where a mask of this picture lets change happen, pixel by pixel."""
    picture.save(folder / "mask.png")
    mask = read_mask(str(folder / "mask.png"), SIZE, None)
    return [level > 127 for level in mask.getchannel("R").tobytes()]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_the_left_half_is_the_left_half_in_any_mode(mode: str, tmp_path: Path) -> None:
    levels = np.where(LEFT, 255, 0).astype(np.uint8)
    grey = Image.fromarray(levels)
    picture = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    assert seen(picture, tmp_path) == list(LEFT.ravel())


@pytest.mark.parametrize(("clear", "by_opacity"), [(0, True), (252, False)])
def test_opacity_is_a_mask_where_some_of_it_is_clear(clear: int, by_opacity: bool, tmp_path: Path) -> None:
    """Opacity that hardly varies, as programs round it, is none: then brightness counts."""
    levels = np.zeros((6, 8, 4), np.uint8)
    levels[..., 3] = np.where(LEFT, 255, clear)
    levels[:, 4:, :3] = 255
    assert seen(Image.fromarray(levels), tmp_path) == list((LEFT if by_opacity else ~LEFT).ravel())


def test_a_mask_of_the_darkest_levels_is_black(tmp_path: Path) -> None:
    Image.new("RGB", SIZE, (1, 1, 1)).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match="black everywhere"):
        read_mask(str(tmp_path / "a.png"), SIZE, None)
