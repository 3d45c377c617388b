"""The data file in memory: open-licensed emoji art, rendered once into one file. `data.cli` builds it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.training.data.icons import SIZE, VALIDATION_STYLE, Icon, concept

DATA_FILE = Path("data/emoji.safetensors")


class Dataset:
    """The data file in memory: `icons[k]` says what `rgba[k]` (size, size, 4) uint8 shows.

    `size` below 128 halves by area averaging, which is how CLIP sees the pictures.
    """

    def __init__(self, path: Path = DATA_FILE, size: int = SIZE):
        from safetensors import safe_open

        if not path.exists():
            raise FileNotFoundError(f"{path} is not there; build it with: python launch.py data")
        with safe_open(path, "np") as file:
            webp, offset = file.get_tensor("webp"), file.get_tensor("offset")
            facts = file.metadata()
        records = json.loads(facts["icons"])
        self.icons = [Icon(r[0], r[1], tuple(r[2]), r[3], tuple(r[4]), tuple(r[5])) for r in records]
        self.phrases = facts["phrases"].split("\n")
        self.hash = hashlib.sha256(webp.tobytes() + facts["icons"].encode()).hexdigest()[:16]
        self.rgba = np.empty((len(self.icons), size, size, 4), np.uint8)
        for k in range(len(self.icons)):
            picture = Image.open(
                io.BytesIO(webp[offset[k] : offset[k + 1]].tobytes()), formats=["WEBP"]
            ).convert("RGBA")
            # reduce() on premultiplied alpha, so that transparent black does not darken the edges
            if size != SIZE:
                picture = picture.convert("RGBa").reduce(SIZE // size).convert("RGBA")
            self.rgba[k] = np.asarray(picture)
        self.train = np.array([k for k, icon in enumerate(self.icons) if icon.style != VALIDATION_STYLE])
        self.validation = np.array([k for k, icon in enumerate(self.icons) if icon.style == VALIDATION_STYLE])


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
