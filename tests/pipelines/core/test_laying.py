"""What pictures of single things give on one canvas: beside one another, upon one another, and cut out of their paper."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines.core.laying import laid
from pipelines.core.regions import read_regions

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def drawing(colour: tuple[int, int, int], box: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (100, 100), WHITE)
    ImageDraw.Draw(picture).rectangle(box, fill=colour)
    return picture


def where(canvas: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has about this colour."""
    near = np.abs(np.asarray(canvas, int) - colour).sum(2) < 60
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


FACE = drawing(RED, (10, 20, 89, 99))  # 80 wide, 80 high


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ("face @ fill | hat @ on", (28, 0, 72, 37)),  # lower than the canvas's top, so smaller
        ("face @ low | hat @ on", (30, 18, 70, 51)),
        ("face @ fill | hat @ eyes", (20, 33, 80, 83)),
    ],
)
def test_what_is_upon_a_thing_fits_it(regions: str, expected: tuple[int, int, int, int]) -> None:
    hat = drawing(BLUE, (30, 40, 89, 89))  # 60 wide, 50 high, anywhere on its paper
    (canvas,) = laid(read_regions(regions), {"face": [FACE], "hat": [hat]}, (100, 100))
    assert np.abs(np.subtract(where(canvas, BLUE), expected)).max() <= 3


def test_paper_is_cut_off_what_is_upon_a_thing_and_kept_inside_it() -> None:
    ring = drawing(BLUE, (20, 20, 79, 79))
    ImageDraw.Draw(ring).rectangle((40, 40, 59, 59), fill=WHITE)
    (canvas,) = laid(read_regions("face @ fill | ring @ eyes"), {"face": [FACE], "ring": [ring]}, (100, 100))
    left, top, right, bottom = where(canvas, BLUE)
    assert canvas.getpixel(((left + right) // 2, (top + bottom) // 2)) == WHITE
    assert canvas.getpixel((left - 3, (top + bottom) // 2)) == RED  # no white edge around it


def test_rows_are_laid_by_themselves_and_an_empty_picture_lies_nowhere() -> None:
    empty = Image.new("RGB", (100, 100), WHITE)
    hats = [drawing(BLUE, (20, 20, 79, 79)), empty]
    first, second = laid(
        read_regions("face @ low | hat @ on"), {"face": [FACE, FACE], "hat": hats}, (100, 100)
    )
    (alone,) = laid(read_regions("face @ low"), {"face": [FACE]}, (100, 100))
    assert where(first, BLUE) and second.tobytes() == alone.tobytes() != first.tobytes()
