"""Pictures as CLIP is shown them here: whole, on a square; many of them in batches, with broken ones listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.core.pipeline import Step
from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.io.folders import picture_files
from pipelines.io.images import on_white, open_picture, to_tensor
from pipelines.models.base import Clip

SIDE = 512  # pixels of the longer side; larger pictures are made smaller first
BATCH = 32  # pictures that CLIP sees at a time
Progress = Callable[[Step], None]


def quiet(step: Step) -> None:
    """A Progress that tells nobody."""


def on_square(image: Image.Image) -> Image.Image:
    """The whole picture in the middle of a square, RGB, at most SIDE pixels wide.

    The bars beside it have the median colour of its border, so that nothing of the picture is cut off.
    """
    image = on_white(image)
    if max(image.size) > SIDE:
        share = SIDE / max(image.size)
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    if image.width == image.height:
        return image
    levels = np.asarray(image)
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    red, green, blue = (int(level) for level in np.median(border, axis=0))
    side = max(image.size)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def open_square(source: str | Path | bytes) -> Image.Image:
    """A picture by its path, data URI or bytes, as `on_square` shows it. BadInput when it cannot be opened."""
    return on_square(open_picture(source))


@torch.no_grad()
def encode(clip: Clip, images: Sequence[Image.Image]) -> Tensor:
    """Square pictures -> (n, d) vectors of unit length. Neighbours of one size are encoded together."""
    parts: list[Tensor] = []
    start = 0
    while start < len(images):
        end = start + 1
        while end < min(len(images), start + BATCH) and images[end].size == images[start].size:
            end += 1
        parts.append(clip.encode_image(to_tensor(list(images[start:end])).to(clip.device)))
        start = end
    return torch.cat(parts) if parts else torch.zeros(0, clip.config.embedding_size, device=clip.device)


@dataclass(frozen=True)
class Seen:
    """What was seen of many pictures. `vectors` (n, d) have unit length; those that are `broken` could not be opened."""

    sources: list[str]
    vectors: Tensor
    broken: list[tuple[str, BadInput]]

    def place(self) -> dict[str, int]:
        """Each source's row of `vectors`."""
        return {source: row for row, source in enumerate(self.sources)}


def see_all(clip: Clip, sources: Sequence[str | Path], progress: Progress = quiet) -> Seen:
    """Encode pictures by their paths or data URIs, a batch at a time. BadInput when none of them can be opened."""
    kept: list[str] = []
    parts: list[Tensor] = []
    broken: list[tuple[str, BadInput]] = []
    for start in range(0, len(sources), BATCH):
        images: list[Image.Image] = []
        for source in sources[start : start + BATCH]:
            try:
                images.append(open_square(source))
                kept.append(str(source))
            except BadInput as problem:
                broken.append((str(source), problem))
        parts.append(encode(clip, images))
        progress(Step("see", min(start + BATCH, len(sources)), len(sources)))
    if not kept:
        raise broken[0][1] if len(broken) == 1 else BadInput("see.no_pictures", count=len(broken))
    return Seen(kept, torch.cat(parts), broken)


def pictures_below(folder: str | Path) -> list[Path]:
    """The pictures in a folder and in those within it; of these, one that may not be read is passed over.

    BadInput when it is no folder or holds none.
    """
    path = home_path(folder)
    try:
        files = picture_files(path)
        inside = [each for each in path.rglob("*") if each.is_dir() and not each.name.startswith(".")]
    except OSError:
        raise BadInput("see.folder_missing", folder=str(folder)[:80]) from None
    for each in sorted(inside):
        with suppress(OSError):
            files += picture_files(each)
    if not files:
        raise BadInput("see.folder_without_pictures", folder=str(folder)[:80])
    return files
