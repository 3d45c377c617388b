"""How the diffusion model learns: the noise's squared error (Ho et al. 2020), weighted by min-SNR (Hang et al. 2023).

It sees emoji alone, most of them on white, the others on a plain colour: what DiffusionCLIP edits here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.ddim import CLEAN, ddim_walk
from pipelines.models.unet.network import Unet, UnetConfig
from pipelines.training.data.compositing import composed, to_images
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import may_be_mirrored
from pipelines.training.report import image_grid
from pipelines.training.trainer import Trainer


def min_snr_weight(alphas: Tensor, gamma: float = 5.0) -> Tensor:
    """min(SNR, gamma) / SNR for values of alphas_cumprod in (0, 1), the weight of the noise's error; same shape."""
    ratio = alphas / (1 - alphas)
    return ratio.clamp(max=gamma) / ratio


def noise_loss(network: nn.Module, alphas_cumprod: Tensor, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The weighted squared error of the predicted noise, a scalar: x, noise (n, 3, s, s), t (n,) long."""
    alphas = alphas_cumprod[t]
    alpha = alphas[:, None, None, None]
    guess = network(alpha.sqrt() * x + (1 - alpha).sqrt() * noise, t)
    return (min_snr_weight(alphas) * (guess.float() - noise).square().mean((1, 2, 3))).mean()


def even_steps(count: int, step_count: int, offset: float) -> np.ndarray:
    """(count,) steps that divide [0, step_count) evenly, all moved on by `offset` in [0, 1) (Kingma et al. 2021)."""
    return ((np.arange(count) / count + offset) % 1 * step_count).astype(np.int64)


class UnetTrainer(Trainer):
    """Trains a Unet on pictures of the size at which `emoji` was read."""

    name = "unet"
    ema_networks = ("unet",)
    ema_decay = 0.999
    on_white, mirrored, moved = 0.7, 0.2, 0.5  # shares of the pictures
    sheet_steps, trip_steps, return_step = 50, 40, 600
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 4.2, 24.3 and 92.0 million parameters
        "tiny": {"batch_size": 16, "rate": 8e-4, "image_size": 64, "widths": (64, 96, 128)},
        "small": {
            "batch_size": 128,
            "rate": 4e-4,
            "image_size": 64,
            "widths": (128, 192, 256),
            "layer_count": 2,
        },
        "base": {
            "batch_size": 128,
            "rate": 2e-4,
            "image_size": 128,
            "widths": (128, 256, 384, 512),
            "layer_count": 2,
        },
    }

    def __init__(
        self, accelerator: Accelerator, emoji: Dataset, seed: int = 0, size: str = "tiny", **options: Any
    ):
        sizes = {**self.SIZES[size], "image_size": emoji.rgba.shape[1], **options}
        self.batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        self.accelerator, self.emoji, self.seed = accelerator, emoji, seed
        self.mirrors = np.array([may_be_mirrored(icon) for icon in emoji.icons])
        torch.manual_seed(seed)
        unet = Unet(UnetConfig(**sizes))
        _start_small(unet)
        convert_conv2d_weight_memory_format(unet, torch.channels_last).to(accelerator.device)
        adam = torch.optim.AdamW(unet.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.networks, self.optimizers = {"unet": unet}, {"unet": adam}

    @property
    def unet(self) -> Unet:
        """The network."""
        return cast(Unet, self.networks["unet"])

    def compile_targets(self) -> list[nn.Module]:
        return [self.unet.network]

    def batch(self, step: int, rank: int = 0, count: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (n, 3, s, s), noise of the same shape, and steps (n,) that are spread evenly over all processes."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        chosen = rng.choice(self.emoji.train, n, replace=len(self.emoji.train) < n)
        rgba = self.emoji.rgba[chosen]
        turned = (rng.random(n) < self.mirrored) & self.mirrors[chosen]
        rgba[turned] = rgba[turned, :, ::-1]
        colours = np.where(rng.random((n, 1)) < self.on_white, 255, rng.integers(0, 256, (n, 3)))
        movement = rng.uniform((-0.15, -0.05, -0.08, -0.08), (0.15, 0.25, 0.08, 0.08), (n, 4))
        movement *= rng.random((n, 1)) < self.moved
        pictures = composed(rgba, colours, movement, self.emoji.opaque[chosen])
        noise = torch.from_numpy(rng.standard_normal(pictures.shape, dtype=np.float32))
        offset = np.random.default_rng((self.seed, step)).random()  # the same in every process
        times = even_steps(n * count, self.unet.config.step_count, offset)[rank::count]
        return pictures, noise, torch.from_numpy(times.copy())

    def update(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            loss = noise_loss(self.unet, self.unet.alphas_cumprod, *batch)
        self.backward_and_step(loss, self.unet, "unet")
        return {"loss": loss}

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """8 x 4 pictures drawn from fixed noise, by deterministic DDIM."""
        side, last = self.unet.config.image_size, self.unet.config.step_count - 1
        noise = torch.randn(32, 3, side, side, generator=torch.Generator().manual_seed(0))
        return image_grid(
            ddim_walk(self.unet, noise.to(self.accelerator.device), last, CLEAN, self.sheet_steps), 8
        )

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On up to 96 validation pictures on white: the loss, and the PSNR (dB) after a plain DDIM round trip."""
        unet = self.unet.eval()
        rows = self.emoji.validation[:: -(-len(self.emoji.validation) // 96)]
        pictures = to_images(on_background(self.emoji.rgba[rows]))
        noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
        times = torch.from_numpy(even_steps(len(rows), unet.config.step_count, 0.5 / len(rows)))
        device, loss, psnr = self.accelerator.device, 0.0, []
        for chunk in zip(pictures.split(32), noise.split(32), times.split(32), strict=True):
            x, some_noise, some_times = (tensor.to(device) for tensor in chunk)
            loss += noise_loss(unet, unet.alphas_cumprod, x, some_noise, some_times).item() * len(x)
            latent = ddim_walk(unet, x, CLEAN, self.return_step - 1, self.trip_steps)
            again = ddim_walk(unet, latent, self.return_step - 1, CLEAN, self.trip_steps).clamp(-1, 1)
            psnr.append(-10 * ((again - x) / 2).square().mean((1, 2, 3)).clamp(min=1e-10).log10())
        return {
            "loss": round(loss / len(rows), 5),
            "round trip PSNR": round(torch.cat(psnr).mean().item(), 2),
        }

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        save_checkpoint(path, self.unet, self.unet.config.to_dict(), facts)


def _start_small(unet: Unet) -> None:
    """Let every block begin as its shortcut and the whole as zero (Ho et al. 2020); the first loss is then about 1."""
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "to_out.0", "conv_out")):
            for parameter in module.parameters():
                torch.nn.init.zeros_(parameter)
