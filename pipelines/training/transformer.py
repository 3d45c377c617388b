"""How the second stage of a VQGAN learns (Esser et al. 2021, section 3.2): next-token prediction over its codes.

The condition is nothing, the class of the thing, or a text. Some sequences are cut out of two pictures that stand beside
or above each other, at their places on such a canvas, so that the sliding window knows what goes on beyond a picture.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.models.transformer.network import Transformer, TransformerConfig, local_places
from pipelines.models.vqgan.network import VqganConfig
from pipelines.training.dalle import DalleTrainer
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import concept
from pipelines.training.report import image_grid

CUT_SHARE = 0.15  # of the sequences are cut out of two pictures


class TransformerTrainer(DalleTrainer):
    """Trains a Transformer on the tokens of a codec of the pack. `condition` is one of CONDITIONS."""

    name = kind = "transformer"
    ema_networks = ("transformer",)
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 2.2, 29.4 and 97.6 million parameters without a condition
        size: {**sizes}
        for size, sizes in DalleTrainer.SIZES.items()
    }

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        folder: Path,
        condition: str = "none",
        **options: Any,
    ):
        """`options` are DalleTrainer's, which also says what `folder` keeps. ValueError for an unknown condition."""
        self.condition = condition
        self.number = {
            name: k + 1 for k, name in enumerate(sorted({concept(icon) for icon in _shown(emoji)}))
        }
        super().__init__(accelerator, emoji, pack, folder, **options)

    def made(self, codec: VqganConfig, sizes: dict[str, Any]) -> Transformer:
        told: dict[str, Any] = {}
        if self.condition == "text":
            told = {"text_vocabulary": self.tokenizer.vocabulary_size, "text_length": 32}
        elif self.condition == "class":
            plain = {concept(icon): icon.name for icon in _shown(self.emoji)}
            names = tuple(plain[thing] for thing in self.number)
            tokens = tuple(tuple(self.tokenizer.encode(name)) for name in names)
            told = {"text_vocabulary": 1 + len(names), "classes": names, "class_tokens": tokens}
        return Transformer(
            TransformerConfig(codec.code_count, codec.grid, condition=self.condition, **told, **sizes)
        )

    @property
    def transformer(self) -> Transformer:
        """The network."""
        return cast(Transformer, self.networks["transformer"])

    def batch(self, step: int, rank: int = 0, count: int = 1) -> tuple[Tensor, ...]:
        """Conditions (n, text_length), image tokens (n, image_length), tokens near to these, to be read, and the rows
        and columns of the places, (n, image_length) each."""
        text, image, _ = super().batch(step, rank, count)
        rng, grid = np.random.default_rng((self.seed, step, rank, 2)), self.transformer.config.grid
        place = torch.arange(grid * grid).expand_as(image)
        rows, columns = place // grid, place % grid
        cut, icons = rng.random(len(image)) < CUT_SHARE, self.token_cache["icons"]
        wide = local_places(2 * grid, grid)
        for k in np.flatnonzero(cut).tolist():
            offset, beside = int(rng.integers(1, grid)), rng.random() < 0.5
            pair = [image[k], icons[int(rng.integers(len(icons)))]]
            canvas = torch.cat([tokens.view(grid, grid) for tokens in pair], int(beside))
            window = canvas.narrow(int(beside), offset, grid)
            image[k], text[k] = window.flatten(), 0
            places = wide[offset : offset + grid]
            if beside:
                columns[k] = places.repeat(grid)
            else:
                rows[k] = places.repeat_interleave(grid)
        return text, image, self.nearly(image, rng), rows, columns

    def conditions(self, texts: list[str], icons: list[int], rng: np.random.Generator) -> Tensor:
        """(n, text_length): what the network is told, or 0 where nothing."""
        if self.condition == "text":
            return super().conditions(texts, icons, rng)
        told = torch.zeros(len(texts), 1, dtype=torch.long)
        if self.condition == "class":
            for row, index in zip(told, icons, strict=True):
                if index >= 0 and rng.random() >= self.text_dropout:
                    row[0] = self.number[concept(self.emoji.icons[index])]
        return told

    def update(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        text, image, read, rows, columns = batch
        network = self.transformer
        with self.accelerator.autocast():
            states = network(text, read[:, :-1], None, (rows, columns))
            logits = network.image_head(states[:, network.config.text_length - 1 :])
        loss = self.image_loss(logits, image)
        self.backward_and_step(loss, network, *self.optimizers)
        return {"image": loss}

    def prompts(self) -> list[str]:
        """The texts of the sheet; of classes those that it knows."""
        known = self.transformer.config.classes
        texts = [text for text in super().prompts() if self.condition != "class" or text in known]
        return texts or list(known[:6])

    def sample_grid(self) -> Image.Image | None:
        """Samples: 36 without a condition, else six of each of some prompts; None without diffusers, which draws them."""
        if self.condition != "none" or importlib.util.find_spec("diffusers") is None:
            return super().sample_grid()
        return image_grid(self.samples([""], 36, guidance=1.0), 6)

    def evaluate(self) -> dict[str, float]:
        """Nats a token on validation icons, with their names where there is a condition, and the entropy of the tokens."""
        tokens = self.token_cache["validation"][::4]
        shares = torch.bincount(tokens.flatten()).double() / tokens.numel()
        if self.condition == "none":
            figures = {"nats": self.nats(torch.zeros(len(tokens), 1, dtype=torch.long), tokens)}
        else:
            figures = super().evaluate()
        return figures | {"entropy of the tokens": round(torch.special.entr(shares).sum().item(), 4)}

    def told(self, name: str) -> Tensor:
        """As DalleTrainer's; nothing of a thing that no training style draws."""
        try:
            return super().told(name)
        except BadInput:
            return torch.zeros(1, dtype=torch.long)


def _shown(emoji: Dataset) -> list[Any]:
    return [emoji.icons[k] for k in emoji.train]
