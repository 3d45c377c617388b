"""How the VQGAN learns (Esser et al. 2021): reconstruction, perceptual and adversarial losses, a code book kept in use.

The perceptual features come from the project's own CLIP, since it is the network that will look at the pictures. Each
code is the running mean of the encodings that choose it (van den Oord et al. 2017, appendix A.1).
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

from pipelines.errors import BadInput
from pipelines.io.images import ssim
from pipelines.models.base import Codec
from pipelines.models.checkpoint import load_weights, read_header, save_checkpoint
from pipelines.models.clip.network import Clip, ClipConfig, EfficientNetTower, ImageTower, tf_same_conv
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.scenes import Scenes
from pipelines.training.pretrained import begin_with
from pipelines.training.report import image_grid
from pipelines.training.trainer import Trainer

SPREAD = 1.2  # of the codes


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
    ema_networks = ("vqgan",)
    perceptual_weight, adversarial_weight, adversarial_from = 0.2, 0.1, 0.6
    patience = 40  # steps for which a code may stay unused
    memory = 0.98  # how much of a code's running mean stays in a step
    continuous = 0.3  # share of the pictures decoded from what the encoder says, without codes
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

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        seed: int = 0,
        size: str = "tiny",
        start: Path | None = None,
        **options: Any,
    ):
        """`start` is an earlier checkpoint, of which the tensors that fit are taken; the codes are laid anew."""
        sizes = {**self.SIZES[size], **options}
        self.batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        self.accelerator, self.emoji, self.seed = accelerator, emoji, seed
        torch.manual_seed(seed)
        vqgan, critic = Vqgan(VqganConfig(**sizes)), Discriminator()
        vqgan.codes.requires_grad_(False)  # running means, not descended
        if start is not None:
            rate *= 0.4  # larger steps would first undo what was learned
            fitted = begin_with(vqgan, start)
            self.start = f"{len(fitted)} tensors of {start.name}, its codes laid anew by k-means"
        for network in (vqgan, critic):
            convert_conv2d_weight_memory_format(network, torch.channels_last).to(accelerator.device)
        self.networks = {"vqgan": vqgan, "discriminator": critic}
        self.optimizers = {
            "vqgan": torch.optim.AdamW(
                [p for p in vqgan.parameters() if p.requires_grad],
                lr=rate,
                betas=(0.8, 0.98),
                weight_decay=0.0,
            ),
            "discriminator": torch.optim.AdamW(
                critic.parameters(), lr=rate / 2, betas=(0.5, 0.98), weight_decay=0.0
            ),
        }
        self.clip: Clip | None = None
        if (pack / "clip.safetensors").exists():
            self.clip = load_clip(pack, accelerator.device)
            convert_conv2d_weight_memory_format(self.clip.image, torch.channels_last)
        if start is not None:
            vqgan.codes.data.copy_(k_means(self._encodings(2_048), vqgan.config.code_count, seed))
        self.unused = torch.zeros(vqgan.config.code_count, device=accelerator.device)  # steps since last used
        self.counts, self.sums = torch.ones_like(self.unused), vqgan.codes.detach().clone()

    @property
    def vqgan(self) -> Vqgan:
        """The network."""
        return cast(Vqgan, self.networks["vqgan"])

    def compile_targets(self) -> list[nn.Module]:
        return [self.vqgan.encoder, self.vqgan.decoder, self.networks["discriminator"]]

    def extra_state(self) -> dict[str, Tensor]:
        return {"unused": self.unused, "counts": self.counts, "sums": self.sums}

    @torch.no_grad()
    def _encodings(self, count: int) -> Tensor:
        """What the encoder makes of about `count` training icons on white: (vectors, code_size)."""
        rows = self.emoji.train[:: max(1, len(self.emoji.train) // count)]
        z = []
        for chunk in np.array_split(rows, -(-len(rows) // 64)):
            pictures = torch.from_numpy(on_background(self.emoji.rgba[chunk])).permute(0, 3, 1, 2)
            z.append(_flat(self.vqgan.encode(_images(pictures.to(self.accelerator.device)))))
        return torch.cat(z)

    def batch(self, step: int, rank: int = 0, count: int = 1) -> tuple[Tensor, Tensor, int]:
        """Scenes (n, 3, s, s) uint8; which of them are decoded from codes (n,) bool; and the seed of this step's chance,
        the same in every process."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        scenes = Scenes(self.emoji, self.emoji.train, rng, plain=0.5, coloured=0.3)
        chosen = rng.choice(self.emoji.train, n, replace=len(self.emoji.train) < n)
        pictures = torch.from_numpy(np.stack([scenes.scene(int(k))[0] for k in chosen]))
        quantized = torch.from_numpy(rng.random(n) >= self.continuous)
        seed = int(np.random.default_rng((self.seed, step)).integers(2**62))
        return pictures.permute(0, 3, 1, 2), quantized, seed

    def update(self, batch: tuple[Tensor, Tensor, int], progress: float) -> dict[str, Tensor]:
        vqgan, critic, images = self.vqgan, self.networks["discriminator"], _images(batch[0])
        with self.accelerator.autocast():
            z = vqgan.encode(images)
        z = z.float()
        tokens = vqgan.quantize(z.detach())  # in float32: in bfloat16 the nearest is often another one
        codes = vqgan.embed(tokens)
        quantized = batch[1][:, None, None, None].to(z)
        with self.accelerator.autocast():
            again = vqgan.decode(z + (codes - z).detach() * quantized).float()  # straight-through gradient
        code_loss = 0.25 * F.mse_loss(z, codes)
        pixel_loss = self.pixel_loss(again, images)
        loss = pixel_loss + code_loss
        metrics = {"pixel": pixel_loss, "code": code_loss}
        if self.clip is not None:
            metrics["perceptual"] = self.perceptual(again, images)
            loss = loss + self.perceptual_weight * metrics["perceptual"]
        if progress > self.adversarial_from:
            with self.accelerator.autocast():
                fooled = -critic(again).float().mean()
            loss = loss + self._adaptive_weight(loss, fooled) * fooled
            metrics["fooled"] = fooled
        self.backward_and_step(loss, vqgan, "vqgan")
        if progress > self.adversarial_from - 0.05:  # the discriminator starts a little earlier
            self.optimizers["discriminator"].zero_grad()
            with self.accelerator.autocast():
                real, fake = critic(images).float(), critic(again.detach()).float()
            metrics["told apart"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()  # hinge loss
            self.backward_and_step(metrics["told apart"], None, "discriminator")
        metrics["codes used"] = self._follow_codes(tokens, z.detach(), batch[2], progress)
        return metrics

    def pixel_loss(self, again: Tensor, images: Tensor) -> Tensor:
        """Absolute and squared error of (n, 3, h, w) in [-1, 1], and what they lack in SSIM (Zhao et al. 2017)."""
        unlike = 1 - ssim((again + 1) / 2, (images + 1) / 2).mean()
        return F.l1_loss(again, images) + 3 * F.mse_loss(again, images) + 0.2 * unlike

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of channel-normalized features of CLIP's first stages (as Zhang et al. 2018, unweighted)."""
        assert self.clip is not None
        with self.accelerator.autocast():
            ours = _first_features(self.clip.image, self.clip.prepare(a))
            with torch.no_grad():
                theirs = _first_features(self.clip.image, self.clip.prepare(b))
        distances = [
            (F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).square().sum(1).mean()
            for x, y in zip(ours, theirs, strict=True)
        ]
        return torch.stack(distances).sum()

    def _adaptive_weight(self, loss: Tensor, fooled: Tensor) -> Tensor:
        """Balance by the joint gradients at the decoder's last layer (Esser et al. 2021, equation 7)."""
        last = self.vqgan.decoder.conv_out.weight
        gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in (loss, fooled)]
        calm, wild = self.mean_over_processes(torch.stack(gradients))
        return self.adversarial_weight * (calm.norm() / (wild.norm() + 1e-4)).clamp(max=10)

    @torch.no_grad()
    def _follow_codes(self, tokens: Tensor, z: Tensor, seed: int, progress: float) -> Tensor:
        """Move each code to the running mean of the encodings that chose it, over the joint batch.

        Codes that were not chosen for long are put onto encodings. Returns the share in recent use.
        """
        tokens, z = (cast(Tensor, self.accelerator.gather(tensor)) for tensor in (tokens, z))
        flat, chosen = _flat(z), tokens.flatten()
        self.counts.mul_(self.memory).add_(
            torch.bincount(chosen, minlength=len(self.counts)) * (1 - self.memory)
        )
        self.sums.mul_(self.memory).index_add_(0, chosen, flat, alpha=1 - self.memory)
        self.vqgan.codes.data.copy_(self.sums / self.counts[:, None].clamp(min=1e-6))
        self.unused += 1
        self.unused[tokens.flatten()] = 0
        dead = (self.unused > self.patience).nonzero()[:, 0]
        if progress < 0.8 and len(dead):
            generator = torch.Generator().manual_seed(seed)
            dead = dead[torch.randperm(len(dead), generator=generator)[:64].to(dead.device)]
            somewhere = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
            self.vqgan.codes.data[dead] = flat[somewhere]
            self.counts[dead], self.sums[dead] = 1 - self.memory, flat[somewhere] * (1 - self.memory)
            self.unused[dead] = 0
        return (self.unused <= self.patience).float().mean()

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Validation pictures over their reconstructions."""
        pictures = self._validation(-(-len(self.emoji.validation) // 24))
        again = self.vqgan.decode_tokens(self.vqgan.encode_tokens(pictures))
        pairs = zip(pictures.split(12), again.split(12), strict=True)
        return image_grid(torch.cat([half for pair in pairs for half in pair]), 12)

    def _validation(self, every: int = 1) -> Tensor:
        pictures = torch.from_numpy(on_background(self.emoji.rgba[self.emoji.validation[::every]]))
        return _images(pictures.permute(0, 3, 1, 2).to(self.accelerator.device))

    def evaluate(self) -> dict[str, float]:
        return reconstruction(self.vqgan.eval(), self._validation())

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        spread(self.vqgan)
        save_checkpoint(path, self.vqgan, self.vqgan.config.to_dict(), facts)


class CodecTrainer(VqganTrainer):
    """Trains the crisper VQGAN of twice as many tokens a side, whose continuous latents the prior draws."""

    name = "codec"
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 5.7, 16.3 and 65.1 million parameters; 16 x 16 tokens of a picture of 128
        "tiny": {
            "batch_size": 16,
            "rate": 1e-3,
            "patch": 4,
            "widths": (96, 192),
            "code_count": 4096,
            "code_size": 8,
        },
        "small": {
            "batch_size": 64,
            "rate": 6e-4,
            "patch": 2,
            "widths": (96, 192, 256),
            "layer_count": 2,
            "code_count": 4096,
        },
        "base": {
            "batch_size": 64,
            "rate": 3e-4,
            "patch": 2,
            "widths": (192, 384, 512),
            "layer_count": 2,
            "code_count": 8192,
            "code_size": 32,
        },
    }


class DecoderTrainer(CodecTrainer):
    """Goes on training the decoder of the pack's codec alone, for likeness of pixels.

    Encoder and codes stay as they are, and with them every latent and token: a prior trained on them still fits.
    """

    name, file = "decoder", "codec.safetensors"
    perceptual_weight = 0.1

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        seed: int = 0,
        size: str = "tiny",
        **options: Any,
    ):
        config, self.history = read_header(pack / self.file)
        sizes = VqganConfig.from_dict(config).to_dict()
        super().__init__(accelerator, emoji, pack, seed, size, **{**options, **sizes})
        load_weights(pack / self.file, self.vqgan)
        self.vqgan.requires_grad_(False)
        for part in (self.vqgan.decoder, self.vqgan.after_codes):
            part.requires_grad_(True)

    def update(self, batch: tuple[Tensor, Tensor, int], progress: float) -> dict[str, Tensor]:
        images, quantized = _images(batch[0]), batch[1][:, None, None, None]
        with torch.no_grad():
            z = self.vqgan.encode(images)
            codes = torch.where(quantized, self.vqgan.embed(self.vqgan.quantize(z)), z)
        with self.accelerator.autocast():
            again = self.vqgan.decode(codes).float()
        pixel_loss = self.pixel_loss(again, images)
        loss, metrics = pixel_loss, {"pixel": pixel_loss}
        if self.clip is not None:
            metrics["perceptual"] = self.perceptual(again, images)
            loss = loss + self.perceptual_weight * metrics["perceptual"]
        self.backward_and_step(loss, self.vqgan, "vqgan")
        return metrics

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        """The figures are of the whole; how the decoder went on is told inside the VQGAN's own story."""
        history = {**self.history, "figures": facts["figures"], "decoder": facts}
        save_checkpoint(path, self.vqgan, self.vqgan.config.to_dict(), history)


def _images(pictures: Tensor) -> Tensor:
    """(n, 3, s, s) uint8 -> float32 in [-1, 1], channels last."""
    return pictures.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def _flat(z: Tensor) -> Tensor:
    """(n, c, h, w) -> (n h w, c)."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


@torch.no_grad()
def spread(vqgan: Vqgan) -> None:
    """Scale the codes to a deviation of SPREAD, and the layers around them, so that tokens and pictures stay.

    Optimize walks among the codes by steps of a fixed length, which should mean the same for every training.
    """
    scale = SPREAD / vqgan.codes.std()
    vqgan.codes.mul_(scale)
    vqgan.before_codes.weight.mul_(scale)
    cast(Tensor, vqgan.before_codes.bias).mul_(scale)
    vqgan.after_codes.weight.div_(scale)


def k_means(points: Tensor, count: int, seed: int, rounds: int = 12) -> Tensor:
    """The (count, d) centres of (n, d) points by Lloyd's rounds, from centres drawn among the points."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(len(points), generator=generator).repeat(-(-count // len(points)))[:count]
    centres = points[first.to(points.device)]
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(chunk, centres).argmin(1) for chunk in points.split(8192)])
        counts = torch.bincount(nearest, minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def _first_features(tower: nn.Module, x: Tensor) -> list[Tensor]:
    """The image tower's first stages only; the later ones cost more and say little about pixels."""
    if isinstance(tower, EfficientNetTower):
        h, count = F.relu6(tf_same_conv(cast(nn.Conv2d, tower.stem), x)), 3
    elif isinstance(tower, ImageTower):
        h, count = tower.stem(x), 2
    else:
        raise BadInput("training.clip_without_stages")
    features = []
    for stage in tower.stages[:count]:
        h = stage(h)
        features.append(h)
    return features


def load_clip(pack: Path, device: torch.device) -> Clip:
    """The CLIP of a pack, frozen, in evaluation mode."""
    config, _ = read_header(pack / "clip.safetensors")
    clip = Clip(ClipConfig.from_dict(config), Tokenizer.load(pack / "tokenizer.json"))
    load_weights(pack / "clip.safetensors", clip)
    return clip.eval().requires_grad_(False).to(device)


def load_codec(file: Path, device: torch.device) -> Vqgan:
    """The VQGAN of a checkpoint, frozen, in evaluation mode."""
    vqgan = Vqgan(VqganConfig.from_dict(read_header(file)[0])).eval().requires_grad_(False)
    load_weights(file, vqgan)
    return vqgan.to(device)


@torch.no_grad()
def reconstruction(vqgan: Codec, pictures: Tensor) -> dict[str, float]:
    """PSNR (mean over pictures, dB) and SSIM through the codes and without, and the share of codes in use.

    `pictures` are (n, 3, h, w) in [-1, 1].
    """
    used = torch.zeros(len(vqgan.codes), dtype=torch.bool)
    rows = []
    for chunk in pictures.split(64):
        z = vqgan.encode(chunk)
        tokens = vqgan.quantize(z)
        used[tokens.flatten().cpu()] = True
        for again in (vqgan.decode_tokens(tokens), vqgan.decode(z)):
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
