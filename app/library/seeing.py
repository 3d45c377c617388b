"""What CLIP is shown of a picture, what it says to it, and which CLIP it is."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from app.jobs.threads import run_in_own_thread
from pipelines.io.images import fit_square, on_white, open_picture, to_tensor

SIDE = 224  # pixels; what CLIP is shown of a picture
LOOK = 6  # cells a side of a picture's look


class ClipLike(Protocol):
    """What the library needs of CLIP: unit vectors of texts and pictures."""

    def encode_text(self, prompts: list[str]) -> Tensor: ...

    def encode_image(self, images: Tensor) -> Tensor: ...


def as_shown(source: str | Path) -> Image.Image:
    """A picture, by its path or data URI, as CLIP is shown it: its middle, small. BadInput when it cannot be opened."""
    return shown(open_picture(source))


def shown(picture: Image.Image) -> Image.Image:
    """A picture as CLIP is shown it."""
    return fit_square(on_white(picture), SIDE)


@torch.no_grad()
def vectors_of(clip: ClipLike, pictures: list[Image.Image]) -> Tensor:
    """(n, d) unit vectors of pictures as CLIP is shown them."""
    return clip.encode_image(to_tensor(pictures).to(_device(clip)))


def picture_vectors(clip: ClipLike, pictures: list[Image.Image]) -> np.ndarray:
    """(n, d) float32 unit vectors, computed in this thread. What is no number becomes a direction of its own."""
    vectors = vectors_of(clip, pictures).float().cpu().numpy()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    none = ~(np.isfinite(lengths) & (lengths > 0))[:, 0]
    vectors[none] = np.eye(1, vectors.shape[1])
    return vectors / np.where(none[:, None], 1, lengths)


@run_in_own_thread
@torch.no_grad()
def query_vectors(clip: ClipLike, texts: Sequence[str], pictures: Sequence[Image.Image]) -> np.ndarray:
    """(texts + pictures, d) float32 unit vectors."""
    parts: list[np.ndarray] = []
    if texts:
        parts.append(clip.encode_text(list(texts)).float().cpu().numpy())
    if pictures:
        parts.append(picture_vectors(clip, list(pictures)))
    return np.concatenate(parts)


_marks: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def fingerprint(clip: ClipLike) -> str:
    """Tells one CLIP's vectors from another's, by what it makes of a fixed picture. Asked once of each."""
    try:
        if (mark := _marks.get(clip)) is None:
            mark = _marks[clip] = _fingerprint(clip)
    except TypeError:  # one that cannot be a key
        mark = _fingerprint(clip)
    return mark


@run_in_own_thread
@torch.no_grad()
def _fingerprint(clip: ClipLike) -> str:
    slope = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    vector = clip.encode_image(torch.cat([slope, -slope.mT]).to(_device(clip))).float().cpu().numpy()
    rounded = np.round(vector, 2).astype(np.float32).tobytes()
    return hashlib.sha256(rounded + str(vector.shape).encode()).hexdigest()[:16]


def _device(clip: ClipLike) -> torch.device:
    """Where a CLIP's weights are; the CPU when it has none."""
    if isinstance(clip, nn.Module):
        return next((parameter.device for parameter in clip.parameters()), torch.device("cpu"))
    return torch.device("cpu")


def look_of(picture: Image.Image) -> bytes:
    """How a picture looks, LOOK x LOOK cells of red, green and blue: the same picture in another size looks the same."""
    cells = on_white(picture).resize((LOOK, LOOK), Image.Resampling.BOX)
    return np.asarray(cells, dtype=np.uint8).tobytes()
