"""Some held-out icons as they are drawn at larger sizes, which only measure how well pictures are enlarged."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.training.data.dataset import data_bytes
from pipelines.training.data.icons import SIZE, render

LARGER_NAME = "larger.safetensors"  # beside the data file
SIDES = (SIZE, 256, 512)  # pixels
COUNT = 60


def write_larger(path: Path, drawings: Sequence[str]) -> int:
    """About COUNT of the drawings, evenly chosen, at every one of SIDES. Returns how many there are."""
    rendered = [[render(svg, side) for side in SIDES] for svg in drawings[:: -(-len(drawings) // COUNT)]]
    blobs = [blob for row in rendered if None not in row for blob in row if blob is not None]
    write_atomically(path, data_bytes(blobs, ()))
    return len(blobs) // len(SIDES)


def read_larger(path: Path) -> list[dict[int, Image.Image]]:
    """Side in pixels -> RGBA picture, for each icon of a file that `write_larger` wrote. BadInput for any other file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        webp, offset = tensors["webp"], tensors["offset"]
        pictures = [
            Image.open(io.BytesIO(webp[start:end].tobytes()), formats=["WEBP"]).convert("RGBA")
            for start, end in pairwise(offset)
        ]
        starts = range(0, len(pictures), len(SIDES))
        return [dict(zip(SIDES, pictures[start : start + len(SIDES)], strict=True)) for start in starts]
    except (SafetensorError, LookupError, OSError, ValueError) as error:
        raise BadInput("training.data_strange", file=path) from error
