"""Folders and lists of pictures: which files count as pictures, in which order, and which one is bad."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from pipelines.errors import BadInput, one_line
from pipelines.io.images import URI_HEAD, open_picture

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
NAMED = ("io.picture_missing", "io.picture_unreadable", "io.picture_not_given")  # say which file it is


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder by their names' endings, in the natural order of their names: 2 before 10.

    Hidden files are skipped, such as the "._1.png" that a Mac writes beside a 1.png on other systems' disks. OSError
    when the folder cannot be read.
    """
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(paths, key=_natural_order)


def open_one_of(source: str | Path) -> Image.Image:
    """`open_picture` for one of several: its BadInput names the file."""
    try:
        return open_picture(source)
    except BadInput as error:
        if error.code in NAMED or str(source)[: len(URI_HEAD)].lower() == URI_HEAD:
            raise
        raise BadInput("io.picture_of_folder", file=one_line(Path(source).name), problem=error) from None


def _natural_order(path: Path) -> tuple[list[int | str], str]:
    """A sorting key by which numbers in names count as numbers."""
    parts = re.split(r"(\d+)", path.name)  # text and digits in turn
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], path.name
