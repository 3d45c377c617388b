"""Labels as they are typed, in English or Chinese, and their vectors: means over the wordings of templates.

The mean is taken in CLIP's space (Radford et al. 2021, section 3.1.4), so new labels need no training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.clip.ranking import TEMPLATES
from pipelines.core.settings import clean_prompt
from pipelines.errors import BadInput
from pipelines.models.base import Clip

MOST_LABELS, MOST_TEMPLATES = 4000, 100
PLACE = "{label}"  # in a template
BETWEEN = re.compile(r"[,，、;；|\n]+")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def is_chinese(text: str) -> bool:
    """Whether a text has a Chinese character."""
    return CHINESE.search(text) is not None


def read_labels(text: str | Iterable[str]) -> list[str]:
    """Labels between commas, semicolons, bars or line ends of either language, each once, in order.

    BadInput when there is none, when there are more than MOST_LABELS, or when one cannot be a prompt.
    """
    parts = BETWEEN.split(text) if isinstance(text, str) else list(text)
    labels = list(dict.fromkeys(clean_prompt(part) for part in parts if part.strip()))
    if not labels:
        raise BadInput("see.no_labels")
    if len(labels) > MOST_LABELS:
        raise BadInput("see.too_many_labels", count=len(labels), most=MOST_LABELS)
    return labels


@dataclass(frozen=True)
class Templates:
    """Wordings of a label, with PLACE where it stands. A label is worded in its own language; without any it is plain."""

    english: tuple[str, ...] = (PLACE,)
    chinese: tuple[str, ...] = (PLACE,)

    def of(self, label: str) -> list[str]:
        """The label in all wordings of its language."""
        return [
            template.replace(PLACE, label)
            for template in (self.chinese if is_chinese(label) else self.english)
        ]

    @property
    def text(self) -> str:
        """One template a line, as `read_templates` takes them."""
        return "\n".join(dict.fromkeys((*self.english, *self.chinese)))


PLAIN = Templates()
# Those by which candidates are ranked; Chinese names alone, because wordings brought no more of them.
ART = Templates(tuple(template.replace("{}", PLACE) for template in TEMPLATES))
# Seven of the wordings that Radford et al. 2021 published for ImageNet, for CLIPs that learned from photographs.
PHOTO = Templates(
    (
        "a photo of a {label}",
        "itap of a {label}.",
        "a bad photo of the {label}.",
        "a photo of the large {label}.",
        "a photo of the small {label}.",
        "a {label} in a video game.",
        "art of the {label}.",
    ),
    ("这是一张有关{label}的照片", "一张{label}的照片", "{label}"),
)


def read_templates(text: str | Iterable[str]) -> Templates:
    """Templates, one a line; those with Chinese characters are for Chinese labels, "{label}" alone is for both.

    BadInput when one lacks the place of the label, or when there are more than MOST_TEMPLATES. No text gives ART.
    """
    lines = text.splitlines() if isinstance(text, str) else list(text)
    given = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not given:
        return ART
    if len(given) > MOST_TEMPLATES:
        raise BadInput("see.too_many_templates", count=len(given), most=MOST_TEMPLATES)
    for template in given:
        if template.count(PLACE) != 1:
            raise BadInput("see.template_form", template=template[:60])
        clean_prompt(template)
    english = tuple(template for template in given if not is_chinese(template))
    chinese = tuple(template for template in given if is_chinese(template) or template == PLACE)
    return Templates(english or (PLACE,), chinese or (PLACE,))


@torch.no_grad()
def label_vectors(clip: Clip, labels: Sequence[str], templates: Templates = ART) -> Tensor:
    """(labels, d) of unit length: for each label the mean of the vectors of its wordings."""
    worded = [templates.of(label) for label in labels]
    each = clip.encode_text([wording for wordings in worded for wording in wordings])
    ends = accumulate(len(wordings) for wordings in worded)
    means = [each[end - len(wordings) : end].mean(0) for end, wordings in zip(ends, worded, strict=True)]
    return F.normalize(torch.stack(means), dim=1)
