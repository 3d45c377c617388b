"""The published CLIPs (Radford et al. 2021): the towers of OpenAI's weights, and of LAION's and DataComp's.

The image tower is a Vision Transformer (Dosovitskiy et al. 2021), or a ResNet with a stem of three convolutions, average
pooling before strides, and attention pooling at the end. The text tower is a causal Transformer, whose output is taken at
the end token. The names of weights are OpenAI's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.checkpoint import Config
from pipelines.models.clip_base import ClipNetwork
from pipelines.models.openai_clip.tokenizer import ClipTokenizer, WordPieceTokenizer

# of the channels of pictures in [0, 1]
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class OpenaiClipConfig(Config):
    """Sizes of both towers. With `image_block_counts`, one a stage, the image tower is a ResNet and has no patches.

    Activations are "quick_gelu" (OpenAI's) or "gelu"; `note` names a default that was taken in conversion.
    """

    image_size: int
    image_width: int
    image_head_count: int
    embedding_size: int
    text_width: int
    text_layer_count: int
    text_head_count: int
    text_inner_width: int
    patch_size: int = 0
    image_layer_count: int = 0
    image_inner_width: int = 0
    image_block_counts: tuple[int, ...] = ()
    image_activation: str = "quick_gelu"
    text_activation: str = "quick_gelu"
    context_length: int = 77
    vocabulary_size: int = 49408
    note: str = ""

    @property
    def small_size(self) -> int:
        """The same as image_size: these towers take pictures of one size only."""
        return self.image_size


# ------------------------------------------------------------------------------------------------------------- blocks


def activate(x: Tensor, activation: str) -> Tensor:
    """GELU, or for "quick_gelu" its approximation x * sigmoid(1.702 x) (Hendrycks & Gimpel 2016); any shape."""
    return F.silu(1.702 * x) / 1.702 if activation == "quick_gelu" else F.gelu(x)


def attend(q: Tensor, k: Tensor, v: Tensor, head_count: int, causal: bool = False) -> Tensor:
    """Multi-head attention of (n, s, width) queries over (n, t, width) keys and values -> (n, s, width)."""
    q, k, v = (cast(Tensor, x.unflatten(-1, (head_count, -1))).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention over (n, t, width), all three projections in one product."""

    def __init__(self, width: int, head_count: int, causal: bool):
        super().__init__()
        self.head_count, self.causal = head_count, causal
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> the same shape."""
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        return self.out_proj(attend(q, k, v, self.head_count, self.causal))


class Mlp(nn.Module):
    """Feed-forward: linear, activation, linear."""

    def __init__(self, width: int, inner_width: int, activation: str):
        super().__init__()
        self.activation = activation
        self.c_fc, self.c_proj = nn.Linear(width, inner_width), nn.Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> the same shape."""
        return self.c_proj(activate(self.c_fc(x), self.activation))


class Block(nn.Module):
    """Pre-norm Transformer block."""

    def __init__(self, width: int, head_count: int, inner_width: int, activation: str, causal: bool):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, head_count, causal)
        self.ln_2, self.mlp = nn.LayerNorm(width), Mlp(width, inner_width, activation)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Transformer blocks; with `causal` a token attends only to itself and the tokens before it."""

    def __init__(
        self,
        width: int,
        layer_count: int,
        head_count: int,
        inner_width: int,
        activation: str,
        causal: bool = False,
    ):
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(width, head_count, inner_width, activation, causal) for _ in range(layer_count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> the same shape."""
        for block in self.resblocks:
            x = block(x)
        return x


# -------------------------------------------------------------------------------------------------------- image towers


class VisionTransformer(nn.Module):
    """(n, 3, s, s) normalized pictures -> (n, d), not normalized: a projection of the class token."""

    def __init__(self, config: OpenaiClipConfig):
        super().__init__()
        width, patch = config.image_width, config.patch_size
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        token_count = (config.image_size // patch) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(token_count, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width,
            config.image_layer_count,
            config.image_head_count,
            config.image_inner_width,
            config.image_activation,
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, config.embedding_size) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, embedding_size)."""
        patches = self.conv1(x).flatten(2).transpose(1, 2)  # (n, grid * grid, width)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), patches], 1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, added to the input; strides are average pooling, which avoids aliasing.

    Batch norms, which are frozen, are folded into the convolutions before them.
    """

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1, self.conv2 = nn.Conv2d(width_in, width, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)
        self.downsample = nn.Conv2d(width_in, 4 * width, 1) if stride > 1 or width_in != 4 * width else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, width_in, h, w) -> (n, 4 * width, h / stride, w / stride)."""
        h = F.relu(self.conv2(F.relu(self.conv1(x))))
        if self.stride > 1:
            h, x = F.avg_pool2d(h, self.stride), F.avg_pool2d(x, self.stride)
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv3(h) + skip)


class AttentionPool(nn.Module):
    """Attention pooling: the query is the mean over places, keys and values are the mean and all places."""

    def __init__(self, place_count: int, width: int, head_count: int, embedding_size: int):
        super().__init__()
        self.head_count = head_count
        self.positional_embedding = nn.Parameter(torch.randn(place_count + 1, width) * width**-0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, s, s) -> (n, embedding_size)."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        return self.c_proj(
            attend(self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x), self.head_count)[:, 0]
        )


class ModifiedResNet(nn.Module):
    """(n, 3, s, s) normalized pictures -> (n, d), not normalized. Stages of `image_width` times 1, 2, 4 and 8."""

    def __init__(self, config: OpenaiClipConfig):
        super().__init__()
        width = config.image_width
        self.conv1 = nn.Conv2d(3, width // 2, 3, 2, 1)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, 1, 1)
        self.conv3 = nn.Conv2d(width // 2, width, 3, 1, 1)
        stages: list[nn.Module] = []
        width_in = width
        for k, count in enumerate(config.image_block_counts):
            blocks: list[nn.Module] = []
            for index in range(count):
                blocks.append(Bottleneck(width_in, width << k, 2 if k and not index else 1))
                width_in = 4 * width << k
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool(
            (config.image_size // 32) ** 2, width_in, config.image_head_count, config.embedding_size
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, embedding_size)."""
        x = F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(F.avg_pool2d(x, 2)))))
        return self.attnpool(x)


# ----------------------------------------------------------------------------------------------------------- one space


@cache
def normalization(device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift, (3, 1, 1) float32, from pictures in [-1, 1] to zero mean and unit variance.

    They are no buffers, so that converting the weights to half precision does not round them.
    """
    mean, deviation = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return 0.5 / deviation, (0.5 - mean) / deviation


class PublishedClip(ClipNetwork):
    """Base of the published CLIPs: the Clip role, for subclasses that define the features of the two towers.

    Weights may be float32, bfloat16 or float16; pictures and vectors are normalized in float32.
    """

    def __init__(self, config: OpenaiClipConfig, tokenizer: ClipTokenizer | WordPieceTokenizer):
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # the learned temperature

    @abstractmethod
    def image_features(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) normalized pictures in the weights' type -> (n, d), not normalized."""

    @property
    @abstractmethod
    def image(self) -> nn.Module:
        """The image tower. A hash of its weights identifies the CLIP in records."""

    def tokenize(self, prompts: list[str]) -> Tensor:
        """List of n texts -> (n, t) token ids with start and end, cut to the context length, padding 0."""
        book, room = self.tokenizer, self.config.context_length - 2
        rows = [[book.start, *book.encode(prompt)[:room], book.end] for prompt in prompts]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return tokens.to(self.device)

    def prepare(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] of any size -> (n, 3, s, s) float32, zero mean and unit variance over CLIP's pictures.

        Squares of the tower's size are not resized; others are, bicubic with antialiasing, as in CLIP's training.
        """
        size = (self.config.image_size, self.config.image_size)
        images = images.float()
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)
        scale, shift = normalization(images.device)
        return images * scale + shift

    def encode_image(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, d) float32 of unit length, differentiable."""
        x = self.prepare(images).to(self.log_scale.dtype)
        return F.normalize(self.image_features(x).float(), dim=-1)


class OpenaiClip(PublishedClip):
    """OpenAI's CLIP, and every CLIP of its layout."""

    def __init__(self, config: OpenaiClipConfig, tokenizer: ClipTokenizer):
        super().__init__(config, tokenizer)
        self.visual = ModifiedResNet(config) if config.image_block_counts else VisionTransformer(config)
        width = config.text_width
        self.token_embedding = nn.Embedding(config.vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(config.context_length, width) * 0.01)
        self.transformer = Transformer(
            width,
            config.text_layer_count,
            config.text_head_count,
            config.text_inner_width,
            config.text_activation,
            causal=True,
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, config.embedding_size) * width**-0.5)

    def image_features(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) normalized pictures in the weights' type -> (n, d), not normalized."""
        return self.visual(images)

    @property
    def image(self) -> nn.Module:
        """The image tower."""
        return self.visual

    def text_features(self, tokens: Tensor) -> Tensor:
        """(n, t) token ids -> (n, d), not normalized: the state at END, which has the largest id, projected."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.transformer(x)[torch.arange(len(tokens), device=tokens.device), tokens.argmax(1)]
        return self.ln_final(x) @ self.text_projection


class TransformersClip(PublishedClip):
    """Base of the CLIPs whose network is one of transformers, which subclasses put into `network`."""

    network: nn.Module

    @property
    def image(self) -> nn.Module:
        """The image tower."""
        return cast(nn.Module, self.network.vision_model)

    @staticmethod
    def sizes_of_image_tower(config: OpenaiClipConfig) -> dict[str, Any]:
        """The sizes of the image tower by the names of transformers."""
        return {
            "hidden_size": config.image_width,
            "num_hidden_layers": config.image_layer_count,
            "num_attention_heads": config.image_head_count,
            "intermediate_size": config.image_inner_width,
            "hidden_act": config.image_activation,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        }

    @staticmethod
    def sizes_of_text_tower(config: OpenaiClipConfig) -> dict[str, Any]:
        """The sizes of the text tower by the names of transformers, without that of its positions."""
        return {
            "hidden_size": config.text_width,
            "num_hidden_layers": config.text_layer_count,
            "num_attention_heads": config.text_head_count,
            "intermediate_size": config.text_inner_width,
            "hidden_act": config.text_activation,
            "vocab_size": config.vocabulary_size,
        }

    def image_features(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) prepared pictures in the weights' type -> (n, d), not normalized."""
        return cast(Any, self.network).get_image_features(pixel_values=images).pooler_output
