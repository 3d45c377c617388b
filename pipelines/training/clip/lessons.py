"""What the text tower of CLIP learns from the teacher: its vectors, and its relations to the names that have pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from pipelines.training.clip import teacher
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import concept

SCALES = 40.0, 20.0  # of the teacher's cosines, which are close together, and of the student's


class Lessons:
    """Texts that the student reads, and the teacher's vectors for them (for a Chinese text, of its English twin).

    `texts` are m of them and `vectors` (m, 384). `names`, (names, 384) of unit length on the accelerator's device, are the
    teacher's means over the English names of each prototype. `chances` (m,) say how often each text is to be read: the
    more often, the nearer it is to one of the names, because most of WordNet has no picture.
    """

    def __init__(self, emoji: Dataset, index: dict[str, int], path: Path, accelerator: Accelerator):
        """`index` gives each name its prototype; the teacher's vectors are kept in the file `path`."""
        self.accelerator = accelerator
        english, self.texts = _twins(emoji)
        unique = sorted(set(english))
        place = {text: k for k, text in enumerate(unique)}
        with accelerator.autocast():
            vectors = teacher.teacher_vectors(unique, path)
        self.vectors = torch.from_numpy(vectors[[place[text] for text in english]])
        rows = {text: k for k, text in enumerate(self.texts)}
        sums = torch.zeros(len(index), teacher.TEACHER_WIDTH)
        for k in emoji.train:
            icon = emoji.icons[k]
            for name in (icon.name, *icon.also):
                sums[index[concept(icon)]] += self.vectors[rows[name]].float()
        names = F.normalize(sums, dim=-1)
        nearest = torch.cat([(chunk.float() @ names.T).max(1).values for chunk in self.vectors.split(4096)])
        chances = nearest.clamp(min=0.1).pow(4).double()
        self.names, self.chances = names.to(accelerator.device), (chances / chances.sum()).numpy()

    @classmethod
    def where_there_is_a_teacher(
        cls, emoji: Dataset, index: dict[str, int], path: Path, accelerator: Accelerator
    ) -> Lessons | None:
        """The lessons; None without the teacher's package and its vectors in `path`."""
        return cls(emoji, index, path, accelerator) if path.exists() or teacher.teacher_available() else None

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Any]:
        """So many texts and the teacher's vectors (count, 384) for them, as entries of a batch."""
        chosen = rng.choice(len(self.texts), count, p=self.chances)
        return {"texts": [self.texts[k] for k in chosen], "teacher_vectors": self.vectors[chosen].float()}

    def distil_loss(self, guessed: Tensor, wanted: Tensor) -> Tensor:
        """Match the teacher's vector, and pick it among those of all processes: (n, 384) twice -> a scalar."""
        guessed, n = F.normalize(guessed, dim=-1), len(wanted)
        everybody = cast(Tensor, self.accelerator.gather(wanted))
        mine = torch.arange(n, device=wanted.device) + self.accelerator.process_index * n
        match = 2 * (1 - (guessed * wanted).sum(-1)).mean()
        return match + F.cross_entropy(20 * guessed @ everybody.T, mine)

    def relation_loss(self, text: Tensor, prototypes: Tensor, wanted: Tensor) -> Tensor:
        """How far the text (n, d) is from being as near to each prototype as the teacher says: a divergence in nats.

        The prototypes stand still here: they belong to the pictures.
        """
        near = F.log_softmax(SCALES[0] * wanted @ self.names.T, -1)
        predicted = F.log_softmax(SCALES[1] * text @ prototypes.detach().T, -1)
        return F.kl_div(predicted, near, log_target=True, reduction="batchmean")


def _twins(emoji: Dataset) -> tuple[list[str], list[str]]:
    """The English texts that the teacher reads, and for each what the student reads in its place."""
    rng = np.random.default_rng(1)
    english, student = list(emoji.phrases), list(emoji.phrases)
    seen: set[tuple[str, str]] = set()
    for k in emoji.train:
        icon = emoji.icons[k]
        twins = [(name, name) for name in (icon.name, *icon.also)]
        twins += [(icon.name, icon.chinese)] * 2 if icon.chinese else []
        keywords = [str(word) for word in rng.permutation(np.array(icon.keywords, dtype=object))[:3]]
        twins += [(word, word) for word in keywords]
        if keywords:
            twins.append((", ".join([icon.name, *keywords]), ", ".join([icon.name, *keywords])))
        seen.update(twins)
    pairs = sorted(seen)
    return english + [a for a, _ in pairs] * 3, student + [b for _, b in pairs] * 3
