"""More training for the image tower of CLIP alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.models.checkpoint import read_header
from pipelines.models.clip.network import ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.lessons import Lessons
from pipelines.training.clip.rounds import fingerprint, with_round
from pipelines.training.clip.trainer import ClipTrainer
from pipelines.training.data.dataset import Dataset


class ImageTrainer(ClipTrainer):
    """Goes on training the image tower of the pack's CLIP alone: it learns to read what is drawn.

    The text tower stays (locked-tower tuning, Zhai et al. 2022, LiT, with the towers' parts exchanged). So the networks
    that draw under CLIP's texts stay true, and texts cost no backward pass.
    """

    name, file = "image", "clip.safetensors"

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
        """`pack` holds the CLIP; its sizes are its own, `size` gives batch and rates. `options` as ClipTrainer's."""
        path = pack / "clip.safetensors"
        config, self.history = read_header(path)
        sizes = {**ClipConfig.from_dict(config).to_dict(), "imagenet": None, **options}
        sizes.pop("vocabulary_size")
        super().__init__(accelerator, emoji, tokenizer, folder, seed, size, path, **sizes)
        self.clip.text.requires_grad_(False)
        self.begun = fingerprint(self.clip.image)

    def compile_targets(self) -> list[nn.Module]:
        return [self.clip.image]

    def lessons_of_teacher(self, path: Path) -> Lessons | None:
        """None: its texts stay."""
        return None

    def extra_state(self) -> dict[str, Tensor]:
        """Which tower it began with: the pack's file may have a later one by then."""
        return {"begun": self.begun}

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        super().export(path, with_round(self.history, "image", facts, self.begun))
