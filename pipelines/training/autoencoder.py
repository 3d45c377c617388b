"""What the trainings of all codecs share: the pictures, the sheet and the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from pipelines.io.images import ssim
from pipelines.models.base import Codec
from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.vqgan.dvae import Dvae
from pipelines.models.vqgan.network import Vqgan
from pipelines.training.codes import flat, spread
from pipelines.training.data.dataset import Dataset, Pictures, on_background
from pipelines.training.data.scenes import Scenes
from pipelines.training.report import image_grid
from pipelines.training.trainer import PictureTrainer


class AutoencoderTrainer(PictureTrainer):
    """Base of the trainings of codecs, on emoji scenes."""

    kind = "vqgan"  # the row of SPECS
    continuous = 0.0  # share of the pictures decoded from what the encoder says, without codes
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 5.0, 16.8 and 66.1 million parameters; 8 x 8 tokens of a picture of 128
        "tiny": {
            "batch_size": 16,
            "rate": 1e-3,
            "patch": 4,
            "widths": (64, 128, 160),
            "code_count": 1024,
            "code_size": 16,
        },
        "small": {
            "batch_size": 64,
            "rate": 6e-4,
            "patch": 4,
            "widths": (96, 192, 256),
            "layer_count": 2,
            "code_count": 4096,
        },
        "base": {
            "batch_size": 64,
            "rate": 3e-4,
            "patch": 4,
            "widths": (192, 384, 512),
            "layer_count": 2,
            "code_count": 8192,
            "code_size": 32,
        },
    }

    def __init__(self, accelerator: Accelerator, emoji: Dataset, seed: int, batch_size: int):
        self.accelerator, self.emoji, self.seed, self.batch_size = accelerator, emoji, seed, batch_size

    @property
    def codec(self) -> Vqgan | Dvae:
        """The network."""
        return cast(Vqgan | Dvae, self.networks[self.ema_networks[0]])

    def compile_targets(self) -> list[nn.Module]:
        return [self.codec.encoder, self.codec.decoder]

    def batch_of(
        self, pictures: Pictures, rows: np.ndarray, rng: np.random.Generator, step: int, rank: int
    ) -> tuple[Tensor, Tensor, int]:
        """Scenes (n, 3, s, s) uint8; which of them are decoded from codes (n,) bool; and the seed of this step's chance,
        the same in every process."""
        scenes = Scenes(pictures, pictures.train, rng, plain=0.5, coloured=0.3)
        drawn = torch.from_numpy(np.stack([scenes.scene(int(k))[0] for k in rows]))
        quantized = torch.from_numpy(rng.random(len(rows)) >= self.continuous)
        seed = int(np.random.default_rng((self.seed, step)).integers(2**62))
        return drawn.permute(0, 3, 1, 2), quantized, seed

    def _icons(self, rows: np.ndarray) -> Tensor:
        """Icons on white: (n, 3, s, s) in [-1, 1]."""
        pictures = torch.from_numpy(on_background(self.emoji.rgba[rows])).permute(0, 3, 1, 2)
        return as_images(pictures.to(self.accelerator.device))

    @torch.no_grad()
    def _encodings(self, count: int) -> Tensor:
        """What the encoder makes of about `count` training icons on white: (vectors, code_size)."""
        rows = self.emoji.train[:: max(1, len(self.emoji.train) // count)]
        chunks = np.array_split(rows, -(-len(rows) // 64))
        return torch.cat([flat(self.codec.encode(self._icons(chunk))) for chunk in chunks])

    def validation(self, every: int = 1) -> Tensor:
        """Every so many-th validation icon on white: (n, 3, s, s) in [-1, 1]."""
        return self._icons(self.emoji.validation[::every])

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Validation pictures over their reconstructions."""
        pictures = self.validation(-(-len(self.emoji.validation) // 24))
        again = self.codec.decode_tokens(self.codec.encode_tokens(pictures))
        pairs = zip(pictures.split(12), again.split(12), strict=True)
        return image_grid(torch.cat([half for pair in pairs for half in pair]), 12)

    def evaluate(self) -> dict[str, float]:
        return reconstruction(self.codec.eval(), self.validation())

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        spread(self.codec)
        save_checkpoint(path, self.codec, self.codec.config.to_dict(), facts, self.kind)


def as_images(pictures: Tensor) -> Tensor:
    """(n, 3, s, s) uint8 -> float32 in [-1, 1], channels last."""
    return pictures.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def reconstruction(codec: Codec, pictures: Tensor) -> dict[str, float]:
    """PSNR (mean over pictures, dB) and SSIM through the codes and without, and the share of codes in use.

    `pictures` are (n, 3, h, w) in [-1, 1].
    """
    used = torch.zeros(len(codec.codes), dtype=torch.bool)
    rows = []
    for chunk in pictures.split(64):
        z, tokens = codec.encode(chunk), codec.encode_tokens(chunk)
        used[tokens.flatten().cpu()] = True
        for again in (codec.decode_tokens(tokens), codec.decode(z)):
            a, b = (chunk + 1) / 2, (again.clamp(-1, 1) + 1) / 2
            rows += [-10 * (a - b).square().mean((1, 2, 3)).clamp(min=1e-10).log10(), ssim(a, b)]
    psnr, likeness, psnr_without, likeness_without = (torch.cat(rows[k::4]).mean().item() for k in range(4))
    return {
        "PSNR": round(psnr, 2),
        "SSIM": round(likeness, 4),
        "PSNR without codes": round(psnr_without, 2),
        "SSIM without codes": round(likeness_without, 4),
        "codes used": round(used.float().mean().item(), 4),
    }
