"""The pictures that a DALL·E learns from, as tokens: views of every icon, and scenes. Made once and kept in a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from pipelines.io.files import write_atomically
from pipelines.models.dalle_semantic.network import semantic_tokens
from pipelines.training.codes import k_means
from pipelines.training.data.captions import COLOURS
from pipelines.training.data.compositing import composed, to_images
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import SIZE, Icon, may_be_mirrored, names_a_side
from pipelines.training.data.scenes import Scenes, scene_count

VIEWS = 16  # of each icon: as it is, mirrored, moved on white, and a quarter of them moved on a colour
SCENE_COUNT = 24_000
SMALLEST, LARGEST_SHIFT, LARGEST_CUT = 0.8, 8.0, 2.0  # how views are moved; shift and cut in pixels
MOST_POINTS = 60_000  # that k-means looks at
ENCODED_AT_ONCE, KEPT_AT_ONCE = 64, 64  # pictures, and batches of them whose codes are written to one file

# (n, 3, s, s) pictures in [-1, 1] -> their image tokens (n, l) and their CLIP vectors (n, d), on the CPU
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


class Tokens(NamedTuple):
    """Of n pictures: image tokens (n, l) and semantic tokens (n, levels), both int16."""

    image: Tensor
    semantic: Tensor


@dataclass(frozen=True)
class TokenBank:
    """What `load_bank` reads. Each icon has `views` views, side by side."""

    views: int
    icons: Tokens
    colours: Tensor  # (icons * views,) indices into COLOURS
    scenes: Tokens
    captions: list[str]  # of the scenes
    validation: Tokens  # each icon on white
    semantic_codes: Tensor  # (levels, k, d) float32


class Views(NamedTuple):
    """How n views are made. `movement` (n, 4) is that of `composed`; `colours` (n,) are indices into COLOURS."""

    mirrored: np.ndarray
    movement: np.ndarray
    colours: np.ndarray


def plan_views(icons: list[Icon], rng: np.random.Generator, opaque: np.ndarray | None = None) -> Views:
    """VIEWS views of each icon, side by side: as it is, mirrored, then moved. The last quarter is on a colour.

    `opaque` (icons,) tells which fill their square, as photographs do: they are on no colour.

    Only what stays true under the icon's names is mirrored; others are moved instead. No more than a rim of LARGEST_CUT
    pixels is lost.
    """
    count = VIEWS * len(icons)
    view = np.tile(np.arange(VIEWS), len(icons))
    free = np.repeat([may_be_mirrored(icon) and not names_a_side(icon) for icon in icons], VIEWS)
    mirrored = free & ((view == 1) | ((view > 1) & (rng.random(count) < 0.5)))
    scale = rng.uniform(SMALLEST, 1, count)
    reach = np.minimum(LARGEST_SHIFT, (1 - scale) * SIZE / 2 + LARGEST_CUT) / (SIZE / 2)
    shift = rng.uniform(-1, 1, (count, 2)) * reach[:, None]
    movement = np.column_stack([np.zeros(count), -np.log(scale), shift])
    movement *= ((view > 1) | (~free & (view == 1)))[:, None]
    colours = np.where(view >= VIEWS - VIEWS // 4, rng.integers(1, len(COLOURS), count), 0)
    if opaque is not None:
        colours = np.where(np.repeat(opaque, VIEWS), 0, colours)
    return Views(mirrored, movement, colours)


def view_shares(views: int) -> np.ndarray:
    """How often each view of an icon is shown: (views,), the sum is 1. Colours are seldom asked for."""
    coloured = views // 4
    moved = views - 2 - coloured
    return np.array([0.2, 0.1] + [0.58 / moved] * moved + [0.12 / coloured] * coloured)


def residual_k_means(vectors: Tensor, levels: int, count: int, seed: int) -> Tensor:
    """(levels, count, d) codes of (n, d) vectors: each level's are the centres of what the levels before have left."""
    left, tables = vectors.float(), []
    for level in range(levels):
        tables.append(k_means(left, count, seed + level))
        left = left - tables[-1][semantic_tokens(tables[-1][None], left)[:, 0]]
    return torch.stack(tables)


class Encoding:
    """Encodes batches of pictures and keeps the codes in a folder: the same batches after a stop are read there.

    Batches are known by their order alone, so they must come in the same order each time.
    """

    def __init__(self, encode: Encode, folder: Path):
        self._encode, self._folder, self._given = encode, folder, 0
        self._new: list[tuple[Tensor, Tensor]] = []
        self._kept: list[tuple[Tensor, Tensor]] = []
        while (file := self._file(len(self._kept) // KEPT_AT_ONCE)).exists():
            parts = load_file(file)
            lengths = parts["lengths"].tolist()
            both = parts["tokens"].split(lengths), parts["vectors"].split(lengths)
            self._kept += list(zip(*both, strict=True))

    def __call__(self, pictures: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """What Encode gives of the pictures, which are made only when they are not known yet."""
        place, self._given = self._given, self._given + 1
        if place < len(self._kept):
            return self._kept[place]
        encoded = self._encode(pictures())
        self._new.append(encoded)
        if len(self._new) == KEPT_AT_ONCE:
            tokens, vectors = (torch.cat(part) for part in zip(*self._new, strict=True))
            lengths = torch.tensor([len(part) for part, _ in self._new])
            data = save({"tokens": tokens.contiguous(), "vectors": vectors.contiguous(), "lengths": lengths})
            write_atomically(self._file(place // KEPT_AT_ONCE), data)
            self._new.clear()
        return encoded

    def forget(self) -> None:
        """Delete what was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:05}.safetensors"


def load_bank(path: Path, emoji: Dataset, encode: Encode, sizes: tuple[int, int], seed: int) -> TokenBank:
    """The bank in a file, which is made first where it is not there.

    `sizes` are the number of semantic tokens a picture and of their codes.
    """
    if not path.exists():
        encoding = Encoding(encode, path.with_suffix(".parts"))
        write_atomically(path, save(_make(emoji, encoding, sizes, seed)))
        encoding.forget()
    tensors = load_file(path)
    captions = bytes(tensors["captions"].numpy().tobytes()).decode().split("\n")
    parts = (Tokens(tensors[name], tensors[f"{name}/semantic"]) for name in ("icons", "scenes", "validation"))
    icons, scenes, validation = parts
    colours, codes = tensors["colours"], tensors["semantic_codes"]
    views = len(colours) // len(emoji.train)
    return TokenBank(views, icons, colours, scenes, captions, validation, codes)


@torch.no_grad()
def _make(emoji: Dataset, encode: Encoding, sizes: tuple[int, int], seed: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed + 1)
    image: dict[str, Tensor] = {}
    vectors: dict[str, Tensor] = {}
    image["icons"], vectors["icons"], colours = _encode_views(emoji, encode, rng)
    scenes, captions = iter(Scenes(emoji, emoji.train, rng, plain=0.0, coloured=0.0)), []
    drawn: list[tuple[Tensor, Tensor]] = []
    count = scene_count(emoji, SCENE_COUNT)
    for start in range(0, count, ENCODED_AT_ONCE):
        batch = [next(scenes) for _ in range(min(ENCODED_AT_ONCE, count - start))]
        drawn.append(encode(lambda batch=batch: to_images(np.stack([picture for picture, _, _ in batch]))))
        captions += [text for _, text, _ in batch]
    image["scenes"], vectors["scenes"] = (torch.cat(part) for part in zip(*drawn, strict=True))
    rows = np.array_split(emoji.validation, -(-len(emoji.validation) // ENCODED_AT_ONCE))
    shown = [encode(lambda part=part: to_images(on_background(emoji.rgba[part]))) for part in rows]
    image["validation"], vectors["validation"] = (torch.cat(part) for part in zip(*shown, strict=True))
    learned = torch.cat([vectors["icons"], vectors["scenes"]])
    chosen = torch.from_numpy(rng.permutation(len(learned))[:MOST_POINTS])
    codes = residual_k_means(learned[chosen], *sizes, seed)
    tensors = {name: tokens.to(torch.int16).contiguous() for name, tokens in image.items()}
    for name, values in vectors.items():
        tensors[f"{name}/semantic"] = semantic_tokens(codes, values).to(torch.int16)
    words = torch.frombuffer(bytearray("\n".join(captions).encode()), dtype=torch.uint8)
    return {**tensors, "colours": colours, "captions": words, "semantic_codes": codes}


def _encode_views(
    emoji: Dataset, encode: Encoding, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Image tokens, CLIP vectors and colours of the views of every training icon."""
    encoded: list[tuple[Tensor, Tensor]] = []
    colours: list[np.ndarray] = []
    table = np.array([colour for _, colour in COLOURS.values()])
    for rows in np.array_split(emoji.train, -(-len(emoji.train) * VIEWS // ENCODED_AT_ONCE)):
        views = plan_views([emoji.icons[k] for k in rows], rng, emoji.opaque[rows])

        def pictures(rows: np.ndarray = rows, views: Views = views) -> Tensor:
            rgba = np.repeat(emoji.rgba[rows], VIEWS, 0)
            rgba[views.mirrored] = rgba[views.mirrored, :, ::-1]
            opaque = np.repeat(emoji.opaque[rows], VIEWS)
            return composed(rgba, table[views.colours], views.movement, opaque)

        encoded.append(encode(pictures))
        colours.append(views.colours)
    image, vectors = (torch.cat(part) for part in zip(*encoded, strict=True))
    return image, vectors, torch.from_numpy(np.concatenate(colours))
