"""A sheet: one run at every place of two axes, and one picture of them all with their labels."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pipelines.core.generators import mapped
from pipelines.core.pipeline import Picture, Pipeline, Step
from pipelines.core.settings import Cell, Settings
from pipelines.errors import BadInput
from pipelines.io.images import as_seen, on_white

LARGEST_CELL = 256  # pixels; larger pictures are made smaller on the sheet
GAP = 8  # pixels between pictures
PAPER, INK = "white", "#222222"
FONTS = (  # that hold more than Latin letters, where a system has one of them
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/opentype/noto/NotoSerifCJK-Bold.ttc",
    "/System/Library/Fonts/PingFang.ttc",
    "C:/Windows/Fonts/msyh.ttc",
)


def draw_sheet(pipeline: Pipeline[Any], settings: Settings) -> Generator[Step, None, list[Picture]]:
    """Run every cell of a sheet, row by row.

    Yields the Steps of all runs, counted through. Returns the sheet's own picture, then the best picture of each cell,
    with the settings and models that draw it again alone. BadInput when models are an axis and the pipeline has none but
    its own, or when a cell gives no picture.
    """
    cells, drawn = settings.cells(), list[Picture]()
    uses = {tuple(cell.use.items()): cell for cell in cells}  # each is loaded once, before the first run
    pipelines = {use: _pipeline_of(pipeline, cell) for use, cell in uses.items()}
    for number, cell in enumerate(cells):
        own, models = pipelines[tuple(cell.use.items())]
        prepared = own.prepare(cell.settings)
        pictures = yield from _counted(own(prepared), number, len(cells))
        if not pictures:
            raise BadInput("core.nothing_to_compare")
        best = pictures[0]
        drawn.append(replace(best, settings=best.settings or prepared, models=best.models or models))
    columns, rows = (axis.labels() if axis else [""] for axis in settings.axes())
    facts = {"sheet": {"columns": columns, "rows": rows}}
    image = sheet_of([picture.image for picture in drawn], columns, rows)
    return [Picture(image, settings.seed, facts=facts), *drawn]


def _pipeline_of(
    pipeline: Pipeline[Any], cell: Cell[Any]
) -> tuple[Pipeline[Any], dict[str, dict[str, str]] | None]:
    if not cell.use:
        return pipeline, None
    if pipeline.with_models is None:
        raise BadInput("core.axis_models", parts=", ".join(cell.use))
    return pipeline.with_models(cell.use)


def _counted(
    events: Generator[Step, None, list[Picture]], number: int, count: int
) -> Generator[Step, None, list[Picture]]:
    """The Steps of run `number` (from 0) of `count`, as steps of all runs."""
    return mapped(
        events,
        lambda step: replace(step, done=number * step.total + step.done, total=count * step.total),
    )


def sheet_of(pictures: Sequence[Image.Image], columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """Pictures, row by row, on white with the labels of columns above and of rows at the left."""
    width = min(LARGEST_CELL, max(picture.width for picture in pictures))
    height = min(LARGEST_CELL, max(picture.height for picture in pictures))
    size = max(11, min(width, height) // 9)
    head = size + 2 * GAP if any(columns) else GAP
    fonts = [_font(label, size) for label in rows]
    longest = max(font.getlength(label) for font, label in zip(fonts, rows, strict=True))
    side = GAP if not any(rows) else min(int(longest), width) + 2 * GAP
    across, down = len(columns), len(rows)
    sheet = Image.new("RGB", (side + across * (width + GAP), head + down * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for k, label in enumerate(columns):
        middle = side + k * (width + GAP) + width / 2
        write_label(pen, (middle, head / 2), label, size, width, "mm")
    for k, label in enumerate(rows):
        write_label(pen, (GAP, head + k * (height + GAP) + height / 2), label, size, side - 2 * GAP, "lm")
    for k, picture in enumerate(pictures):
        row, column = divmod(k, across)
        shown = on_white(as_seen(picture)).copy()
        shown.thumbnail((width, height), Image.Resampling.LANCZOS)
        left = side + column * (width + GAP) + (width - shown.width) // 2
        sheet.paste(shown, (left, head + row * (height + GAP) + (height - shown.height) // 2))
    return sheet


def write_label(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], label: str, size: int, room: float, anchor: str
) -> None:
    """A label at a place; it is cut to the room with an ellipsis."""
    font = _font(label, size)
    if font.getlength(label) > room:
        while label and font.getlength(label + "…") > room:
            label = label[:-1]
        label += "…"
    pen.text(at, label, INK, font, anchor)


def _font(label: str, size: int) -> Any:
    """A font that has the letters of a label, as far as this system has one."""
    if not label.isascii():
        for path in FONTS:
            if Path(path).is_file():
                return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)
