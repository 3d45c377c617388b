"""DALL·E from a stream: the codec reads each picture when it comes, where others read the tokens of a bank."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipelines.training.dalle import DalleTrainer, exchanged
from pipelines.training.data.dataset import Pictures
from pipelines.training.data.scenes import Scenes


class StreamedDalleTrainer(DalleTrainer):
    """Trains a Dalle on a stream. Figures and sheets are of its sample, whose tokens are in a bank."""

    def batch_of_stream(self, pictures: Pictures, step: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Text tokens (n, text_length), pictures and views of them (n, 3, s, s) uint8, and uniform numbers in [0, 1),
        (n, image_length, 1), which say what near tokens are read."""
        rng, rows = np.random.default_rng((self.seed, step, rank)), pictures.train
        scenes = Scenes(pictures, rows, rng, plain=0.5, coloured=0.5)
        drawn = [scenes.scene(int(k)) for k in rows]
        text = self.conditions([words for _, words, _ in drawn], rows.tolist(), rng)
        shown = torch.from_numpy(np.stack([picture for picture, _, _ in drawn])).permute(0, 3, 1, 2)
        dice = torch.from_numpy(rng.random((len(rows), self.network.config.image_length, 1)))
        return text, shown.contiguous(), dice

    def update(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> dict[str, Tensor]:
        text, shown, dice = batch
        with torch.no_grad():
            image = self.codec.encode_tokens(shown.float().div(127.5).sub(1)).flatten(1)
        return super().update((text, image, exchanged(image, dice, *self.targets)), progress)
