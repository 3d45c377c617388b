"""How many pictures CLIP's objective needs, and those before it (Radford et al. 2021, section 2.3 and figure 2).

Texts are read, or predicted, as a bag of words or by a Transformer; they are pulled to their pictures, or predicted from
them. All four see the same pictures in the same order, by the same image tower from random weights, at one learning rate.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.augment import apply_augmentation, draw_augmentation
from pipelines.training.clip.loss import ContrastiveLoss
from pipelines.training.data.captions import caption
from pipelines.training.data.compositing import to_images
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import concept
from pipelines.training.loop import Budget
from pipelines.training.report import write_picture
from pipelines.training.studies.plot import plot_lines
from pipelines.training.studies.predicting import BagPredictor, LanguageModel, Predictor
from pipelines.training.studies.study import Study
from pipelines.training.trainer import Trainer

SIDE = 64  # pixels
NAMES = 100  # that a picture is told apart by
VARIANTS = {  # name -> text tower, and whether texts are predicted
    "bag of words, contrastive": ("bag", False),
    "Transformer, contrastive": ("transformer", False),
    "bag of words, predicted": ("bag", True),
    "Transformer, predicted": ("transformer", True),
}
# the faster, the slower, and how many times the paper found between them
PAPER = (
    ("bag of words, predicted", "Transformer, predicted", 3),
    ("bag of words, contrastive", "bag of words, predicted", 4),
)


class EfficiencyTrainer(Trainer):
    """Trains one of VARIANTS."""

    name = "clip-efficiency"
    ema_networks = ("network",)
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "batch_size": 64,
            "rate": 1e-3,
            "widths": (32, 64, 128, 192),
            "block_counts": (1, 1, 1, 1),
            "text_width": 128,
            "text_layer_count": 2,
            "text_head_count": 4,
            "embedding_size": 128,
            "context_length": 16,
        }
    }

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        tokenizer: Tokenizer,
        variant: str,
        seed: int = 0,
        **options: Any,
    ):
        sizes = {**self.SIZES["tiny"], **options}
        self.batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        self.accelerator, self.emoji, self.tokenizer, self.seed = accelerator, emoji, tokenizer, seed
        kind, predicted = VARIANTS[variant]
        config = ClipConfig(
            tokenizer.vocabulary_size, image_size=SIDE, small_size=SIDE, text_kind=kind, **sizes
        )
        torch.manual_seed(seed)
        network: nn.Module = Clip(config, tokenizer)
        if predicted:
            network = (BagPredictor if kind == "bag" else LanguageModel)(config)
        self.length = config.context_length
        self.networks = {"network": network.to(accelerator.device)}
        self.optimizers = {"network": torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)}
        self.contrast = ContrastiveLoss(accelerator)
        self.index = {name: k for k, name in enumerate(sorted({concept(icon) for icon in emoji.icons}))}

    @property
    def network(self) -> Clip | Predictor:
        """The network."""
        network = self.networks["network"]
        assert isinstance(network, (Clip, Predictor))
        return network

    def compile_targets(self) -> list[nn.Module]:
        return [self.network.image]

    def rate_factor(self, progress: float) -> float:
        """The same all the way, after a short rise, so that earlier figures are those of shorter trainings."""
        return min(1.0, 0.05 + progress / 0.02)

    def batch(self, step: int, rank: int = 0, count: int = 1) -> dict[str, Any]:
        """Icons on white, how to change them, their captions, and what they show."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        chosen = rng.choice(self.emoji.train, n, replace=len(self.emoji.train) < n)
        icons = [self.emoji.icons[k] for k in chosen]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return {
            "images": torch.from_numpy(on_background(self.emoji.rgba[chosen])).permute(0, 3, 1, 2),
            "changes": draw_augmentation((n, 3, SIDE, SIDE), generator),
            "tokens": self._tokens([caption(icon, rng) for icon in icons]),
            "concepts": torch.tensor([self.index[concept(icon)] for icon in icons]),
        }

    def _tokens(self, texts: list[str]) -> Tensor:
        rows = [self.tokenizer.encode(text)[: self.length - 1] for text in texts]
        tokens = torch.zeros(len(rows), 1 + max(map(len, rows)), dtype=torch.long)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        network = self.network
        images = apply_augmentation(batch["images"].float().div(127.5).sub(1), batch["changes"])
        images = (images - 0.5) / 0.6
        with self.accelerator.autocast():
            if isinstance(network, Clip):
                vectors = [network.image(images), network.text(batch["tokens"])]
                image, text = (F.normalize(part.float(), dim=-1) for part in vectors)
                scale = network.log_scale.exp().clamp(max=100)
                loss = self.contrast(image, text, batch["concepts"], scale)
            else:
                loss = network.loss(images, batch["tokens"])
        self.backward_and_step(loss, network, "network")
        return {"loss": loss}

    def sample_grid(self) -> None:
        """None: it draws nothing."""
        return

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The share of pictures of the validation style whose name is the first of NAMES names."""
        network, rows, names = self.network.eval(), *self._labelled()
        tokens, right = self._tokens(names).to(self.accelerator.device), 0
        for chunk in np.array_split(rows, -(-len(rows) // 32)):
            images = (to_images(on_background(self.emoji.rgba[chunk])).to(tokens.device) - 0.5) / 0.6
            if isinstance(network, Clip):
                text = F.normalize(network.text(tokens), dim=-1)
                scores = F.normalize(network.image(images), dim=-1) @ text.T
            else:
                scores = network.scores(images, tokens)
            wanted = [names.index(self.emoji.icons[k].name) for k in chunk]
            right += int((scores.argmax(1).cpu() == torch.tensor(wanted)).sum())
        return {"zero-shot": round(right / len(rows), 4)}

    def _labelled(self) -> tuple[np.ndarray, list[str]]:
        """Validation icons whose names are among the first NAMES of a fixed shuffle of those that training styles have."""
        known = {self.emoji.icons[k].name for k in self.emoji.train}
        both = sorted(known & {self.emoji.icons[k].name for k in self.emoji.validation})
        names = [both[k] for k in np.random.default_rng(0).permutation(len(both))[:NAMES]]
        return np.array([k for k in self.emoji.validation if self.emoji.icons[k].name in names]), names

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        """Nothing: a study compares, and keeps no weights."""


def study_efficiency(study: Study) -> dict[str, dict[str, float]]:
    """Train the four, a quarter of the time each, and draw zero-shot accuracy against pictures seen: efficiency.png.

    Returns the last figures by name; and for pairs how many times fewer pictures the faster one needs for the best
    accuracy of the slower one, beside what the paper found.
    """
    accelerator, emoji = Accelerator(cpu=not torch.cuda.is_available()), study.emoji(SIDE)
    tokenizer = Tokenizer.load(study.pack / "tokenizer.json")
    budget = Budget(study.minutes / len(VARIANTS), study.steps, study.processor)
    lines: dict[str, list[tuple[float, float]]] = {}
    figures: dict[str, dict[str, float]] = {}
    for variant in VARIANTS:
        trainer = EfficiencyTrainer(accelerator, emoji, tokenizer, variant, study.seed, **study.sizes)
        rows = study.train(trainer, variant.replace(", ", "-").replace(" ", "-"), budget)
        seen = trainer.samples_per_step()
        lines[variant] = [(row["step"] * seen, row["figures"]["zero-shot"]) for row in rows]
        figures[variant] = {"pictures": lines[variant][-1][0], "zero-shot": lines[variant][-1][1]}
        write_picture(
            study.folder / "efficiency.png",
            plot_lines(lines, "pictures seen", f"zero-shot accuracy among {NAMES} names"),
        )
    for fast, slow, paper in PAPER:
        times = times_fewer(lines[fast], lines[slow])
        figures[f"{fast} : {slow}"] = {"times fewer pictures": times, "in the paper": paper}
    return figures


def times_fewer(fast: list[tuple[float, float]], slow: list[tuple[float, float]]) -> float:
    """How many times the pictures that the first needs for the best accuracy of both does the second need."""
    level = min(max(y for _, y in fast), max(y for _, y in slow))
    return round(_needed(slow, level) / _needed(fast, level), 2)


def _needed(line: list[tuple[float, float]], level: float) -> float:
    """Pictures until the level is reached, on straight lines over the logarithm of pictures."""
    before = line[0]
    for point in line:
        if point[1] >= level:
            share = (level - before[1]) / (point[1] - before[1]) if point[1] > before[1] else 1.0
            return math.exp(math.log(before[0]) + share * (math.log(point[0]) - math.log(before[0])))
        before = point
    return line[-1][0]
