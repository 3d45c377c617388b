"""Plots and sheets of studies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

INK, FAINT, PAPER = "#1E1B16", "#D8D2C6", "#FAF8F4"
COLOURS = ("#D9432F", "#2E6ED6", "#2F8F4E", "#8A4BB8", "#B87A12", "#5B5B60")
LABEL_WIDTH = 70


def labelled(grid: Image.Image, names: Sequence[str]) -> Image.Image:
    """A grid of pictures with a name at the left of each of its rows, which are equally high."""
    picture = Image.new("RGB", (grid.width + LABEL_WIDTH, grid.height), "white")
    picture.paste(grid, (LABEL_WIDTH, 0))
    pen, high = ImageDraw.Draw(picture), grid.height / len(names)
    for row, name in enumerate(names):
        pen.text((6, (row + 0.5) * high - 6), name, fill=INK)
    return picture


def plot_lines(
    lines: dict[str, list[tuple[float, float]]],
    across: str,
    up: str,
    width: int = 760,
    height: int = 460,
) -> Image.Image:
    """Lines of (x, y) points by name, x > 0 on a logarithmic axis, y from 0; `across` and `up` say what they are."""
    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    points = [point for line in lines.values() for point in line if point[0] > 0]
    lo, hi = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    top = max(0.01, max(y for _, y in points)) * 1.08
    left, right, above, below = 64, width - 16, 40, height - 46

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(x) - lo) / ((hi - lo) or 1)
        return left + share * (right - left), below - y / top * (below - above)

    for power in range(math.ceil(lo), math.floor(hi) + 1):
        for factor in (1, 2, 5):
            if lo <= math.log10(factor * 10**power) <= hi:
                x, _ = place(factor * 10**power, 0)
                pen.line([(x, above), (x, below)], fill=FAINT)
                pen.text((x - 12, below + 6), f"{factor * 10**power:,}", fill=INK)
    for k in range(6):
        _, y = place(points[0][0], top * k / 5)
        pen.line([(left, y), (right, y)], fill=FAINT)
        pen.text((8, y - 6), f"{top * k / 5:.2f}", fill=INK)
    pen.text((left, below + 24), across, fill=INK)
    pen.text((8, 8), up, fill=INK)
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(x, y) for x, y in line if x > 0]
        if len(places) > 1:
            pen.line(places, fill=colour, width=3)
        for x, y in places:
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
        pen.text((left + 12, above + 8 + 16 * number), name, fill=colour)
    return picture
