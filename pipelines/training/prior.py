"""How the latent prior learns: rectified flow (Liu et al. 2023) on latents that were encoded once.

Times are drawn from a logit-normal distribution (Esser et al. 2024, section 3.1). Captions are made on the fly and read
by the pack's frozen CLIP. A share of them is left out, for guidance; the style is left out for half of the pictures.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipelines.io.files import write_atomically
from pipelines.models.checkpoint import file_hash, read_header, save_checkpoint
from pipelines.models.clip.network import read_texts
from pipelines.models.prior.network import UNKNOWN_STYLE, Prior, PriorConfig, draw
from pipelines.models.vqgan.network import Vqgan
from pipelines.training.data.captions import COLOURS, caption
from pipelines.training.data.compositing import composed, to_images
from pipelines.training.data.dataset import Dataset, icon_weights, on_background
from pipelines.training.data.icons import may_be_mirrored
from pipelines.training.data.scenes import Scenes, scene_count, scene_share
from pipelines.training.drawing import SHEET_PROMPTS, named_right, sheet_prompts, style_numbers
from pipelines.training.frozen import codec_learned, load_clip, load_codec
from pipelines.training.pretrained import begin_with
from pipelines.training.report import image_grid
from pipelines.training.trainer import Trainer

VIEWS = 6  # of each icon: as it is, mirrored, two moved on white, two moved on a colour
SCENE_COUNT = 16_000
SCENE_SHARE = 0.15


class PriorTrainer(Trainer):
    """Trains a Prior on latents of the pack's codec under texts of its CLIP. `folder` keeps the latents.

    BadInput when the pack lacks one of them.
    """

    name = "prior"
    ema_networks = ("prior",)
    ema_decay = 0.9995
    text_dropout, style_dropout = 0.1, 0.5
    time_shift = 0.2  # of the logit of the times, towards noise
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 11.3, 43 and 120 million parameters
        "tiny": {"batch_size": 64, "rate": 8e-4, "widths": (64, 128, 192)},
        "small": {"batch_size": 256, "rate": 6e-4, "widths": (128, 256, 384)},
        "base": {"batch_size": 256, "rate": 4e-4, "widths": (192, 384, 576), "layer_count": 2},
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
        """`start` is an earlier prior, of which the tensors that fit are taken; `options` replace SIZES's."""
        sizes = {**self.SIZES[size], **options}
        self.batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        self.accelerator, self.emoji, self.seed = accelerator, emoji, seed
        self.clip = load_clip(pack, accelerator.device)
        self.codec_file = pack / "codec.safetensors"
        (config, _), (_, self.learned) = read_header(self.codec_file), codec_learned(self.codec_file)
        with accelerator.main_process_first():
            name = f"latents-{file_hash(self.codec_file)[:12]}-{emoji.hash}-{seed}.safetensors"
            self.latent_cache = self._latent_cache(folder / name)
        self.weights = icon_weights(emoji, rare=0.5)
        torch.manual_seed(seed)
        latents = self.latent_cache["views"]
        text = self.clip.config
        prior = Prior(
            PriorConfig(
                latent_channels=config["code_size"],
                grid=latents.shape[-1],
                text_width=text.text_width,
                embedding_size=text.embedding_size,
                styles=emoji.styles,
                **sizes,
            )
        )
        plain = latents[::VIEWS].float()
        prior.mean.copy_(plain.mean((0, 2, 3))[:, None, None])
        prior.deviation.copy_(plain.std((0, 2, 3))[:, None, None])
        if start is not None:
            rate *= 0.75
            self.start = f"{len(begin_with(prior, start, first_rows='style.weight'))} tensors of {start.name}"
        prior.to(accelerator.device)
        adam = torch.optim.AdamW(prior.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.networks, self.optimizers = {"prior": prior}, {"prior": adam}

    @property
    def prior(self) -> Prior:
        """The network."""
        return cast(Prior, self.networks["prior"])

    @cached_property
    def codec(self) -> Vqgan:
        """The codec, loaded when latents must be made or drawn."""
        return load_codec(self.codec_file, self.accelerator.device)

    def compile_targets(self) -> list[nn.Module]:
        return [self.prior.network]

    def rate_factor(self, progress: float) -> float:
        """Warm-up, flat to 60 %, then linear down to 2 %: a training may be given more minutes until then."""
        return min(1.0, max(progress / 0.005, 0.02), 1 - 0.98 * max(0.0, progress - 0.6) / 0.4)

    # ------------------------------------------------------------------------------------------------ latents

    @torch.no_grad()
    def _latent_cache(self, path: Path) -> dict[str, Any]:
        """Latents of VIEWS views of every training icon and of scenes, and what each shows; kept in a file.

        views (icons * VIEWS, c, h, w) float16, colours (icons * VIEWS,) as indices into COLOURS, validation
        (pictures, c, h, w), scenes (SCENE_COUNT, c, h, w) with captions, a list.
        """
        if not path.exists():
            rng = np.random.default_rng(self.seed + 1)
            views, colours = self._views(rng)
            scenes = iter(Scenes(self.emoji, self.emoji.train, rng, plain=0.0, coloured=0.0))
            drawn, captions = [], []
            count = scene_count(self.emoji, SCENE_COUNT)
            for start in range(0, count, 64):
                batch = [next(scenes) for _ in range(min(64, count - start))]
                drawn.append(self._latents(np.stack([picture for picture, _, _ in batch])))
                captions += [text for _, text, _ in batch]
            validation = on_background(self.emoji.rgba[self.emoji.validation])
            words = torch.frombuffer(bytearray("\n".join(captions).encode()), dtype=torch.uint8)
            tensors = {"views": views, "colours": colours, "scenes": torch.cat(drawn), "captions": words}
            chunks = [validation[start : start + 64] for start in range(0, len(validation), 64)]
            tensors["validation"] = torch.cat([self._latents(chunk) for chunk in chunks])
            write_atomically(path, save({name: value.contiguous() for name, value in tensors.items()}))
        latent_cache: dict[str, Any] = load_file(path)
        latent_cache["captions"] = bytes(latent_cache["captions"].numpy().tobytes()).decode().split("\n")
        return latent_cache

    def _views(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The latents and backgrounds of all views, those of an icon side by side."""
        latents, colours = [], []
        table = np.array([colour for _, colour in COLOURS.values()])
        for rows in np.array_split(self.emoji.train, -(-len(self.emoji.train) // 16)):
            rgba = np.repeat(self.emoji.rgba[rows], VIEWS, 0)
            view = np.tile(np.arange(VIEWS), len(rows))
            mirrors = np.repeat([may_be_mirrored(self.emoji.icons[k]) for k in rows], VIEWS)
            turned = mirrors & ((view == 1) | ((view > 1) & (rng.random(len(view)) < 0.3)))
            rgba[turned] = rgba[turned, :, ::-1]
            movement = rng.uniform((-0.12, -0.03, -0.06, -0.06), (0.12, 0.22, 0.06, 0.06), (len(view), 4))
            movement *= ((view > 1) | (~mirrors & (view == 1)))[:, None]
            colour = np.where(view >= 4, rng.integers(1, len(COLOURS), len(view)), 0)
            opaque = np.repeat(self.emoji.opaque[rows], VIEWS)
            colour = np.where(opaque, 0, colour)
            pictures = composed(rgba, table[colour], movement, opaque)
            latents.append(self.codec.encode(pictures.to(self.accelerator.device)).half().cpu())
            colours.append(torch.from_numpy(colour))
        return torch.cat(latents), torch.cat(colours)

    def _latents(self, pictures: np.ndarray) -> Tensor:
        """(n, s, s, 3) uint8 -> (n, c, h, w) float16 on the CPU."""
        return self.codec.encode(to_images(pictures).to(self.accelerator.device)).half().cpu()

    # ----------------------------------------------------------------------------------------------- learning

    def batch(self, step: int, rank: int = 0, count: int = 1) -> dict[str, Any]:
        """Latents, noise, times, captions, styles, and whose text is left out."""
        rng, n = np.random.default_rng((self.seed, step, rank)), self.batch_size
        composed_count = int(rng.binomial(n, scene_share(self.emoji, SCENE_SHARE)))
        rows = rng.choice(len(self.emoji.train), n - composed_count, p=self.weights)
        views = rows * VIEWS + rng.choice(VIEWS, len(rows), p=(0.3, 0.3, 0.125, 0.125, 0.075, 0.075))
        scenes = rng.integers(len(self.latent_cache["captions"]), size=composed_count)
        names = list(COLOURS)
        icons = [self.emoji.icons[self.emoji.train[k]] for k in rows]
        colours = self.latent_cache["colours"][views].tolist()
        texts = [caption(icon, rng, names[colour]) for icon, colour in zip(icons, colours, strict=True)]
        styles = style_numbers(self.emoji, icons) + [UNKNOWN_STYLE] * composed_count
        shown = np.where(rng.random(n) < self.style_dropout, UNKNOWN_STYLE, styles)
        latents = torch.cat([self.latent_cache["views"][views], self.latent_cache["scenes"][scenes]]).float()
        times = 1 / (1 + np.exp(-(rng.standard_normal(n) + self.time_shift)))
        return {
            "latents": latents,
            "noise": torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32)),
            "times": torch.from_numpy(times.astype(np.float32)),
            "texts": texts + [self.latent_cache["captions"][k] for k in scenes],
            "styles": torch.from_numpy(shown),
            "told": torch.from_numpy(rng.random(n) >= self.text_dropout),
        }

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        loss = self._flow_loss(batch).mean()
        self.backward_and_step(loss, self.prior, "prior")
        return {"loss": loss}

    def _flow_loss(self, batch: dict[str, Any]) -> Tensor:
        """The squared error of the velocity, of each picture: (n,)."""
        prior = self.prior
        x0, noise, t = prior.normalize(batch["latents"]), batch["noise"], batch["times"]
        x = torch.lerp(x0, noise, t[:, None, None, None])
        with self.accelerator.autocast():
            text = read_texts(self.clip, batch["texts"])
            velocity = prior(x, t, prior.context(text, batch["styles"], batch["told"]))
        return (velocity.float() - (noise - x0)).square().mean((1, 2, 3))

    # ---------------------------------------------------------------------------------------------- what it can

    @torch.no_grad()
    def samples(self, prompts: list[str], count: int = 1, steps: int = 20) -> Tensor:
        """(len(prompts) * count, 3, h, w) in [-1, 1], the first seeds, of no style in particular."""
        prior = self.prior.eval()
        texts = [prompt for prompt in prompts for _ in range(count)]
        generator, pictures = torch.Generator().manual_seed(0), []
        for start in range(0, len(texts), 32):
            chunk = texts[start : start + 32]
            noise = torch.randn(
                len(chunk), prior.config.latent_channels, *[prior.config.grid] * 2, generator=generator
            )
            style = torch.full((len(chunk),), UNKNOWN_STYLE, device=self.accelerator.device)
            with self.accelerator.autocast():
                z = draw(prior, noise.to(self.accelerator.device), read_texts(self.clip, chunk), style, steps)
                pictures.append(self.codec.decode(z).float().clamp(-1, 1))
        prior.train()
        return torch.cat(pictures)

    def sample_grid(self) -> Image.Image:
        """Four pictures, not chosen, of each of `sheet_prompts`; three prompts a row."""
        return image_grid(self.samples(sheet_prompts(self.emoji, SHEET_PROMPTS), 4), 12)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The loss on emojione with plain names; and how often one picture is named right, by the pack's CLIP."""
        rows = torch.arange(0, len(self.emoji.validation), 4)
        rng = np.random.default_rng(0)
        latents = self.latent_cache["validation"][rows].float()
        times = torch.linspace(0.02, 0.98, len(rows))[torch.from_numpy(rng.permutation(len(rows)))]
        losses = []
        for part in torch.arange(len(rows)).split(self.batch_size):
            batch = {
                "latents": latents[part],
                "noise": torch.from_numpy(rng.standard_normal(latents[part].shape, dtype=np.float32)),
                "times": times[part],
                "styles": torch.full((len(part),), UNKNOWN_STYLE),
                "told": torch.ones(len(part), dtype=torch.bool),
            }
            moved = {name: value.to(self.accelerator.device) for name, value in batch.items()}
            texts = [self.emoji.icons[self.emoji.validation[k]].name for k in rows[part].tolist()]
            losses.append(self._flow_loss({**moved, "texts": texts}).cpu())
        figures = {"loss": round(torch.cat(losses).mean().item(), 5)}
        return figures | named_right(self.clip, self.emoji, self.samples)

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        save_checkpoint(path, self.prior, self.prior.config.to_dict(), {**facts, "codec": self.learned})
