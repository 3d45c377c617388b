"""Pictures to take away: a zip with the files as they are, contact sheets of them, and a list with their prompts."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from PIL import Image, ImageDraw, ImageFont

from app.library.entry import Entry
from pipelines.errors import BadInput
from pipelines.io.files import cannot_save
from pipelines.io.images import on_white, open_picture

CELL = 160  # pixels of a picture on the sheet, at most, each side
LABEL = 18  # pixels below it
COLUMNS = 8
ROWS = 12  # of one sheet; more pictures get more sheets
MOST_BYTES = 2_000_000_000  # of the pictures of one zip
ZIP_SECONDS, KEPT_ZIPS = 3600, 4  # for how long a zip is kept in the library, and how many are
HEAD = ("number", "file", "tool", "prompt", "seed", "star", "tags", "note")


def write_zip(file: Path, entries: Sequence[Entry]) -> None:
    """Write a zip of pictures to a file, as it grows. CannotSave when the disk is full; no half of it remains.

    The pictures are stored as they are, records inside. `contact-sheet-1.jpg` shows them with their numbers, and
    `pictures.csv` lists them.
    """
    size = sum(entry.path.stat().st_size for entry in entries if entry.path.is_file())
    if size > MOST_BYTES:
        raise BadInput("library.zip_too_large", megabytes=size / 1e6, most=MOST_BYTES / 1e6)
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A zip knows no time before 1980 or after 2107; the nearest one is taken.
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            names = _names(entries)
            for entry, name in zip(entries, names, strict=True):
                with suppress(FileNotFoundError):  # deleted just now
                    archive.write(entry.path, name)
            for number, sheet in enumerate(contact_sheets(entries), start=1):
                buffer = io.BytesIO()
                sheet.save(buffer, "JPEG", quality=88)
                archive.writestr(f"contact-sheet-{number}.jpg", buffer.getvalue())
            archive.writestr("pictures.csv", _list(entries, names), zipfile.ZIP_DEFLATED)
        part.replace(file)
    except OSError as problem:
        raise cannot_save(file, problem) from problem
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def forget_zips(folder: Path) -> None:
    """Delete the zips of a folder that are older than ZIP_SECONDS, and the oldest until there is room for one more."""
    found: list[tuple[float, Path]] = []
    for file in folder.glob("*.zip"):
        with suppress(OSError):
            found.append((file.stat().st_mtime, file))
    for number, (changed, file) in enumerate(sorted(found, reverse=True), start=1):
        if number >= KEPT_ZIPS or abs(time.time() - changed) > ZIP_SECONDS:
            with suppress(OSError):
                file.unlink()


def contact_sheets(entries: Sequence[Entry]) -> Iterator[Image.Image]:
    """Sheets of COLUMNS x ROWS small pictures with their numbers, from 1 on; those that cannot be opened stay empty."""
    font = ImageFont.load_default(size=12)
    per_sheet = COLUMNS * ROWS
    for start in range(0, len(entries), per_sheet):
        part = entries[start : start + per_sheet]
        columns = min(COLUMNS, len(part))
        rows = -(-len(part) // COLUMNS)
        sheet = Image.new("RGB", (columns * (CELL + 8) + 8, rows * (CELL + LABEL + 8) + 8), "white")
        draw = ImageDraw.Draw(sheet)
        for k, entry in enumerate(part):
            left, top = 8 + k % COLUMNS * (CELL + 8), 8 + k // COLUMNS * (CELL + LABEL + 8)
            with suppress(BadInput):
                picture = on_white(open_picture(entry.path))
                picture.thumbnail((CELL, CELL), Image.Resampling.BICUBIC)
                sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
            draw.text((left, top + CELL + 2), str(start + k + 1), fill="black", font=font)
        yield sheet


def _names(entries: Sequence[Entry]) -> list[str]:
    """A name in the zip for each picture: its own, with a number where two have the same. Never a path."""
    taken: set[str] = set()
    names: list[str] = []
    for entry in entries:
        path = PurePosixPath(entry.id)
        name, number = path.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem} ({number}){path.suffix}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _list(entries: Sequence[Entry], names: Sequence[str]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(HEAD)
    for number, (entry, name) in enumerate(zip(entries, names, strict=True), start=1):
        marks = entry.marks
        cells = [name, entry.tool, entry.prompt, "" if entry.seed is None else str(entry.seed)]
        cells += ["yes" if marks.star else "", ", ".join(marks.tags), marks.note]
        writer.writerow([number, *(_plain(cell) for cell in cells)])
    return "\ufeff" + table.getvalue()  # by which spreadsheets know UTF-8


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + cell if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
