"""How the matting network learns: icons on white, on a colour or on something drawn, and their opacity.

A part of the pictures went through the pack's codec before, and others were blurred, hazed or saved as JPEG, because it is
asked about pictures that networks have drawn.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.io.files import write_atomically
from pipelines.models.base import Codec
from pipelines.models.checkpoint import file_hash, save_checkpoint
from pipelines.models.matting.network import Matting, MattingConfig
from pipelines.training.data.damage import SMALLER, damaged, damages
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.frozen import load_codec
from pipelines.training.pretrained import begin_with
from pipelines.training.report import image_grid
from pipelines.training.trainer import Trainer

BANK = 1_024  # pictures that went through the codec
BATCH = 32  # pictures that the codec is given at once
ON_WHITE, ON_COLOUR = 0.5, 0.25  # shares of the pictures; the others lie on something drawn
MOVED, RECODED, JPEGS, DAMAGED = 0.6, 0.3, 0.15, 0.3


def placed(rgba: np.ndarray, movement: np.ndarray) -> tuple[Tensor, Tensor]:
    """Icons turned, moved and mirrored: colours (n, 3, s, s), premultiplied, and opacities (n, 1, s, s), in [0, 1].

    rgba (n, s, s, 4) uint8; movement (n, 4): angle in radians, logarithm of how much smaller, and shift right and down
    as shares of half a side. No movement leaves every pixel as it is.
    """
    angle, smaller, right, down = torch.from_numpy(movement).float().T
    cos, sin = angle.cos() * smaller.exp(), angle.sin() * smaller.exp()
    theta = torch.stack([torch.stack([cos, -sin, -right], 1), torch.stack([sin, cos, -down], 1)], 1)
    x = torch.from_numpy(np.ascontiguousarray(rgba)).permute(0, 3, 1, 2).float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False).clamp(0, 1)
    return x[:, :3], x[:, 3:]


def backgrounds(rng: np.random.Generator, count: int, side: int) -> Tensor:
    """(n, 3, s, s) in [0, 1]: white, one colour, or a few soft colours beside one another."""
    dice = rng.random(count)
    grounds = torch.ones(count, 3, 1, 1).expand(-1, -1, side, side).clone()
    for k in range(count):
        if dice[k] >= ON_WHITE + ON_COLOUR:
            colours = torch.from_numpy(rng.random((1, 3, *rng.integers(1, 5, 2)))).float()
            base = torch.from_numpy(rng.random((1, 3, 1, 1))).float()
            colours = base + (colours - base) * float(rng.random())
            grounds[k] = F.interpolate(colours, (side, side), mode="bilinear", align_corners=True)[0]
        elif dice[k] >= ON_WHITE:
            grounds[k] = torch.from_numpy(rng.random((3, 1, 1))).float()
    return grounds


def as_jpeg(picture: Tensor, quality: int) -> Tensor:
    """(3, h, w) in [-1, 1], as it comes back from a JPEG file of a quality from 1 to 95."""
    levels = picture.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
    again = np.asarray(Image.open(buffer, formats=["JPEG"]))
    return torch.from_numpy(again.copy()).permute(2, 0, 1).float().div(127.5).sub(1)


def matting_loss(logits: Tensor, alpha: Tensor) -> Tensor:
    """Cross entropy, absolute error of alpha and of its differences, and the soft Jaccard distance, a scalar.

    Logits and alpha are (n, 1, h, w), alpha in [0, 1]. The Jaccard distance (Rahman and Wang 2016) is of each picture, so
    small things count as much as large ones; that of differences asks for crisp edges (as the Laplacian loss of Hou and
    Liu 2019).
    """
    logits = logits.float()
    guess = logits.sigmoid()
    down = (guess - alpha).diff(dim=2).abs().mean() + (guess - alpha).diff(dim=3).abs().mean()
    both, either = (guess * alpha).sum((1, 2, 3)), (guess + alpha - guess * alpha).sum((1, 2, 3))
    jaccard = 1 - (both + 1) / (either + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, alpha)
    return entropy + F.l1_loss(guess, alpha) + down + jaccard.mean()


def intersection_over_union(guess: Tensor, alpha: Tensor) -> Tensor:
    """Of what is more than half opaque, (n, 1, h, w) twice -> (n,) in [0, 1]; 1 where both are empty."""
    a, b = guess > 0.5, alpha > 0.5
    both, either = (a & b).sum((1, 2, 3)), (a | b).sum((1, 2, 3))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


class MattingTrainer(Trainer):
    """Trains a Matting on icons; `pack` is the folder with the codec that redraws some of them, where there is one."""

    name = "matting"
    ema_networks = ("matting",)
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 0.5, 3.4 and 13.5 million parameters
        "tiny": {"batch_size": 16, "rate": 1.5e-3},
        "small": {"batch_size": 64, "rate": 1e-3, "widths": (96, 160, 224)},
        "base": {"batch_size": 64, "rate": 6e-4, "widths": (192, 320, 448), "detail_width": 32},
    }

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        folder: Path,
        seed: int = 0,
        size: str = "tiny",
        start: Path | None = None,
        **options: Any,
    ):
        """`folder` keeps the pictures that went through the codec; `start` is an earlier checkpoint."""
        sizes = {**self.SIZES[size], **options}
        self.batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        self.accelerator, self.emoji, self.seed = accelerator, emoji, seed
        torch.manual_seed(seed)
        matting = Matting(MattingConfig(**sizes))
        if start is not None:
            self.start = f"{len(begin_with(matting, start))} tensors of {start.name}"
        convert_conv2d_weight_memory_format(matting, torch.channels_last).to(accelerator.device)
        self.networks = {"matting": matting}
        self.optimizers = {
            "matting": torch.optim.AdamW(matting.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        }
        self.codec: Codec | None = None
        self.bank: dict[str, Tensor] = {}
        if (pack / "codec.safetensors").exists():
            self.codec = load_codec(pack / "codec.safetensors", accelerator.device)
            file = (
                folder
                / f"recoded-{file_hash(pack / 'codec.safetensors')[:12]}-{emoji.hash}-{seed}.safetensors"
            )
            with accelerator.main_process_first():
                if not file.exists():
                    write_atomically(file, save(self._recoded_bank()))
            self.bank = load_file(file)

    @property
    def matting(self) -> Matting:
        """The network."""
        return cast(Matting, self.networks["matting"])

    def compile_targets(self) -> list[nn.Module]:
        return [self.matting]

    def composed(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """New pictures (n, 3, s, s) in [-1, 1] and their opacities (n, 1, s, s) in [0, 1]."""
        chosen = rng.choice(self.emoji.train, count, replace=len(self.emoji.train) < count)
        rgba = self.emoji.rgba[chosen]
        turned = rng.random(count) < 0.5
        rgba[turned] = rgba[turned, :, ::-1]
        movement = rng.uniform((-0.3, -0.1, -0.15, -0.15), (0.3, 0.5, 0.15, 0.15), (count, 4))
        movement *= rng.random((count, 1)) < MOVED
        colours, alpha = placed(rgba, movement)
        pictures = colours + (1 - alpha) * backgrounds(rng, count, rgba.shape[1])
        return pictures * 2 - 1, alpha

    def batch(self, step: int, rank: int = 0, count: int = 1) -> tuple[Tensor, Tensor]:
        """Pictures (n, 3, s, s) in [-1, 1] and opacities (n, 1, s, s): new ones, and some that the codec drew again."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        pictures, alpha = self.composed(rng, n)
        recoded = torch.from_numpy(rng.random(n) < RECODED) & bool(self.bank)
        if recoded.any():
            rows = torch.from_numpy(rng.integers(len(self.bank["pictures"]), size=int(recoded.sum())))
            flip = [3] if rng.random() < 0.5 else []
            pictures[recoded] = self.bank["pictures"][rows].float().div(127.5).sub(1).flip(flip)
            alpha[recoded] = self.bank["alpha"][rows].float().div(255).flip(flip)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pictures = damaged(pictures, milder(damages(tuple(pictures.shape), generator, DAMAGED)))
        for k in np.flatnonzero(rng.random(n) < JPEGS):
            pictures[k] = as_jpeg(pictures[k], int(rng.integers(40, 96)))
        return pictures, alpha

    def update(self, batch: tuple[Tensor, Tensor], progress: float) -> dict[str, Tensor]:
        pictures, alpha = batch
        with self.accelerator.autocast():
            logits = self.matting(pictures)
        loss = matting_loss(logits, alpha)
        self.backward_and_step(loss, self.matting, "matting")
        return {"loss": loss, "IoU": intersection_over_union(logits.sigmoid(), alpha).mean()}

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Validation pictures above what is cut out of them, on black."""
        rows = self.emoji.validation[:: -(-len(self.emoji.validation) // 24)]
        pictures, _ = self._on_white(rows)
        alpha = self.matting.eval()(pictures).sigmoid()
        cut = (pictures + 1) * alpha - 1
        pairs = zip(pictures.split(12), cut.split(12), strict=True)
        return image_grid(torch.cat([half for pair in pairs for half in pair]), 12)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On every fourth validation picture on white, clean and after the codec: mean IoU, mean absolute error."""
        parts: dict[str, list[Tensor]] = {}
        for rows in np.array_split(self.emoji.validation[::4], -(-len(self.emoji.validation) // 128)):
            if len(rows) == 0:
                continue
            pictures, alpha = self._on_white(rows)
            seen = {"": pictures}
            if self.codec is not None:
                seen[", drawn again"] = self.codec.decode(self.codec.encode(pictures)).clamp(-1, 1)
            for name, images in seen.items():
                guess = self.matting.eval()(images).sigmoid()
                parts.setdefault("IoU" + name, []).append(intersection_over_union(guess, alpha))
                parts.setdefault("error" + name, []).append((guess - alpha).abs().mean((1, 2, 3)))
        return {name: round(torch.cat(values).mean().item(), 4) for name, values in parts.items()}

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        save_checkpoint(path, self.matting, self.matting.config.to_dict(), facts)

    def _on_white(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        rgba = torch.from_numpy(self.emoji.rgba[rows]).permute(0, 3, 1, 2)
        pictures = torch.from_numpy(on_background(self.emoji.rgba[rows])).permute(0, 3, 1, 2)
        device = self.accelerator.device
        return pictures.float().div(127.5).sub(1).to(device), rgba[:, 3:].float().div(255).to(device)

    @torch.no_grad()
    def _recoded_bank(self) -> dict[str, Tensor]:
        """BANK pictures (n, 3, s, s) uint8 as the codec draws them, half of them through its codes, and their alpha."""
        assert self.codec is not None
        rng, pictures, alphas = np.random.default_rng((self.seed, 9)), list[Tensor](), list[Tensor]()
        for start in range(0, BANK, BATCH):
            images, alpha = self.composed(rng, min(BATCH, BANK - start))
            with self.accelerator.autocast():
                z = self.codec.encode(images.to(self.accelerator.device))
                if start // BATCH % 2:
                    z = self.codec.embed(self.codec.quantize(z))
                again = self.codec.decode(z).float().clamp(-1, 1)
            pictures.append(again.add(1).mul(127.5).round().to("cpu", torch.uint8))
            alphas.append(alpha.mul(255).round().to(torch.uint8))
        return {"pictures": torch.cat(pictures).contiguous(), "alpha": torch.cat(alphas).contiguous()}


def milder(damage: dict[str, Tensor]) -> dict[str, Tensor]:
    """The damages that leave everything in its place, and blur at most to a third: opacities stay true."""
    keep = damage["smaller"].clamp(max=SMALLER.index(3))
    places = torch.arange(damage["blocks"].shape[1]).repeat(len(keep), 1)
    still = {"warp": torch.zeros_like(damage["warp"]), "blocks": places, "smaller": keep}
    return damage | still | {name: 0.3 * damage[name] for name in ("haze", "noise")}
