"""Zero-shot classification (Radford et al. 2021, section 3.1): which of some labels fits a picture, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.models.base import Clip
from pipelines.models.typed import floats, integers
from pipelines.see.labels import ART, Templates, label_vectors


def probabilities(clip: Clip, cosines: Tensor) -> Tensor:
    """(..., labels) cosines -> probabilities of the same shape, by the scale that the CLIP learned.

    A softmax over the labels, so that they sum to 1; for a CLIP with a `logit_bias` a sigmoid of each label by itself
    (Zhai et al. 2023), so that all may be near 0.
    """
    logits = cosines.float() * clip.logit_scale
    return logits.softmax(-1) if clip.logit_bias is None else (logits + clip.logit_bias).sigmoid()


@dataclass(frozen=True)
class Classification:
    """n pictures by some labels. `cosines` and `probabilities` are (n, labels) on the CPU.

    `independent` says that each label has a probability of its own, which need not sum to 1.
    """

    labels: list[str]
    cosines: Tensor
    probabilities: Tensor
    independent: bool = False

    def best(self, picture: int, count: int) -> list[tuple[str, float, float]]:
        """The likeliest `count` labels of one picture, best first: label, probability and cosine."""
        order = integers(self.probabilities[picture].argsort(descending=True, stable=True)[:count])
        likely, near = floats(self.probabilities[picture]), floats(self.cosines[picture])
        return [(self.labels[k], likely[k], near[k]) for k in order]

    def first(self) -> list[str]:
        """The likeliest label of each picture."""
        return [self.labels[k] for k in integers(self.probabilities.argmax(1))]


@torch.no_grad()
def classify(
    clip: Clip, vectors: Tensor, labels: Sequence[str], templates: Templates = ART
) -> Classification:
    """Classify n pictures by their (n, d) vectors of unit length."""
    cosines = vectors @ label_vectors(clip, labels, templates).T
    likely = probabilities(clip, cosines)
    return Classification(list(labels), cosines.cpu(), likely.cpu(), clip.logit_bias is not None)


def accuracy(found: Tensor, targets: Tensor) -> float:
    """The share of (n, labels) scores whose largest is that of the right label; (n,) int64 `targets`."""
    return (found.argmax(1).cpu() == targets.cpu()).float().mean().item()
