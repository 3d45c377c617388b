"""The pack's few hundred pictures from which Edit learns reusable directions, and their cosines with texts."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.images import DAMAGED
from pipelines.io.values import is_list
from pipelines.models.base import Clip
from pipelines.models.typed import integers

CHUNK = 64  # pictures that CLIP sees at a time


@dataclass(eq=False)
class SourceImages:
    """`pictures`, (n, 3, s, s) uint8, their n `names`, and a cache of each CLIP's vectors of them."""

    pictures: Tensor
    names: list[str]
    _seen: WeakKeyDictionary[Clip, Tensor] = field(
        default_factory=WeakKeyDictionary[Clip, Tensor], init=False, repr=False
    )

    @classmethod
    def load(cls, path: Path) -> SourceImages:
        """Read a file that `launch.py data` wrote. BadInput when it is missing or damaged."""
        if not path.is_file():
            raise BadInput("edit.source_images_missing", file=path.name)
        try:
            with cast(Any, safe_open(path, "np")) as file:
                metadata: dict[str, str] = file.metadata() or {}
                webp: np.ndarray = file.get_tensor("webp")
                offset: np.ndarray = file.get_tensor("offset")
            config, facts = json.loads(metadata["config"]), json.loads(metadata["facts"])
            size, count, names = config["image_size"], config["count"], facts["names"]
            _check(size, count, names, webp, offset)
            pictures = np.stack(
                [
                    _decoded(webp[a:b].tobytes(), size)
                    for a, b in zip(offset[:-1].tolist(), offset[1:].tolist(), strict=True)
                ]
            )
        except (SafetensorError, Image.DecompressionBombError, *DAMAGED) as error:
            raise BadInput("edit.source_images_damaged", file=path.name, reason=error) from error
        return cls(torch.as_tensor(pictures).permute(0, 3, 1, 2).contiguous(), names)

    @classmethod
    def none(cls) -> SourceImages:
        """An empty set, for packs without pictures."""
        return cls(torch.empty(0, 3, 8, 8, dtype=torch.uint8), [])

    def __len__(self) -> int:
        return len(self.names)

    def tensor(self, rows: list[int], side: int = 0) -> Tensor:
        """Some of the pictures, in the order asked for: (len(rows), 3, s, s) float32 in [-1, 1].

        They are resampled to `side`, unless that is 0.
        """
        pictures = self.pictures[rows].float().div(127.5).sub(1)
        if side in (0, pictures.shape[-1]):
            return pictures
        if side < pictures.shape[-1]:
            return F.interpolate(pictures, (side, side), mode="area")
        return F.interpolate(pictures, (side, side), mode="bilinear", align_corners=False)

    @torch.no_grad()
    def cosines(self, clip: Clip, vectors: Tensor) -> Tensor:
        """(n,) cosines of every picture with the mean of `vectors` (k, d), by this CLIP, on its device."""
        seen = self._vectors(clip)
        return seen @ F.normalize(vectors.to(seen).mean(0), dim=0)

    def nearest(self, clip: Clip, vectors: Tensor, count: int) -> list[int]:
        """The rows of the `count` pictures with the highest cosine with the mean of `vectors` (k, d), highest first."""
        return integers(self.cosines(clip, vectors).argsort(descending=True, stable=True)[:count])

    def _vectors(self, clip: Clip) -> Tensor:
        """(n, d) of unit length: this CLIP's vectors of the pictures, encoded once and cached while the CLIP exists."""
        if clip not in self._seen:
            rows = list(range(len(self)))
            chunks = [self.tensor(rows[k : k + CHUNK]).to(clip.device) for k in range(0, len(rows), CHUNK)]
            self._seen[clip] = torch.cat([clip.encode_image(chunk) for chunk in chunks])
        return self._seen[clip]


def _check(size: object, count: object, names: object, webp: np.ndarray, offset: np.ndarray) -> None:
    """ValueError unless the parts of a file agree with one another."""
    if not (isinstance(size, int) and isinstance(count, int) and count > 0):
        raise ValueError("its config is strange")
    if not (is_list(names) and len(names) == count and all(isinstance(name, str) for name in names)):
        raise ValueError("its names are not one for each picture")
    if webp.dtype != np.uint8 or webp.ndim != 1 or offset.dtype != np.int64 or offset.shape != (count + 1,):
        raise ValueError("its tensors are not those of its config")
    if offset[0] != 0 or offset[-1] != len(webp) or (offset[1:] <= offset[:-1]).any():
        raise ValueError("its offsets do not divide its pictures")


def _decoded(data: bytes, size: int) -> np.ndarray:
    """One WebP of size x size pixels -> (size, size, 3) uint8. ValueError, before decoding, for another size."""
    picture = Image.open(io.BytesIO(data), formats=["WEBP"])
    if picture.size != (size, size):
        raise ValueError(f"a picture is {picture.width} x {picture.height} and not {size} x {size}")
    return np.asarray(picture.convert("RGB"))
