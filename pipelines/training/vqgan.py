"""How the VQGAN learns (Esser et al. 2021): reconstruction, perceptual and adversarial losses, a code book kept in use.

The perceptual features come from the project's own CLIP, since it is the network that will look at the pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.images import ssim
from pipelines.models.checkpoint import load_weights, read_header, save_checkpoint
from pipelines.models.clip import Clip, ClipConfig, ImageTower
from pipelines.models.tokenizer import Tokenizer
from pipelines.models.vqgan import Vqgan, VqganConfig
from pipelines.training.data import Emoji, Scenes, on_background
from pipelines.training.fit import Trainer, sheet_of


class Discriminator(nn.Sequential):
    """A patch discriminator (Isola et al. 2017): (n, 3, h, w) -> (n, 1, h / 8, w / 8) logits."""

    def __init__(self, width: int = 32):
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for k in range(2):
            wide = width * 2**k
            layers += [
                nn.Conv2d(wide, 2 * wide, 4, 2, 1, bias=False),
                nn.GroupNorm(8, 2 * wide),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(4 * width, 1, 3, 1, 1))


class VqganTrainer(Trainer):
    """Trains a Vqgan on emoji scenes; `pack` is the folder with the CLIP whose features judge the likeness."""

    name = "vqgan"
    averaged = ("vqgan",)
    perceptual_weight, adversarial_weight, adversarial_from = 0.4, 0.1, 0.7

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Emoji,
        pack: Path,
        seed: int = 0,
        batch_size: int = 16,
        rate: float = 1e-3,
        **sizes: Any,
    ):
        self.accelerator, self.emoji, self.seed, self.batch_size = accelerator, emoji, seed, batch_size
        torch.manual_seed(seed)
        vqgan, critic = Vqgan(VqganConfig(**sizes)), Discriminator()
        for network in (vqgan, critic):
            convert_conv2d_weight_memory_format(network, torch.channels_last)
        steady = torch.optim.AdamW(vqgan.parameters(), lr=rate, betas=(0.8, 0.98), weight_decay=0.0)
        other = torch.optim.AdamW(critic.parameters(), lr=rate / 2, betas=(0.5, 0.98), weight_decay=0.0)
        vqgan, critic, steady, other = accelerator.prepare(vqgan, critic, steady, other)
        self.networks = {"vqgan": vqgan, "discriminator": critic}
        self.optimizers = {"vqgan": steady, "discriminator": other}
        self.clip = _load_clip(pack, accelerator.device)
        self.unused = torch.zeros(vqgan.config.code_count, device=accelerator.device)  # steps since last used

    def samples_per_step(self) -> int:
        return self.batch_size * self.accelerator.num_processes

    def batch(self, step: int) -> Tensor:
        rng = np.random.default_rng((self.seed, step, self.accelerator.process_index))
        scenes = Scenes(self.emoji, self.emoji.train, 0, plain=0.5, coloured=0.3)
        scenes.rng = rng
        chosen = rng.choice(
            self.emoji.train, self.batch_size, replace=len(self.emoji.train) < self.batch_size
        )
        pictures = torch.from_numpy(np.stack([scenes.scene(int(k))[0] for k in chosen]))
        images = pictures.permute(0, 3, 1, 2).to(self.accelerator.device).float().div(127.5).sub(1)
        return images.contiguous(memory_format=torch.channels_last)

    def update(self, batch: Tensor, progress: float) -> dict[str, float]:
        vqgan, critic = self.accelerator.unwrap_model(self.networks["vqgan"]), self.networks["discriminator"]
        with self.accelerator.autocast():
            z = vqgan.encode(batch).float()
            tokens = vqgan.nearest(z.detach())
            codes = vqgan.embed(tokens)
            images = vqgan.decode(z + (codes - z).detach()).float()  # straight-through gradient
        code_loss = F.mse_loss(codes, z.detach()) + 0.25 * F.mse_loss(z, codes.detach())
        pixel_loss = F.l1_loss(images, batch) + 2 * F.mse_loss(images, batch)
        loss = pixel_loss + code_loss
        metrics = {"pixel": pixel_loss.item(), "code": code_loss.item()}
        if self.clip is not None:
            likeness = self.perceptual(images, batch)
            loss = loss + self.perceptual_weight * likeness
            metrics["perceptual"] = likeness.item()
        if progress > self.adversarial_from:
            with self.accelerator.autocast():
                fooled = -critic(images).float().mean()
            loss = loss + self._adaptive_weight(loss, fooled, vqgan) * fooled
            metrics["fooled"] = fooled.item()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(vqgan.parameters(), 1.0)
        self.optimizers["vqgan"].step()
        self.optimizers["vqgan"].zero_grad()
        if progress > self.adversarial_from - 0.05:  # the discriminator starts a little earlier
            self.optimizers["discriminator"].zero_grad()
            with self.accelerator.autocast():
                real, fake = critic(batch).float(), critic(images.detach()).float()
            told_apart = F.relu(1 - real).mean() + F.relu(1 + fake).mean()  # hinge loss
            self.accelerator.backward(told_apart)
            self.optimizers["discriminator"].step()
            self.optimizers["discriminator"].zero_grad()
            metrics["told apart"] = told_apart.item()
        metrics["codes used"] = self._revive(vqgan, tokens, z, progress)
        return metrics

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of channel-normalized features of CLIP's first stages (as Zhang et al. 2018, unweighted)."""
        assert self.clip is not None
        image = self.clip.image
        with self.accelerator.autocast():
            assert isinstance(image, ImageTower)
            ours = _first_features(image, self.clip.prepare(a))
            with torch.no_grad():
                theirs = _first_features(image, self.clip.prepare(b))
        pairs = zip(ours, theirs, strict=True)
        return sum(
            (
                (F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).square().sum(1).mean()
                for x, y in pairs
            ),
            torch.zeros((), device=a.device),
        )

    def _adaptive_weight(self, loss: Tensor, fooled: Tensor, vqgan: Vqgan) -> Tensor:
        """Balance by the gradients at the decoder's last layer (Esser et al. 2021, equation 7)."""
        last = vqgan.decoder.conv_out.weight
        calm = torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
        wild = torch.autograd.grad(fooled, last, retain_graph=True)[0].norm()
        return self.adversarial_weight * (calm / (wild + 1e-4)).clamp(max=10).detach()

    @torch.no_grad()
    def _revive(self, vqgan: Vqgan, tokens: Tensor, z: Tensor, progress: float) -> float:
        """Move codes that were not used for long onto encodings of this batch; returns the share in recent use."""
        self.unused += 1
        self.unused[tokens.flatten().unique()] = 0
        dead = (self.unused > 40).nonzero()[:, 0]
        if progress < 0.8 and len(dead):
            dead = dead[torch.randperm(len(dead), device=dead.device)[:64]]
            flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
            chosen = torch.randint(len(flat), (len(dead),), device=flat.device)
            vqgan.codes[dead] = flat[chosen]
            self.unused[dead] = 0
        return 1 - (self.unused > 40).float().mean().item()

    def sheet(self) -> Image.Image:
        """Validation pictures over their reconstructions."""
        pictures = self._validation()[:: max(1, len(self.emoji.validation) // 24)][:24]
        with torch.no_grad():
            vqgan = self.accelerator.unwrap_model(self.networks["vqgan"])
            again = vqgan.pictures_of(vqgan.tokens_of(pictures))
        pairs = zip(pictures.split(12), again.split(12), strict=True)
        return sheet_of(torch.cat([half for pair in pairs for half in pair]), 12)

    def _validation(self) -> Tensor:
        pictures = torch.from_numpy(on_background(self.emoji.rgba[self.emoji.validation]))
        return pictures.permute(0, 3, 1, 2).to(self.accelerator.device).float().div(127.5).sub(1)

    def evaluate(self) -> dict[str, float]:
        return reconstruction(
            self.accelerator.unwrap_model(self.networks["vqgan"]).eval(), self._validation()
        )

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        vqgan = self.accelerator.unwrap_model(self.networks["vqgan"])
        save_checkpoint(path, vqgan, vqgan.config.to_dict(), facts)


class DecoderTrainer(VqganTrainer):
    """Goes on training the decoder of the pack's VQGAN alone, for likeness of pixels.

    Encoder and codes stay as they are, and with them every token: a DALL·E trained on the tokens still fits.
    """

    name, file = "decoder", "vqgan.safetensors"
    perceptual_weight = 0.1

    def __init__(self, accelerator: Accelerator, emoji: Emoji, pack: Path, seed: int = 0, **options: Any):
        config, self.story = read_header(pack / self.file)
        super().__init__(accelerator, emoji, pack, seed, **options, **config)
        vqgan = accelerator.unwrap_model(self.networks["vqgan"])
        load_weights(pack / self.file, vqgan)
        vqgan.requires_grad_(False)
        for part in (vqgan.decoder, vqgan.after_codes):
            part.requires_grad_(True)

    def update(self, batch: Tensor, progress: float) -> dict[str, float]:
        vqgan = self.accelerator.unwrap_model(self.networks["vqgan"])
        with self.accelerator.autocast():
            with torch.no_grad():
                tokens = vqgan.tokens_of(batch)
            images = vqgan.pictures_of(tokens).float()
        loss = pixel_loss = F.l1_loss(images, batch) + 4 * F.mse_loss(images, batch)
        metrics = {"pixel": pixel_loss.item()}
        if self.clip is not None:
            likeness = self.perceptual(images, batch)
            loss = loss + self.perceptual_weight * likeness
            metrics["perceptual"] = likeness.item()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(vqgan.parameters(), 1.0)
        self.optimizers["vqgan"].step()
        self.optimizers["vqgan"].zero_grad()
        return metrics

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        """The figures are of the whole; how the decoder went on is told inside the VQGAN's own story."""
        super().export(path, {**self.story, "figures": facts["figures"], "decoder": facts})


def _first_features(image: ImageTower, x: Tensor) -> list[Tensor]:
    """CLIP's first two stages only; the later ones cost more and say little about pixels."""
    first = image.stages[0](image.stem(x))
    return [first, image.stages[1](first)]


def _load_clip(pack: Path, device: torch.device) -> Clip | None:
    if not (pack / "clip.safetensors").exists():
        return None
    config, _ = read_header(pack / "clip.safetensors")
    clip = Clip(ClipConfig.from_dict(config), Tokenizer.load(pack / "tokenizer.json"))
    load_weights(pack / "clip.safetensors", clip)
    convert_conv2d_weight_memory_format(clip.image, torch.channels_last)
    return clip.eval().requires_grad_(False).to(device)


@torch.no_grad()
def reconstruction(vqgan: Vqgan, pictures: Tensor) -> dict[str, float]:
    """PSNR (mean over pictures, dB), SSIM and the share of codes in use, on (n, 3, h, w) in [-1, 1]."""
    used = torch.zeros(vqgan.config.code_count, dtype=torch.bool)
    psnr, likeness = [], []
    for chunk in pictures.split(64):
        tokens = vqgan.tokens_of(chunk)
        used[tokens.flatten().cpu()] = True
        a, b = (chunk + 1) / 2, (vqgan.pictures_of(tokens).clamp(-1, 1) + 1) / 2
        psnr.append(-10 * (a - b).square().mean((1, 2, 3)).clamp(min=1e-10).log10())
        likeness.append(ssim(a, b))
    return {
        "PSNR": round(torch.cat(psnr).mean().item(), 2),
        "SSIM": round(torch.cat(likeness).mean().item(), 4),
        "codes used": round(used.float().mean().item(), 4),
    }
