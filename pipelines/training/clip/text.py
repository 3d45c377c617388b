"""More training for how CLIP reads texts, and for how its critic does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

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
from pipelines.training.clip.trainer import ClipTrainer, TrainingHeads
from pipelines.training.data.captions import caption
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import concept
from pipelines.training.data.scenes import Scenes, scene_count

MOST_SCENES = 4096
PROXY_SCALE = 20.0  # of the cosines of a text and the prototypes


class TextTrainer(ClipTrainer):
    """Trains the head by which the pack's CLIP compares texts with pictures: no picture is looked at, a step is cheap.

    The image tower stays, and with it every picture's vector (locked-image tuning, Zhai et al. 2022). The states of texts
    and their projection stay too, because networks that draw read them.

    A contrastive loss needs no more of texts than to tell the pictures of the training apart. Here the texts of a thing
    learn its prototype, the mean vector of its pictures (Snell et al. 2017): pictures of an unknown style are nearer to it
    than to texts that were learned by contrast. Texts of scenes are told from each other's pictures, and every other text
    is to be as near to each prototype as the teacher finds it near to that name.
    """

    name, file = "text", "clip.safetensors"
    HEAD: ClassVar[dict[str, Any]] = {"match_width": 768}

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
        path = pack / self.file
        config, self.history = read_header(path)
        recipe = {"batch_size": 512, "rate": 1e-3, "imagenet": None, **options}
        sizes = ClipConfig.from_dict(config).to_dict() | self.HEAD | recipe
        sizes.pop("vocabulary_size")
        super().__init__(accelerator, emoji, tokenizer, folder, seed, size, path, **sizes)
        if self.lessons is None:
            raise BadInput("training.no_teacher", package=TEACHER_PACKAGE)
        heads, text = cast(TrainingHeads, self.networks["heads"]), self.clip.text
        self.clip.requires_grad_(False)
        learner = text if text.match is None else text.match
        learning = [*learner.parameters(), *heads.teacher.parameters(), self.clip.log_scale]
        for parameter in learning:
            parameter.requires_grad_(True)
        adam = torch.optim.AdamW(learning, lr=recipe["rate"], betas=(0.9, 0.98), weight_decay=0.01)
        self.optimizers = {"all": adam}
        self.begun = fingerprint(text)
        self.prototypes = self._prototypes()
        self.scenes, self.scene_captions = self._scenes()

    def compile_targets(self) -> list[nn.Module]:
        return [self.clip.text]

    def extra_state(self) -> dict[str, Tensor]:
        """Which tower it began with: the pack's file may have a later one by then."""
        return {"begun": self.begun}

    def _prototypes(self) -> Tensor:
        """The mean vector of each name's training pictures on white, (names, d) of unit length."""
        sums = torch.zeros(len(self.index), self.clip.config.embedding_size, device=self.accelerator.device)
        for rows in np.array_split(self.emoji.train, -(-len(self.emoji.train) // 256)):
            vectors = encode_pictures(self.clip, on_background(self.emoji.rgba[rows]))
            names = torch.tensor([self.index[concept(self.emoji.icons[k])] for k in rows])
            sums.index_add_(0, names.to(sums.device), vectors)
        return F.normalize(sums, dim=-1)

    def _scenes(self) -> tuple[Tensor, list[str]]:
        """The vectors (n, d) of scenes, coloured or composed, and their captions."""
        rng = np.random.default_rng(self.seed)
        scenes = Scenes(self.emoji, self.emoji.train, rng, plain=0.0, coloured=0.5)
        vectors, captions = list[Tensor](), list[str]()
        chosen = rng.choice(self.emoji.train, scene_count(self.emoji, MOST_SCENES))
        for rows in np.array_split(chosen, -(-len(chosen) // 64)):
            drawn = [scenes.scene(int(k)) for k in rows]
            vectors.append(encode_pictures(self.clip, np.stack([picture for picture, _, _ in drawn])))
            captions += [text for _, text, _ in drawn]
        return torch.cat(vectors), captions

    def batch(self, step: int, rank: int = 0, count: int = 1) -> dict[str, Any]:
        """A half plain captions, an eighth scenes, the rest texts to distil."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        icons = [self.emoji.icons[k] for k in rng.choice(self.emoji.train, n // 2)]
        scenes = rng.integers(len(self.scene_captions), size=n // 8)
        assert self.lessons is not None
        return {
            "captions": [caption(icon, rng) for icon in icons] + [self.scene_captions[k] for k in scenes],
            "concepts": torch.tensor([self.index[concept(icon)] for icon in icons]),
            "scenes": torch.from_numpy(scenes),
            **self.lessons.draw(rng, n - len(icons) - len(scenes)),
        }

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        clip, heads, concepts = self.clip, cast(TrainingHeads, self.networks["heads"]), batch["concepts"]
        pooled, n = self._read_texts(batch["captions"] + batch["texts"]), len(batch["captions"])
        with self.accelerator.autocast():
            text = F.normalize(clip.text.compared(pooled).float(), dim=-1)
        own, scenes, others = text[: len(concepts)], text[len(concepts) : n], text[n:]
        proxy = F.cross_entropy(PROXY_SCALE * own @ self.prototypes.T, concepts)
        apart = (1 - (own * self.prototypes[concepts]).sum(-1)).mean()
        alone = torch.full((len(scenes),), -1, device=concepts.device)  # no two scenes are of one thing
        scale = clip.log_scale.exp().clamp(max=100)
        contrast = self.contrast(self.scenes[batch["scenes"]], scenes, alone, scale, clip.bias)
        assert self.lessons is not None
        relation = self.lessons.relation_loss(others, self.prototypes, batch["teacher_vectors"])
        loss = proxy + 10 * apart + contrast + relation
        metrics = {"proxy": proxy, "apart": apart, "contrast": contrast, "relation": relation}
        if clip.text.match is None:
            distil = self.lessons.distil_loss(heads.teacher(pooled[n:].float()), batch["teacher_vectors"])
            loss, metrics["distil"] = loss + 0.5 * distil, distil
        self.backward_and_step(loss, clip, "all")
        return metrics

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        super().export(path, with_round(self.history, "text", facts, self.begun))


class CriticTextTrainer(TextTrainer):
    """The same for the critic, whose texts no network reads: its whole text tower learns."""

    name, file = "critic-text", "critic.safetensors"
    HEAD: ClassVar[dict[str, Any]] = {}
