"""Captioned pictures in memory, from one file: the emoji that `data.cli` builds, or a folder that `data.folder` read."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.errors import BadInput
from pipelines.training.data.icons import ICON_SETS, SIZE, VALIDATION_STYLE, Icon, concept

DATA_FILE = Path("data/emoji.safetensors")
OPAQUE = 250  # least opacity, of 255, of every pixel of a picture that fills its square


class Pictures:
    """Captioned pictures of a user in memory: `icons[k]` says what `rgba[k]` (size, size, 4) uint8 shows.

    `train` are the indices of those that are learned from.
    """

    def __init__(self, icons: list[Icon], rgba: np.ndarray):
        self.icons, self.rgba, self.train = icons, rgba, np.arange(len(icons))

    @property
    def of_things(self) -> bool:
        """Whether captions are names of single things cut out, which make scenes; else they are a user's own sentences."""
        return False

    @cached_property
    def opaque(self) -> np.ndarray:
        """(pictures,) bool: those of a user that fill their square, such as photographs."""
        if self.of_things:
            return np.zeros(len(self.icons), bool)
        return self.rgba[..., 3].min((1, 2)) >= OPAQUE


class Dataset(Pictures):
    """The data file in memory.

    `size` below 128 halves by area averaging, which is how CLIP sees the pictures. `train` and `validation` are indices.
    A file that does not say which pictures are held out holds out those of VALIDATION_STYLE.
    """

    def __init__(self, path: Path = DATA_FILE, size: int = SIZE):
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            raise FileNotFoundError(f"{path} is not there; build it with: python launch.py data")
        if path.is_dir():
            raise BadInput("training.data_is_folder", folder=path)
        try:
            with safe_open(path, "np") as file:
                webp, offset = file.get_tensor("webp"), file.get_tensor("offset")
                held_out = file.get_tensor("held_out") if "held_out" in file.keys() else None  # noqa: SIM118
                facts = file.metadata()
            records = json.loads(facts["icons"])
        except (SafetensorError, OSError, TypeError, LookupError, ValueError) as error:
            raise BadInput("training.data_strange", file=path) from error
        icons = [Icon(r[0], r[1], tuple(r[2]), r[3], tuple(r[4]), tuple(r[5])) for r in records]
        super().__init__(icons, np.empty((len(icons), size, size, 4), np.uint8))
        self.phrases = [phrase for phrase in facts["phrases"].split("\n") if phrase]
        self.licence = facts.get("licence", "")
        self.hash = hashlib.sha256(webp.tobytes() + facts["icons"].encode()).hexdigest()[:16]
        for k in range(len(self.icons)):
            picture = Image.open(io.BytesIO(webp[offset[k] : offset[k + 1]].tobytes()), formats=["WEBP"])
            self.rgba[k] = pixels_of(picture, size)
        if held_out is None:
            held_out = np.array([icon.style == VALIDATION_STYLE for icon in self.icons])
        self.train = np.flatnonzero(held_out == 0)
        self.validation = np.flatnonzero(held_out)

    @property
    def of_things(self) -> bool:
        return any(self.icons[k].style for k in self.train)

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles that a network may be told. Pictures of users have none."""
        return tuple(name for name in ICON_SETS if name != VALIDATION_STYLE) if self.of_things else ()


def pixels_of(picture: Image.Image, size: int) -> np.ndarray:
    """A picture of SIZE x SIZE as (size, size, 4) uint8."""
    picture = picture.convert("RGBA")
    if size != SIZE:  # on premultiplied alpha, so that transparent black does not darken the edges
        picture = picture.convert("RGBa").reduce(SIZE // size).convert("RGBA")
    return np.asarray(picture)


def data_bytes(
    webp: Sequence[bytes],
    icons: Sequence[Icon],
    phrases: Sequence[str] = (),
    held_out: np.ndarray | None = None,
    licence: str = "",
) -> bytes:
    """A data file as `Dataset` reads it: lossless WebP of SIZE x SIZE RGBA, what each shows, and who is held out."""
    from safetensors.numpy import save

    tensors: dict[str, Any] = {
        "webp": np.frombuffer(b"".join(webp), np.uint8),
        "offset": np.cumsum([0] + [len(blob) for blob in webp]).astype(np.int64),
    }
    if held_out is not None:
        tensors["held_out"] = held_out.astype(np.uint8)
    records = [list(vars(icon).values()) for icon in icons]
    facts = {"icons": json.dumps(records, ensure_ascii=False), "phrases": "\n".join(phrases)}
    return save(tensors, facts | ({"licence": licence} if licence else {}))


def on_background(
    rgba: np.ndarray, colour: tuple[int, int, int] | np.ndarray = (255, 255, 255)
) -> np.ndarray:
    """(..., h, w, 4) uint8 -> (..., h, w, 3) uint8 over one colour."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blend = rgba[..., :3] * alpha + np.asarray(colour, np.uint16) * (255 - alpha)
    return ((blend + 127) // 255).astype(np.uint8)


def icon_weights(emoji: Dataset, rare: float) -> np.ndarray:
    """How often each training icon is drawn, (icons,) with the sum 1; `rare` of the others where under three styles know
    the thing, which few people type."""
    icons = [emoji.icons[k] for k in emoji.train]
    styles: dict[str, set[str]] = {}
    for icon in icons:
        styles.setdefault(concept(icon), set()).add(icon.style)
    weights = np.array([1.0 if len(styles[concept(icon)]) >= 3 else rare for icon in icons])
    return weights / weights.sum()
