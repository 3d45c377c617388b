"""More training for the text tower of CLIP alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.checkpoint import read_header
from pipelines.models.clip.network import ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.clip.rounds import fingerprint, with_round
from pipelines.training.clip.teacher import TEACHER_PACKAGE
from pipelines.training.clip.trainer import ClipTrainer, TrainingHeads, pooled_by_length
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import concept
from pipelines.training.data.scenes import Scenes


class TextTrainer(ClipTrainer):
    """Goes on training the text tower of the pack's CLIP alone, on words: no picture is looked at, a step is cheap.

    The image tower stays, and with it every picture's vector. Captions keep the vectors that they had; every other text
    is to be as near to the pictures of each name as the teacher finds it near to that name.
    """

    name, file = "text", "clip.safetensors"

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        tokenizer: Tokenizer,
        folder: Path,
        seed: int = 0,
        size: str = "tiny",
        pack: Path = Path(),
        **options: Any,
    ):
        """`pack` holds the CLIP. BadInput without the teacher or its vectors."""
        path = pack / "clip.safetensors"
        config, self.history = read_header(path)
        recipe = {"batch_size": 512, "rate": 7e-4, "begun_rate": 7e-4, "imagenet": None, **options}
        sizes = {**ClipConfig.from_dict(config).to_dict(), **recipe}
        sizes.pop("vocabulary_size")
        super().__init__(accelerator, emoji, tokenizer, folder, seed, size, path, **sizes)
        if self.lessons is None:
            raise BadInput("training.no_teacher", package=TEACHER_PACKAGE)
        self.clip.image.requires_grad_(False)
        self.before = copy.deepcopy(self.clip.text).requires_grad_(False)
        self.prototypes = self._prototypes()

    def compile_targets(self) -> list[nn.Module]:
        return [self.clip.text]

    def extra_state(self) -> dict[str, Tensor]:
        """The text tower that captions keep the vectors of: the pack's file may have a later one by then."""
        return self.before.state_dict()

    def _prototypes(self) -> Tensor:
        """The mean vector of each name's training pictures on white, (names, d) of unit length."""
        sums = torch.zeros(len(self.index), self.clip.config.embedding_size, device=self.accelerator.device)
        for rows in np.array_split(self.emoji.train, -(-len(self.emoji.train) // 256)):
            vectors = encode_pictures(self.clip, on_background(self.emoji.rgba[rows]))
            names = torch.tensor([self.index[concept(self.emoji.icons[k])] for k in rows])
            sums.index_add_(0, names.to(sums.device), vectors)
        return F.normalize(sums, dim=-1)

    def batch(self, step: int, rank: int = 0, count: int = 1) -> dict[str, Any]:
        """A quarter captions, the rest texts to distil."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        scenes = Scenes(self.emoji, self.emoji.train, rng, plain=0.45, coloured=0.35)
        captions = [scenes.scene(int(k))[1] for k in rng.choice(self.emoji.train, max(1, n // 4))]
        assert self.lessons is not None
        return {"captions": captions, **self.lessons.draw(rng, n - len(captions))}

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        clip, heads, n = self.clip, cast(TrainingHeads, self.networks["heads"]), len(batch["captions"])
        with self.accelerator.autocast():
            pooled = pooled_by_length(clip, batch["captions"] + batch["texts"])
            text = F.normalize(clip.text.project(pooled).float(), dim=-1)
            with torch.no_grad():
                had = F.normalize(self.before(clip.tokenize(batch["captions"])).float(), dim=-1)
        moved = (1 - (text[:n] * had).sum(-1)).mean()
        assert self.lessons is not None
        distil = self.lessons.distil_loss(heads.teacher(pooled[n:].float()), batch["teacher_vectors"])
        relation = self.lessons.relation_loss(text[n:], self.prototypes, batch["teacher_vectors"])
        self.backward_and_step(20 * moved + 0.5 * distil + relation, clip, "all")
        return {"moved": moved, "distil": distil, "relation": relation}

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        super().export(path, with_round(self.history, "text", facts, fingerprint(self.before)))
