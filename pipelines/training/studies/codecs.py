"""VQ-VAE, dVAE and VQGAN on the same data, with the same time, the same tokens and the same convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from pipelines.models.base import Codec
from pipelines.training.autoencoder import AutoencoderTrainer, as_images
from pipelines.training.clip.retrieval import retrieval
from pipelines.training.data.dataset import Dataset
from pipelines.training.dvae import DvaeTrainer
from pipelines.training.frozen import load_clip
from pipelines.training.loop import Budget
from pipelines.training.report import image_grid, write_picture
from pipelines.training.studies.plot import labelled
from pipelines.training.studies.study import Study
from pipelines.training.vqgan import VqganTrainer
from pipelines.training.vqvae import VqvaeTrainer

COLUMNS = 12  # of the sheet
REPORTS = 5  # of each training: figures at every fifth of its time


def study_codecs(study: Study) -> dict[str, dict[str, float]]:
    """Train the three, a third of the time each, and measure them on the validation style.

    The critic's R@1 is of whole pictures first, then of those that went through the tokens. Writes sheet.png, the
    originals above what the three make of them, and the weights of the three. Returns the figures by name.
    """
    accelerator, emoji = Accelerator(cpu=not torch.cuda.is_available()), study.emoji()
    critic = load_clip(study.pack, accelerator.device, "critic")
    figures, rows = {"original": {"R@1": retrieval(critic, emoji)["R@1"]}}, list[Tensor]()
    budget = Budget(study.minutes / 3, study.steps, study.processor)
    for name, make in _trainers(accelerator, emoji, study).items():
        trainer = make()
        figures[name] = study.train(trainer, name, budget, REPORTS)[-1]["figures"]
        codec, pictures = trainer.codec.eval(), trainer.validation(-(-len(emoji.validation) // COLUMNS))
        figures[name]["R@1"] = retrieval(critic, emoji, lambda shown, codec=codec: _again(codec, shown))[
            "R@1"
        ]
        with torch.no_grad():
            rows += [*([] if rows else [pictures]), codec.decode_tokens(codec.encode_tokens(pictures))]
        trainer.export(study.folder / f"{name}.safetensors", {"figures": figures[name], "study": "codecs"})
    write_picture(study.folder / "sheet.png", _sheet(rows, list(figures)))
    return figures


def _trainers(
    accelerator: Accelerator, emoji: Dataset, study: Study
) -> dict[str, Callable[[], AutoencoderTrainer]]:
    sizes: dict[str, Any] = {"seed": study.seed, **study.sizes}
    return {
        "vqvae": lambda: VqvaeTrainer(accelerator, emoji, **sizes),
        "dvae": lambda: DvaeTrainer(accelerator, emoji, **sizes),
        "vqgan": lambda: VqganTrainer(accelerator, emoji, study.pack, **sizes),
    }


@torch.no_grad()
def _again(codec: Codec, pictures: np.ndarray) -> np.ndarray:
    """(n, s, s, 3) uint8 -> the same pictures after a trip through tokens."""
    images = as_images(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    device = next(codec.parameters()).device
    again = [codec.decode_tokens(codec.encode_tokens(chunk.to(device))) for chunk in images.split(64)]
    return torch.cat(again).add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def _sheet(rows: list[Tensor], names: list[str]) -> Image.Image:
    return labelled(image_grid(torch.cat(rows), len(rows[0])), names)
