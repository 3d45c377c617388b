"""How pictures are judged: ranks of names, likeness of candidates, nearest training pictures."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.evaluation.synonyms import Entry
from pipelines.models.base import Clip
from pipelines.models.judge.network import Judge
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.data.compositing import to_images
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import Icon, concept


class Book:
    """Every English name of every icon, other names included, and the things that each one names."""

    def __init__(self, icons: list[Icon]):
        named: dict[str, set[str]] = {}
        for icon in icons:
            for text in (icon.name, *icon.also):
                named.setdefault(text, set()).add(concept(icon))
        self.texts = sorted(named)
        self.concepts = [named[text] for text in self.texts]

    def rank(self, name: str, scores: Tensor) -> int:
        """How many names of other things score higher than `name`, of (texts,) scores: 0 when it is the first."""
        here = self.texts.index(name)
        rivals = torch.tensor([not (concepts & self.concepts[here]) for concepts in self.concepts])
        return int((scores[rivals] > scores[here]).sum())


class PlainNames:
    """Names of which every other one is a rival."""

    def __init__(self, texts: list[str]):
        self.texts = texts

    def rank(self, name: str, scores: Tensor) -> int:
        """How many names score higher than `name`, of (texts,) scores: 0 when it is the first."""
        return int((scores > scores[self.texts.index(name)]).sum())


class NameJudge(Protocol):
    """Tells what pictures show."""

    def ranks(self, name: str, pictures: np.ndarray) -> list[int]:
        """For each of (n, s, s, 3) uint8 pictures how many other things it rather shows than `name`: 0 for none."""
        ...


class TextJudge:
    """A CLIP, which chooses among all names of a book."""

    def __init__(self, clip: Clip, book: Book | PlainNames):
        self.clip, self.book = clip, book
        self.words = clip.encode_text(book.texts)

    def ranks(self, name: str, pictures: np.ndarray) -> list[int]:
        return [
            self.book.rank(name, scores)
            for scores in (encode_pictures(self.clip, pictures) @ self.words.T).cpu()
        ]


class ThingJudge:
    """The judge, a classifier that chooses among all things of the data."""

    def __init__(self, judge: Judge, icons: list[Icon]):
        self.judge = judge
        self.things = {icon.name: judge.config.things.index(concept(icon)) for icon in icons}

    def ranks(self, name: str, pictures: np.ndarray) -> list[int]:
        images = to_images(pictures)
        cosines = self.judge(images).cpu()
        return (cosines > cosines[:, self.things[name]][:, None]).sum(1).tolist()


class PixelJudge:
    """The things of the nearest training pictures at 16 x 16; 5 when `name` is not among the first five."""

    def __init__(self, emoji: Dataset):
        self.training = Training(emoji)
        self.shows = {icon.name: concept(icon) for icon in emoji.icons}

    def ranks(self, name: str, pictures: np.ndarray) -> list[int]:
        images = to_images(pictures)
        found = self.training.concepts(thumbnails(images), 5)
        return [things.index(self.shows[name]) if self.shows[name] in things else 5 for things in found]


def paired_interval(one: list[int], other: list[int], top: int) -> tuple[float, float]:
    """The 95 % interval of how much oftener `one` is among the first `top` than `other`, on the same names.

    Bootstrap over names (Efron 1979), 2,000 resamples with a fixed seed.
    """
    gain = (np.array(one) < top).astype(float) - (np.array(other) < top)
    rows = np.random.default_rng(0).integers(0, len(gain), (2000, len(gain)))
    low, high = np.quantile(gain[rows].mean(1), (0.025, 0.975))
    return float(low), float(high)


def share_within(ranks: list[int], top: int) -> float:
    """The share of ranks among the first `top`."""
    return sum(rank < top for rank in ranks) / len(ranks)


def likeness(vectors: Tensor) -> float:
    """Mean cosine of the pairs of (n, d) unit vectors; 1 when there is only one. The lower, the more diverse."""
    n = len(vectors)
    if n < 2:
        return 1.0
    return ((vectors.sum(0).square().sum() - n) / (n * (n - 1))).item()


def found(
    entries: list[Entry], texts: Tensor, names: list[str], pictures: Tensor, top: int = 10
) -> list[bool]:
    """Whether a right picture is among the `top` nearest of each entry's text.

    (entries, d) vectors of the texts, and the names and (n, d) vectors of the pictures that are searched.
    """
    nearest = (texts @ pictures.T).topk(min(top, len(names))).indices.tolist()
    return [any(names[k] in entry.accepted for k in row) for entry, row in zip(entries, nearest, strict=True)]


def prefers(picture: Tensor, texts: Tensor) -> bool:
    """Whether a picture (d,) is nearer to the first of some texts (n, d) than to any other."""
    scores = texts @ picture
    return bool(scores[0] > scores[1:].max())


def nearest(samples: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(n, d), (m, d) -> for each sample its distance to the nearest other, and which that is, both (n,)."""
    distance, index = torch.cdist(samples, others).min(1)
    return distance, index


def usual_distance(vectors: Tensor, styles: list[str]) -> float:
    """How far the nearest picture of another style usually is (the median), of (n, d) vectors."""
    number = {style: k for k, style in enumerate(dict.fromkeys(styles))}
    style = torch.tensor([number[name] for name in styles], device=vectors.device)
    apart = []
    for rows in torch.arange(len(vectors), device=vectors.device).split(512):
        distance = torch.cdist(vectors[rows], vectors)
        distance[style[rows][:, None] == style[None, :]] = torch.inf
        apart.append(distance.min(1).values)
    return torch.cat(apart).median().item()


def thumbnails(images: Tensor) -> Tensor:
    """(n, 3, h, w) in [-1, 1] -> (n, 768): 16 x 16 pixels, of which distances are root mean squares."""
    return F.adaptive_avg_pool2d(images, 16).flatten(1) / 768**0.5


class Training:
    """The training pictures on white as a judge sees them: by the critic's vectors, or by pixels without a critic."""

    def __init__(self, emoji: Dataset, critic: Clip | None = None):
        self.icons = [emoji.icons[k] for k in emoji.train]
        chunks = []
        for rows in np.array_split(emoji.train, -(-len(emoji.train) // 256)):
            pictures = on_background(emoji.rgba[rows])
            if critic is not None:
                chunks.append(encode_pictures(critic, pictures).cpu())
            else:
                images = to_images(pictures)
                chunks.append(thumbnails(images))
        self.vectors = torch.cat(chunks)

    def concepts(self, vectors: Tensor, count: int) -> list[list[str]]:
        """What the nearest training pictures of each of (n, d) vectors show: `count` different things, nearest first."""
        near = min(count * 8, len(self.icons))
        order = torch.cdist(vectors, self.vectors).topk(near, largest=False).indices.tolist()
        return [list(dict.fromkeys(concept(self.icons[k]) for k in row))[:count] for row in order]
