"""Small pictures for the wall: WebP, made once, kept by the content of the picture's file."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from PIL import Image

from pipelines.io.files import cannot_save
from pipelines.io.images import on_white

THUMBNAIL = 320  # pixels of the longer side
QUALITY = 80


def thumbnail_file(folder: Path, content: bytes) -> Path:
    """Where the thumbnail of a content lies."""
    name = content.hex()
    return folder / name[:2] / f"{name}.webp"


def small(picture: Image.Image) -> bytes:
    """The WebP of a picture, at most THUMBNAIL pixels a side."""
    image = on_white(picture)
    share = THUMBNAIL / max(image.size)
    if share < 1:
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(size, Image.Resampling.BOX if share < 0.2 else Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()


def write_thumbnail(file: Path, data: bytes) -> None:
    """Write one, whole or not at all. Not waited for to be on the disk: it can be made again. CannotSave otherwise."""
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
        os.replace(temporary, file)
    except OSError as problem:
        raise cannot_save(file, problem) from problem
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def is_whole(file: Path) -> bool:
    """Whether a thumbnail is there and was written to its end, which a power cut may prevent."""
    try:
        with file.open("rb") as opened:
            head = opened.read(12)
            size = os.fstat(opened.fileno()).st_size
    except OSError:
        return False
    return head[:4] == b"RIFF" and head[8:] == b"WEBP" and int.from_bytes(head[4:8], "little") + 8 <= size


def clear(folder: Path, kept: Collection[str]) -> int:
    """Delete thumbnails of contents (as hex) that are not to be kept, and what was left half. Returns how many."""
    count = 0
    for file in folder.glob("*/*"):
        if file.suffix == ".webp" and file.stem in kept:
            continue
        with suppress(OSError):
            file.unlink()
            count += 1
    return count
