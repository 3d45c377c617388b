"""What See promises: wordings against plain names, maps that point at the right thing, probes against names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.clip.ranking import text_vector
from pipelines.io.images import to_tensor
from pipelines.models.base import Clip
from pipelines.see.classify import accuracy
from pipelines.see.labels import ART, PLAIN, label_vectors
from pipelines.see.probe import fit
from pipelines.see.relevance import relevance
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import VALIDATION_STYLE, concept

COMPOSITES, LABELS, SHOTS, DRAWS = 200, 50, 5, 4


def wordings(clip: Clip, emoji: Dataset) -> dict[str, float]:
    """Validation pictures whose name comes first of all names, by the name alone and by See's wordings."""
    icons = [emoji.icons[k] for k in emoji.validation]
    vectors = encode_pictures(clip, on_background(emoji.rgba[emoji.validation]))
    figures: dict[str, float] = {}
    for language, names in (
        ("English", [icon.name for icon in icons]),
        ("Chinese", [icon.chinese for icon in icons]),
    ):
        rows = [k for k, name in enumerate(names) if name]
        book = list(dict.fromkeys(names[k] for k in rows))
        targets = torch.tensor([book.index(names[k]) for k in rows])
        for title, templates in (("the name alone", PLAIN), ("wordings", ART)):
            found = vectors[rows] @ label_vectors(clip, book, templates).T
            figures[f"{language}, {title}"] = accuracy(found, targets)
    return figures


@dataclass(frozen=True)
class Composite:
    """Two icons on white: their names, and for each the left, upper, right and lower edge in shares of the side."""

    picture: Tensor  # (1, 3, s, s) in [-1, 1]
    names: tuple[str, str]
    boxes: tuple[tuple[float, float, float, float], ...]


def composites(emoji: Dataset, count: int, seed: int = 0) -> list[Composite]:
    """Pairs of validation icons, half as large, beside each other or one above the other; the same every time."""
    rng = np.random.default_rng(seed)
    side = emoji.rgba.shape[1]
    half, quarter = side // 2, side // 4
    made: list[Composite] = []
    for _ in range(count):
        pair = rng.choice(emoji.validation, 2, replace=False)
        beside = bool(rng.integers(2))
        places = ((0, quarter), (half, quarter)) if beside else ((quarter, 0), (quarter, half))
        canvas = Image.new("RGB", (side, side), "white")
        for k, (x, y) in zip(pair, places, strict=True):
            icon = Image.fromarray(on_background(emoji.rgba[k]))
            canvas.paste(icon.resize((half, half), Image.Resampling.BOX), (x, y))
        boxes = tuple((x / side, y / side, (x + half) / side, (y + half) / side) for x, y in places)
        names = (emoji.icons[pair[0]].name, emoji.icons[pair[1]].name)
        made.append(Composite(to_tensor([canvas]), names, boxes))
    return made


def pointing(clip: Clip, emoji: Dataset, count: int = COMPOSITES) -> dict[str, float]:
    """The share of names whose map's peak lies inside the box of their icon."""
    hits: list[bool] = []
    for composite in composites(emoji, count):
        texts = torch.stack([text_vector(clip, name) for name in composite.names])
        found = relevance(clip, composite.picture, texts, composite.names)
        for each, (left, top, right, bottom) in zip(found, composite.boxes, strict=True):
            x, y = each.peak
            hits.append(left <= x <= right and top <= y <= bottom)
    return {"peaks inside the named icon of two": sum(hits) / len(hits)}


def probes(clip: Clip, emoji: Dataset, labels: int = LABELS) -> dict[str, float]:
    """Validation pictures known by probes of SHOTS pictures in other styles, and by the names of the same labels.

    Means over DRAWS times `labels` labels, each drawn anew.
    """
    drawings: dict[str, dict[str, int]] = {}
    for k, icon in enumerate(emoji.icons):
        if icon.chinese:
            drawings.setdefault(concept(icon), {}).setdefault(icon.style, k)
    most = max(map(len, drawings.values())) - 1  # other styles
    known = [each for each in drawings.values() if VALIDATION_STYLE in each and len(each) > min(SHOTS, most)]
    rng = np.random.default_rng(0)
    taught, by_name, by_words = [], [], []
    for _ in range(DRAWS):
        chosen = [known[k] for k in rng.permutation(len(known))[:labels]]
        names = [emoji.icons[each[VALIDATION_STYLE]].name for each in chosen]
        rows = [
            (k, label)
            for label, each in enumerate(chosen)
            for k in [place for style, place in sorted(each.items()) if style != VALIDATION_STYLE][:SHOTS]
        ]
        vectors = encode_pictures(clip, on_background(emoji.rgba[[k for k, _ in rows]]))
        judged = encode_pictures(clip, on_background(emoji.rgba[[each[VALIDATION_STYLE] for each in chosen]]))
        right = torch.arange(len(chosen))
        weight = fit(vectors, torch.tensor([label for _, label in rows]), len(chosen), clip.logit_scale)
        taught.append(accuracy(judged.cpu() @ weight.T, right))
        by_name.append(accuracy(judged @ label_vectors(clip, names, PLAIN).T, right))
        by_words.append(accuracy(judged @ label_vectors(clip, names, ART).T, right))
    return {
        f"{labels} labels, taught by {SHOTS} pictures of other styles": float(np.mean(taught)),
        f"{labels} labels, by the name alone": float(np.mean(by_name)),
        f"{labels} labels, by wordings": float(np.mean(by_words)),
    }
