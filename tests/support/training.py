"""What the tests of training share: a handful of icons, their data file, and trainers at tiny sizes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from safetensors.numpy import save_file

from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.trainer import ClipTrainer, CriticTrainer
from pipelines.training.clip.vocabulary import caption_words, train_tokenizer
from pipelines.training.dalle import DalleTrainer
from pipelines.training.dalle_semantic import SemanticDalleTrainer
from pipelines.training.dalle_stream import StreamedDalleTrainer
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import render
from pipelines.training.data.stream import Stream
from pipelines.training.dvae import DvaeTrainer
from pipelines.training.judge import JudgeTrainer
from pipelines.training.matting import MattingTrainer
from pipelines.training.prior import PriorTrainer
from pipelines.training.trainer import Trainer
from pipelines.training.transformer import TransformerTrainer
from pipelines.training.unet import UnetTrainer
from pipelines.training.vqgan import CodecTrainer, DecoderTrainer, VqganTrainer
from pipelines.training.vqvae import VqvaeTrainer

SHAPES = {
    "red circle": ("红圆", '<circle cx="8" cy="8" r="7" fill="#d22"/>'),
    "blue square": ("蓝方块", '<rect x="2" y="2" width="12" height="12" fill="#22d"/>'),
    "green triangle": ("绿三角", '<path d="M8 1 15 15H1z" fill="#2a2"/>'),
    "yellow bar": ("黄条", '<rect x="1" y="6" width="14" height="4" fill="#dd2"/>'),
}


STYLES = ("noto", "twemoji", "fluent-emoji", "emojione")


def svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>'


def write_data(path: Path) -> None:
    """Four shapes in four styles, written as `build` writes them."""
    blobs, records = [], []
    for k, style in enumerate(STYLES):
        for name, (chinese, body) in SHAPES.items():
            blob = render(svg(f'<g transform="translate({k / 4} 0)">{body}</g>'))
            assert blob is not None
            blobs.append(blob)
            records.append([style, name, [name + " shape"], chinese, name.split(), [chinese[:1]]])
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }
    save_file(tensors, path, {"icons": json.dumps(records), "phrases": "a round thing\na flat thing\ncorner"})


def write_vocabulary(data_file: Path, folder: Path) -> None:
    emoji = Dataset(data_file, size=64)
    (folder / "tokenizer.json").write_text(train_tokenizer(emoji).vocabulary.to_str(), "utf-8")
    (folder / "words.txt").write_text("\n".join(caption_words(emoji)), "utf-8")


SIZES: dict[str, dict[str, Any]] = {  # small enough for a test
    "clip": {
        "batch_size": 6,
        "mobile": False,
        "image_size": 64,
        "small_size": 32,
        "widths": (8, 16),
        "block_counts": (1, 1),
        "text_width": 16,
        "text_layer_count": 1,
        "embedding_size": 16,
    },
    "vqgan": {"batch_size": 4, "patch": 16, "widths": (8, 16), "code_count": 32, "code_size": 4},
    "dalle": {"batch_size": 4, "width": 16, "layer_count": 2, "head_count": 2},
    "dalle-semantic": {"batch_size": 4, "width": 16, "layer_count": 2, "head_count": 2, "dropout": 0.0},
    "prior": {"batch_size": 4, "widths": (8, 16, 16), "head_count": 2},
    "judge": {
        "batch_size": 4,
        "image_size": 32,
        "widths": (8, 16),
        "block_counts": (1, 1),
        "embedding_size": 8,
    },
    "matting": {"batch_size": 4, "widths": (8, 16), "detail_width": 8},
    "unet": {"batch_size": 4, "patch": 2, "widths": (8, 16), "head_size": 8},
}


SIZES["critic"] = {**SIZES["clip"], "mobile": True, "widths": (8,) * 7, "block_counts": (1,) * 7}


SIZES["codec"] = SIZES["vqvae"] = SIZES["dvae"] = SIZES["vqgan"]
SIZES["transformer"] = SIZES["dalle"]
SIZES["decoder"] = {"batch_size": 4}


KINDS = (
    *("clip", "critic", "vqgan", "codec", "vqvae", "dvae", "decoder"),
    *("dalle", "transformer", "dalle-semantic", "prior", "judge", "unet"),
    "matting",
)


PICTURES = 12  # of the folder of photographs


def flags(places: Path, folder: Path, *more: str) -> list[str]:
    """Flags of `train` on a folder, for the fixture `places`."""
    where = ["--state", str(places / "runs"), "--out", str(places / "packs" / "mine")]
    return ["--data", str(folder), "--precision", "no", *where, *more]


def trainer_for(
    name: str, data_file: Path, pack: Path, folder: Path, stream: Sequence[Path] = (), **options: Any
) -> Trainer:
    """A fresh trainer of each kind, on one process or, under torchrun, several.

    CLIP, the VQ-VAE and DALL·E may read a stream of tars.
    """
    accelerator, sizes = Accelerator(cpu=True), {**SIZES[name], **options}
    if name in ("clip", "critic"):
        emoji = Stream(data_file, stream, 0, 64) if stream else Dataset(data_file, size=64)
        book = Tokenizer.load(pack / "tokenizer.json")
        kind = {"clip": ClipTrainer, "critic": CriticTrainer}[name]
        return kind(accelerator, emoji, book, folder, imagenet=None, **sizes)
    if name == "unet":
        trainer = UnetTrainer(accelerator, Dataset(data_file, size=32), **sizes)
        trainer.sheet_steps = trainer.trip_steps = 2
        return trainer
    if name == "judge":
        return JudgeTrainer(accelerator, Dataset(data_file), **sizes)
    if name == "dalle" and stream:
        return StreamedDalleTrainer(accelerator, Stream(data_file, stream, 0), pack, folder, **sizes)
    if name in ("dalle", "transformer", "dalle-semantic", "prior", "matting"):
        kind = {
            "dalle": DalleTrainer,
            "transformer": TransformerTrainer,
            "dalle-semantic": SemanticDalleTrainer,
            "prior": PriorTrainer,
            "matting": MattingTrainer,
        }[name]
        return kind(accelerator, Dataset(data_file), pack, folder, **sizes)
    if name == "dvae":
        return DvaeTrainer(accelerator, Dataset(data_file), **sizes)
    if name == "vqvae":
        emoji = Stream(data_file, stream, 0) if stream else Dataset(data_file)
        vqvae = VqvaeTrainer(accelerator, emoji, **sizes)
        vqvae.patience = 1  # so that codes are moved within a few steps
        return vqvae
    kinds = {"vqgan": VqganTrainer, "codec": CodecTrainer, "decoder": DecoderTrainer}
    codec = kinds[name](accelerator, Dataset(data_file), pack, **sizes)
    codec.patience = 1
    return codec
