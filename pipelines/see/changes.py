"""What a picture could become: pairs of names whose difference CLIP knows, for an edit to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from pipelines.models.base import Clip
from pipelines.models.typed import integers
from pipelines.see.names import names_in
from pipelines.see.pictures import encode

NEAR = 120  # names nearest to the picture's own, among which changes are looked for
ALIKE = 0.9  # cosine of texts that say the same


@dataclass(frozen=True)
class TextChange:
    """What the picture shows, what it could show, and the cosine of both names by CLIP."""

    source: str
    target: str
    likeness: float


@torch.no_grad()
def changes(
    clip: Clip, image: Image.Image, count: int = 6, names: Sequence[str] = (), language: str = "en"
) -> list[TextChange]:
    """At most `count` changes of a picture, the nearest first, no two to almost the same.

    The source is the name that CLIP finds nearest to the picture. Targets are near it in the space of texts, and no part
    of it. `names` are the project's own in `language`, "en" or "zh", unless given.
    """
    known = list(names or names_in(language))
    texts = clip.encode_text(known)  # (n, d)
    source = int((texts @ encode(clip, [image])[0].to(texts.device)).argmax())
    near = texts @ texts[source]
    chosen: list[int] = []
    for k in integers(near.argsort(descending=True)[:NEAR]):
        if k == source or near[k] > ALIKE or _says_more(known[source], known[k]):
            continue
        if _differs(texts, k, chosen):
            chosen.append(k)
        if len(chosen) == count:
            break
    return [TextChange(known[source], known[k], round(near[k].item(), 4)) for k in chosen]


def _differs(texts: Tensor, k: int, chosen: list[int]) -> bool:
    return not chosen or bool((texts[chosen] @ texts[k]).max() < ALIKE)


def _says_more(source: str, target: str) -> bool:
    """Whether the target says the source again, as a part of it or with more words: the picture need not change then."""
    ours, theirs = set(source.casefold().split()), set(target.casefold().split())
    return ours == theirs or theirs < ours
