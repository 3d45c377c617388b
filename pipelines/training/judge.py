"""How the judge learns: a classifier by cosines over all things (as Deng et al. 2019, without the margin).

It sees all seven styles, the validation style among them, whole and damaged: it is to know what is drawn, and nothing that
draws or ranks is chosen by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.judge.network import Judge, JudgeConfig
from pipelines.training.clip.augment import apply_augmentation, draw_augmentation
from pipelines.training.data.captions import COLOURS
from pipelines.training.data.compositing import to_images
from pipelines.training.data.damage import damaged, damages
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import concept
from pipelines.training.trainer import Trainer

SCALE = 24.0  # of the cosines


class JudgeTrainer(Trainer):
    """Trains a Judge on every icon, on white or on a colour."""

    name = "judge"
    ema_networks = ("judge",)
    on_white = 0.6
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 2.9, 16.3 and 46.1 million parameters, of them 0.4, 0.9 and 1.3 the things'
        "tiny": {"batch_size": 32, "rate": 1e-3, "widths": (48, 96, 144, 208), "embedding_size": 160},
        "small": {"batch_size": 256, "rate": 1e-3, "widths": (96, 192, 384, 512), "embedding_size": 384},
        "base": {"batch_size": 256, "rate": 8e-4, "widths": (128, 256, 512, 1024), "embedding_size": 512},
    }

    def __init__(
        self, accelerator: Accelerator, emoji: Dataset, seed: int = 0, size: str = "tiny", **options: Any
    ):
        sizes = {**self.SIZES[size], **options}
        self.batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        self.accelerator, self.emoji, self.seed = accelerator, emoji, seed + 2_000_003
        concepts = sorted({concept(icon) for icon in emoji.icons})
        self.labels = np.array([concepts.index(concept(icon)) for icon in emoji.icons])
        torch.manual_seed(self.seed)
        judge = Judge(JudgeConfig(tuple(concepts), **sizes))
        convert_conv2d_weight_memory_format(judge, torch.channels_last).to(accelerator.device)
        self.networks = {"judge": judge}
        self.optimizers = {"judge": torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=0.05)}

    @property
    def judge(self) -> Judge:
        """The network."""
        return cast(Judge, self.networks["judge"])

    def compile_targets(self) -> list[nn.Module]:
        return [self.judge.tower]

    def batch(self, step: int, rank: int = 0, count: int = 1) -> dict[str, Any]:
        """Pictures, how to change and damage them, and what they show."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        chosen = rng.choice(len(self.emoji.icons), n, replace=len(self.emoji.icons) < n)
        table = np.array([colour for _, colour in COLOURS.values()])
        colours = table[np.where(rng.random(n) < self.on_white, 0, rng.integers(0, len(table), n))]
        pictures = on_background(self.emoji.rgba[chosen], colours[:, None, None])
        side = self.judge.config.image_size
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return {
            "images": torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(),
            "changes": draw_augmentation((n, 3, side, side), generator),
            "damages": damages((n, 3, side, side), generator),
            "labels": torch.from_numpy(self.labels[chosen]),
        }

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        side = self.judge.config.image_size
        images = F.interpolate(batch["images"].float().div(127.5).sub(1), (side, side), mode="area")
        images = damaged(apply_augmentation(images, batch["changes"]), batch["damages"])
        with self.accelerator.autocast():
            cosines = self.judge(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(SCALE * cosines.float(), batch["labels"], label_smoothing=0.05)
        self.backward_and_step(loss, self.judge, "judge")
        return {"loss": loss}

    def sample_grid(self) -> Image.Image | None:
        """None: it draws nothing."""
        return None

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """How often it names a picture of emojione on white, and one that is damaged."""
        rows = self.emoji.validation
        generator, hits = torch.Generator().manual_seed(0), {}
        for part in np.array_split(rows, -(-len(rows) // 128)):
            images = to_images(on_background(self.emoji.rgba[part]))
            worse = damaged(images.clone(), damages(tuple(images.shape), generator, share=1.0))
            labels = torch.from_numpy(self.labels[part])
            for name, batch in (("", images), (", damaged", worse)):
                cosines = self.judge(batch.to(self.accelerator.device)).cpu()
                best = cosines.topk(min(5, cosines.shape[1])).indices == labels[:, None]
                for top in (1, 5):
                    hits.setdefault(f"top-{top}{name}", []).append(best[:, :top].any(1))
        return {name: round(torch.cat(parts).float().mean().item(), 4) for name, parts in hits.items()}

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        save_checkpoint(path, self.judge, self.judge.config.to_dict(), facts)
