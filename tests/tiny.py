"""Real classes at tiny sizes, with random but fixed weights."""

from __future__ import annotations

from typing import Any

import torch

from pipelines.dalle import Generate
from pipelines.diffusion_clip import Edit
from pipelines.examples import Examples
from pipelines.models.clip import Clip, ClipConfig
from pipelines.models.dalle import Dalle, DalleConfig
from pipelines.models.tokenizer import Tokenizer, words_in
from pipelines.models.unet import Unet, UnetConfig
from pipelines.models.vqgan import Vqgan, VqganConfig
from pipelines.vqgan_clip import Optimize

TEXTS = [
    "a red heart",
    "green apple, fruit",
    "a 3d dog face on a blue background",
    "红心",
    "生日蛋糕",
    "two cats",
]


def tiny_tokenizer() -> Tokenizer:
    """Learned from six texts; knows their words."""
    words = frozenset(word for text in TEXTS for word in words_in(text))
    return Tokenizer(Tokenizer.train(TEXTS, 300).book, words)


def tiny_clip(tokenizer: Tokenizer | None = None) -> Clip:
    """16 x 16 pictures, 16-dimensional vectors."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(1)
    sizes = {
        "image_size": 16,
        "small_size": 12,
        "widths": (8, 16),
        "block_counts": (1, 1),
        "text_width": 16,
        "text_layer_count": 1,
    }
    config = ClipConfig(
        tokenizer.vocabulary_size, **sizes, text_head_count=2, context_length=12, embedding_size=16
    )
    return Clip(config, tokenizer).eval().requires_grad_(False)


def tiny_vqgan() -> Vqgan:
    """32 x 32 pictures, a 4 x 4 grid of 32 codes."""
    torch.manual_seed(2)
    return Vqgan(VqganConfig(32, 4, (8, 16), 1, 32, 4)).eval().requires_grad_(False)


def tiny_dalle(tokenizer: Tokenizer | None = None) -> Dalle:
    """8 text tokens, a 4 x 4 grid, three layers: a row, a column and a convolutional one."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(3)
    sizes = {"text_length": 8, "grid": 4, "width": 16, "layer_count": 3, "head_count": 2, "kernel": 3}
    dalle = Dalle(DalleConfig(tokenizer.vocabulary_size, 32, **sizes))
    for parameter in dalle.parameters():  # fresh weights say too little for a test to notice
        parameter.data += 0.1 * torch.randn_like(parameter)
    return dalle.eval().requires_grad_(False)


def tiny_generate() -> Generate:
    """The whole pipeline: 32 x 32 pictures."""
    tokenizer = tiny_tokenizer()
    return Generate(tokenizer, tiny_dalle(tokenizer), tiny_vqgan(), tiny_clip(tokenizer))


def tiny_critic(tokenizer: Tokenizer | None = None) -> Clip:
    """Another architecture than `tiny_clip`, another seed."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(4)
    sizes = {
        "image_size": 16,
        "small_size": 12,
        "widths": (8, 16),
        "image_layer_count": 1,
        "text_width": 16,
        "text_layer_count": 1,
    }
    config = ClipConfig(
        tokenizer.vocabulary_size, **sizes, text_head_count=2, context_length=12, embedding_size=8
    )
    return Clip(config, tokenizer).eval().requires_grad_(False)


def tiny_optimize() -> Optimize:
    """The whole pipeline: 32 x 32 pictures of 4 x 4 tokens."""
    tokenizer = tiny_tokenizer()
    return Optimize(tiny_vqgan(), tiny_clip(tokenizer), tiny_critic(tokenizer))


UNET_SIZES: dict[str, Any] = {"widths": (8, 16), "attention_count": 1, "head_size": 8}


def tiny_unet(**changes: int) -> Unet:
    """16 x 16 pictures, two levels, attention in one, weights that say enough for a test to notice."""
    torch.manual_seed(5)
    unet = Unet(UnetConfig(**{"image_size": 16, **UNET_SIZES, **changes}))
    for parameter in unet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return unet.eval().requires_grad_(False)


def tiny_examples() -> Examples:
    """Eight pictures of 16 x 16: a colour and noise."""
    generator = torch.Generator().manual_seed(6)
    colours = torch.randint(40, 216, (8, 3, 1, 1), generator=generator)
    grain = torch.randint(-40, 40, (8, 3, 16, 16), generator=generator)
    pictures = (colours + grain).clamp(0, 255).to(torch.uint8)
    return Examples(pictures, [f"picture {k}" for k in range(8)])


def tiny_edit() -> Edit:
    """The whole pipeline: 16 x 16 pictures."""
    tokenizer = tiny_tokenizer()
    return Edit(tiny_unet(), tiny_clip(tokenizer), tiny_critic(tokenizer), tiny_examples())
