"""How the DALL·E with semantic tokens learns: next-token prediction over few icons in many views.

It begins with the geometry of the codes in its embeddings and is asked for near codes as well (Lee et al. 2022, section
3.2.3), until the last third of the training. Against learning by heart: views, dropout, hidden and exchanged tokens
among what it reads, weight decay, and an average of the weights. Captions are made on the fly and read by the pack's
frozen CLIP; a share of them is left out, for guidance (Ho and Salimans 2022).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from pipelines.models.checkpoint import file_hash, read_header, save_checkpoint
from pipelines.models.clip.network import read_texts
from pipelines.models.dalle_semantic.network import (
    UNKNOWN_STYLE,
    Dropout,
    SemanticDalle,
    SemanticDalleConfig,
    draw_dropout,
)
from pipelines.models.sampling import sample
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.training import token_bank
from pipelines.training.codes import neighbours
from pipelines.training.data.captions import COLOURS, caption
from pipelines.training.data.dataset import Dataset, icon_weights
from pipelines.training.data.scenes import scene_count, scene_share
from pipelines.training.drawing import SHEET_PROMPTS, named_right, sheet_prompts, style_numbers
from pipelines.training.frozen import codec_learned, load_clip, load_codec
from pipelines.training.report import image_grid
from pipelines.training.trainer import Trainer

SCENE_SHARE = 0.2


class SemanticDalleTrainer(Trainer):
    """Trains a SemanticDalle on the tokens of the pack's VQGAN. `folder` keeps the token bank.

    BadInput when the pack lacks the VQGAN, CLIP or its vocabulary.
    """

    name = "dalle-semantic"
    ema_networks = ("dalle",)
    ema_decay = 0.9995
    text_dropout, style_dropout, styled = 0.12, 0.15, 0.1
    exchanged, hidden, semantic_exchanged = 0.05, 0.05, 0.15  # shares of the tokens that are read
    semantic_weight = 0.1  # of the semantic tokens' loss; the image tokens' has the rest
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 3.9, 28 and 91 million parameters, over the tokens of a VQGAN of the same size
        "tiny": {"batch_size": 64, "rate": 1.5e-3, "width": 208, "layer_count": 6, "head_count": 4},
        "small": {"batch_size": 128, "rate": 8e-4, "width": 512, "layer_count": 8, "head_count": 8},
        "base": {"batch_size": 128, "rate": 6e-4, "width": 768, "layer_count": 12, "head_count": 12},
    }

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        pack: Path,
        folder: Path,
        seed: int = 0,
        size: str = "tiny",
        dropout: float = 0.1,
        weight_decay: float = 0.1,
        **options: Any,
    ):
        sizes = {**self.SIZES[size], **options}
        self.batch_size, rate = sizes.pop("batch_size"), sizes.pop("rate")
        self.accelerator, self.emoji, self.seed, self.dropout = accelerator, emoji, seed, dropout
        self.codec_file = pack / "vqgan.safetensors"
        self.clip = load_clip(pack, accelerator.device)
        codec, text = VqganConfig.from_dict(read_header(self.codec_file)[0]), self.clip.config
        config = SemanticDalleConfig(
            codec.code_count,
            codec.grid,
            text_width=text.text_width,
            embedding_size=text.embedding_size,
            styles=emoji.styles,
            **sizes,
        )
        self.bank = self._load_bank(pack / "clip.safetensors", folder, config)
        self.weights = icon_weights(emoji, rare=0.5)
        codes, self.learned = codec_learned(self.codec_file)
        self.near, share = neighbours(codes)
        self.targets = self.near.to(accelerator.device), share.to(accelerator.device)
        self.semantic_near = torch.stack([neighbours(table)[0] for table in self.bank.semantic_codes])
        torch.manual_seed(seed)
        dalle = SemanticDalle(config, self.clip)
        _start_from_codes(dalle, codes, self.bank.semantic_codes)
        dalle.to(accelerator.device)
        self.networks, self.optimizers = {"dalle": dalle}, {"dalle": _optimizer(dalle, rate, weight_decay)}

    @property
    def dalle(self) -> SemanticDalle:
        """The network."""
        return cast(SemanticDalle, self.networks["dalle"])

    @cached_property
    def vqgan(self) -> Vqgan:
        """The codec, loaded when pictures must be read or drawn."""
        return load_codec(self.codec_file, self.accelerator.device)

    def compile_targets(self) -> list[nn.Module]:
        return [self.dalle]

    def rate_factor(self, progress: float) -> float:
        """Warm-up, flat to 60 %, then linear to nothing: a training may be given more minutes until then."""
        return max(min(1.0, max(progress / 0.01, 0.02), 1 - max(0.0, progress - 0.6) / 0.4), 0.0)

    def _load_bank(self, clip_file: Path, folder: Path, config: SemanticDalleConfig) -> token_bank.TokenBank:
        hashes = [file_hash(file)[:12] for file in (self.codec_file, clip_file)]
        sizes = config.semantic_length, config.semantic_vocabulary
        count = scene_count(self.emoji, token_bank.SCENE_COUNT)
        numbers = (*sizes, token_bank.VIEWS, count, self.seed)
        name = "-".join(map(str, ("tokens", *hashes, self.emoji.hash, *numbers)))
        with self.accelerator.main_process_first():
            return token_bank.load_bank(
                folder / f"{name}.safetensors", self.emoji, self._encode, sizes, self.seed
            )

    def _encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, s, s) pictures in [-1, 1] -> image tokens (n, l) and CLIP vectors (n, d), on the CPU."""
        pictures = pictures.to(self.accelerator.device)
        with self.accelerator.autocast():
            tokens, vectors = self.vqgan.encode_tokens(pictures), self.clip.encode_image(pictures)
        return tokens.flatten(1).cpu(), vectors.float().cpu()

    # ----------------------------------------------------------------------------------------------- learning

    def batch(self, step: int, rank: int = 0, count: int = 1) -> dict[str, Any]:
        """Tokens, the tokens to be read in their place, captions, styles, and whose text is left out."""
        rng, n, bank = np.random.default_rng((self.seed, step, rank)), self.batch_size, self.bank
        composed = int(rng.binomial(n, scene_share(self.emoji, SCENE_SHARE)))
        rows = rng.choice(len(self.emoji.train), n - composed, p=self.weights)
        views = rows * bank.views + rng.choice(bank.views, len(rows), p=token_bank.view_shares(bank.views))
        scenes = rng.integers(len(bank.captions), size=composed)
        names = list(COLOURS)
        icons = [self.emoji.icons[self.emoji.train[k]] for k in rows]
        texts = [
            caption(icon, rng, names[colour], styled=self.styled)
            for icon, colour in zip(icons, bank.colours[views].tolist(), strict=True)
        ]
        styles = style_numbers(self.emoji, icons) + [UNKNOWN_STYLE] * composed
        image, semantic = (
            torch.cat([one[views], other[scenes]]).long()
            for one, other in zip(bank.icons, bank.scenes, strict=True)
        )
        return {
            "image": image,
            "semantic": semantic,
            "read_image": self._noisy_image(image, rng),
            "read_semantic": self._noisy_semantic(semantic, rng),
            "texts": texts + [bank.captions[k] for k in scenes],
            "styles": torch.from_numpy(np.where(rng.random(n) < self.style_dropout, UNKNOWN_STYLE, styles)),
            "told": torch.from_numpy(rng.random(n) >= self.text_dropout),
            "dropout_seed": [int(rng.integers(2**62))],
        }

    def _noisy_image(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """(n, l) tokens, of which some are exchanged for one of the near ones, and others hidden."""
        chosen = torch.from_numpy(rng.integers(1, self.near.shape[1], image.shape))
        near = self.near[image].gather(2, chosen[:, :, None])[:, :, 0]
        dice = torch.from_numpy(rng.random(image.shape))
        read = torch.where(dice < self.exchanged, near, image)
        return torch.where(dice >= 1 - self.hidden, self.dalle.config.image_vocabulary, read)

    def _noisy_semantic(self, semantic: Tensor, rng: np.random.Generator) -> Tensor:
        """(n, levels) tokens, of which some are exchanged for one of the near ones."""
        chosen = torch.from_numpy(rng.integers(1, self.semantic_near.shape[2], semantic.shape))
        near = self.semantic_near[torch.arange(semantic.shape[1]), semantic]
        near = near.gather(2, chosen[:, :, None])[:, :, 0]
        return torch.where(
            torch.from_numpy(rng.random(semantic.shape)) < self.semantic_exchanged, near, semantic
        )

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            prefix = self._prefix(batch)
            states = self.dalle(
                prefix, batch["read_semantic"], batch["read_image"], self._drawn_dropout(batch)
            )
            semantic_logits, image_logits = self.dalle.logits(states)
        near, share = (table[batch["image"]] for table in self.targets)
        softness = min(1.0, (1 - progress) / 0.3)
        share = torch.cat([1 - softness * (1 - share[..., :1]), softness * share[..., 1:]], 2)
        image_loss = -(share * image_logits.log_softmax(2).gather(2, near)).sum(2).mean()
        semantic_loss = F.cross_entropy(semantic_logits.flatten(0, 1), batch["semantic"].flatten())
        loss = torch.lerp(image_loss, semantic_loss, self.semantic_weight)
        self.backward_and_step(loss, self.dalle, "dalle")
        return {"image": image_loss, "semantic": semantic_loss}

    def _prefix(self, batch: dict[str, Any]) -> Tensor:
        return self.dalle.prefix(read_texts(self.clip, batch["texts"]), batch["styles"], batch["told"])

    def _drawn_dropout(self, batch: dict[str, Any]) -> Dropout | None:
        """What a step drops, by a seed of its own; None without dropout."""
        if not self.dropout:
            return None
        generator = torch.Generator(self.accelerator.device).manual_seed(batch["dropout_seed"][0])
        config = self.dalle.config
        shape = config.layer_count, 2, len(batch["image"]), config.length - 1, config.width
        return draw_dropout(shape, self.dropout, generator)

    # ---------------------------------------------------------------------------------------------- what it can

    @torch.no_grad()
    def samples(self, prompts: list[str], count: int = 1, guidance: float = 3.0) -> Tensor:
        """(len(prompts) * count, 3, h, w): plain samples at temperature 1 among the best 64 tokens, of no style."""
        dalle, device = self.dalle.eval(), self.accelerator.device
        config, before = dalle.config, dalle.config.semantic_length
        length = before + config.image_length
        encode = self.clip.tokenizer.encode
        texts = torch.stack([dalle.text_tokens(encode(prompt)) for prompt in prompts for _ in range(count)])
        uniform = torch.rand(len(texts), length, generator=torch.Generator().manual_seed(0)).to(device)
        pictures = []
        for text, chance in zip(texts.split(32), uniform.split(32), strict=True):
            n = len(text)
            nothing = dalle.text_tokens([]).expand(n, -1)
            cache, logits = dalle.prefill(torch.cat([text, nothing]).to(device), 2 * n)
            tokens = []
            for place in range(length):
                cond, uncond = logits.chunk(2)
                tokens.append(sample(uncond + guidance * (cond - uncond), chance[:, place], 1.0, 64, 1.0))
                if place + 1 < length:
                    logits = dalle.decode_step(cache, tokens[-1].repeat(2), place)
            drawn = torch.stack(tokens[before:], 1).view(n, config.grid, config.grid)
            pictures.append(self.vqgan.decode_tokens(drawn).float().clamp(-1, 1))
        dalle.train()
        return torch.cat(pictures)

    def sample_grid(self) -> Image.Image:
        """Four pictures, not chosen, of each of `sheet_prompts`; three prompts a row."""
        return image_grid(self.samples(sheet_prompts(self.emoji, SHEET_PROMPTS), 4), 12)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """How well emojione is predicted under its plain names, and how often CLIP names one picture right.

        "loss" is nats an image token, those of the semantic tokens included; "name gain" what it rises by without the
        names; "image loss" is of the image tokens alone, under the true semantic ones.
        """
        rows = torch.arange(0, len(self.emoji.validation), 4)
        told, untold = (self._nats(rows, has_text) for has_text in (True, False))
        length = self.dalle.config.image_length
        loss, without = ((one["semantic"] + one["image"]).mean().item() / length for one in (told, untold))
        figures = {
            "loss": loss,
            "name gain": without - loss,
            "image loss": told["image"].mean().item() / length,
            "semantic loss": told["semantic"].mean().item() / self.dalle.config.semantic_length,
            "semantic loss without names": untold["semantic"].mean().item()
            / self.dalle.config.semantic_length,
            "first semantic token": told["right"].mean().item(),
        }
        rounded = {name: round(value, 4) for name, value in figures.items()}
        return rounded | named_right(self.clip, self.emoji, self.samples)

    def _nats(self, rows: Tensor, has_text: bool) -> dict[str, Tensor]:
        """Sums over the semantic and over the image tokens of validation pictures, (n,) each.

        "right" tells whether the first semantic token was the likeliest.
        """
        dalle, device, found = self.dalle.eval(), self.accelerator.device, []
        for part in rows.split(self.batch_size):
            image, semantic = (tokens[part].long().to(device) for tokens in self.bank.validation)
            batch = {
                "texts": [self.emoji.icons[self.emoji.validation[k]].name for k in part.tolist()],
                "styles": torch.full((len(part),), UNKNOWN_STYLE, device=device),
                "told": torch.full((len(part),), has_text, device=device),
            }
            with self.accelerator.autocast():  # not compiled for batches of this size
                states = dalle.forward(self._prefix(batch), semantic, image)
                semantic_logits, image_logits = dalle.logits(states)
            sums = [
                F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").sum(1)
                for logits, tokens in ((semantic_logits, semantic), (image_logits, image))
            ]
            right = (semantic_logits[:, 0].argmax(1) == semantic[:, 0]).float()
            found.append(torch.stack([*sums, right]).cpu())
        dalle.train()
        return dict(zip(("semantic", "image", "right"), torch.cat(found, 1), strict=True))

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        facts = {**facts, "codec": self.learned}
        save_checkpoint(path, self.dalle, self.dalle.config.to_dict(), facts, self.name)


def _optimizer(dalle: SemanticDalle, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, whose weight decay acts on the blocks' matrices alone."""
    matrices = [p for p in dalle.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in dalle.parameters() if id(p) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))


@torch.no_grad()
def _start_from_codes(dalle: SemanticDalle, codes: Tensor, semantic_codes: Tensor) -> None:
    """Lay embeddings and output weights of the tokens out as their codes are, by random projections."""
    dalle.semantic_codes.copy_(semantic_codes)
    count, width = dalle.config.image_vocabulary, dalle.config.width
    pairs = [(codes, dalle.image_token.weight[:count], dalle.image_head.weight)]
    for level, table in enumerate(semantic_codes):
        rows = slice(level * len(table), (level + 1) * len(table))
        pairs.append((table, dalle.semantic_token.weight[rows], dalle.semantic_head.weight[rows]))
    for table, embedding, head in pairs:
        table = (table - table.mean(0)) / table.std().clamp(min=1e-6)
        spread = table @ torch.randn(table.shape[1], width) / table.shape[1] ** 0.5
        embedding.copy_(0.06 * spread)
        head.copy_(0.3 / width**0.5 * spread)
