"""CLIP (Radford et al. 2021): an image tower and a text tower with one embedding space.

The image tower is an EfficientNet-Lite (Tan & Le 2019), which can start from open ImageNet weights; or, trained from
scratch, a residual CNN or a Transformer over a few convolutions. The text tower is a small bidirectional Transformer over
byte-level BPE tokens, English and Chinese.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.checkpoint import Config
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.clip_base import ClipNetwork

TEXT_KINDS = ("transformer", "bag", "cbow")


@dataclass(frozen=True)
class ClipConfig(Config):
    """Sizes of both towers. `widths` and `block_counts` are per stage of the image tower, each at half the size.

    It is trained on pictures of `small_size`, then of `image_size`, and encodes both sizes without resizing.
    With `image_layer_count` the image tower is a Transformer of the last width, and `widths` are its convolutions;
    with `mobile` it is an EfficientNet-Lite, whose seven stages have these `widths` and `block_counts`. `text_kind` is one
    of TEXT_KINDS. With `sigmoid` it is trained by SigLIP's loss, and has a bias. With `match_width` a head with one hidden
    layer of this width adds to the projection of texts where they are compared with pictures.
    """

    vocabulary_size: int
    image_size: int = 64
    small_size: int = 48
    widths: tuple[int, ...] = (48, 96, 192, 384)
    block_counts: tuple[int, ...] = (1, 2, 2, 2)
    mobile: bool = False
    image_layer_count: int = 0
    image_head_count: int = 4
    text_width: int = 256
    text_layer_count: int = 3
    text_head_count: int = 4
    context_length: int = 32
    embedding_size: int = 256
    text_kind: str = "transformer"
    sigmoid: bool = False
    match_width: int = 0

    def __post_init__(self) -> None:
        if self.text_kind not in TEXT_KINDS:
            raise ValueError(f"the text tower {self.text_kind!r} is not one of {TEXT_KINDS}")


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))); the first convolution may have stride 2 (He et al. 2016)."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width_in), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(width_in, width, 1, bias=False) if width_in != width else nn.Identity()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(n, width_in, h, w) -> (n, width, h / stride, w / stride)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        return self.skip(x) + h


class ImageTower(nn.Module):
    """(n, 3, s, s) normalized pictures -> (n, d), not normalized; `features` are the stages' outputs."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        widths = config.widths
        self.stem = nn.Conv2d(3, widths[0], 4, 2, 1)
        self.stages = nn.ModuleList()
        width_in = widths[0]
        for k, (width, count) in enumerate(zip(widths, config.block_counts, strict=True)):
            blocks = [ResidualBlock(width_in, width, 1 if k == 0 else 2)]
            blocks += [ResidualBlock(width, width, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            width_in = width
        self.norm = nn.LayerNorm(width_in)
        self.project = nn.Linear(width_in, config.embedding_size, bias=False)

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every stage, coarse last: (n, width, s/2, s/2), (n, width, s/4, s/4), ..."""
        h = self.stem(x)
        outputs: list[Tensor] = []
        for stage in self.stages:
            h = stage(h)
            outputs.append(h)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, embedding_size)."""
        return self.project(self.norm(F.silu(self.features(x)[-1]).mean((2, 3))))


def tf_same_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """(n, c, h, w) -> `conv(x)` with TensorFlow's "same" padding, whose odd pixel is at the right and the bottom.

    With stride 1 the convolution pads by itself.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if stride == 1:
        return conv(x)
    pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (x.shape[-1], x.shape[-2])]
    return conv(F.pad(x, [part for pad in pads for part in (pad // 2, pad - pad // 2)]))


class MobileBlock(nn.Module):
    """Inverted residual (Sandler et al. 2018): 1x1, depthwise, 1x1; added to the input if the shape stays."""

    def __init__(self, width_in: int, width: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        inner = width_in * expansion
        self.expand = nn.Conv2d(width_in, inner, 1) if expansion > 1 else None
        self.filter = nn.Conv2d(inner, inner, kernel, stride, 0 if stride > 1 else kernel // 2, groups=inner)
        self.narrow = nn.Conv2d(inner, width, 1)
        self.skips = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        """(n, width_in, h, w) -> (n, width, h / stride, w / stride), rounded up."""
        h = F.relu6(self.expand(x)) if self.expand is not None else x
        h = self.narrow(F.relu6(tf_same_conv(self.filter, h)))
        return x + h if self.skips else h


class EfficientNetTower(nn.Module):
    """(n, 3, s, s) normalized pictures -> (n, d), not normalized: an EfficientNet-Lite without batch norm.

    Batch norm's ImageNet statistics are folded into the convolutions, so a vector does not depend on its batch.
    """

    EXPANSIONS, KERNELS, STRIDES = (1, 6, 6, 6, 6, 6, 6), (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
    HEAD = 1280

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2)
        self.stages = nn.ModuleList()
        width_in = 32
        for width, count, *kind in zip(
            config.widths, config.block_counts, self.EXPANSIONS, self.KERNELS, self.STRIDES, strict=True
        ):
            expansion, kernel, stride = kind
            blocks = [MobileBlock(width_in, width, expansion, kernel, stride)]
            blocks += [MobileBlock(width, width, expansion, kernel, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            width_in = width
        self.head = nn.Conv2d(width_in, self.HEAD, 1)
        self.project = nn.Linear(self.HEAD, config.embedding_size, bias=False)
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, conv.bias))

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every stage, coarse last: sizes s/2, s/4, s/8, s/16, s/16, s/32, s/32."""
        h = F.relu6(tf_same_conv(self.stem, x))
        outputs: list[Tensor] = []
        for stage in self.stages:
            h = stage(h)
            outputs.append(h)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, embedding_size)."""
        return self.project(F.relu6(self.head(self.features(x)[-1])).mean((2, 3)))


class TransformerBlock(nn.Module):
    """Pre-norm Transformer block; `mask` is True where a token may be attended to, None for everywhere."""

    def __init__(self, width: int, head_count: int):
        super().__init__()
        self.head_count = head_count
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, t, width) -> the same shape; `mask` broadcasts to (n, heads, t, t)."""
        n, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.head_count, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (n, heads, t, width / heads)
        x = x + self.out(h.transpose(1, 2).reshape(n, t, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class TransformerTower(nn.Module):
    """(n, 3, s, s) normalized pictures -> (n, d), not normalized: a ViT with a convolutional stem and mean pooling.

    The stem follows Xiao et al. 2021, "Early convolutions help Transformers see better".
    """

    def __init__(self, config: ClipConfig):
        super().__init__()
        layers: list[nn.Module] = []
        width_in = 3
        for width in config.widths:
            layers += [
                nn.Conv2d(width_in, width, 3, 2, 1, bias=False),
                nn.GroupNorm(8, width),
                nn.GELU(approximate="tanh"),
            ]
            width_in = width
        self.stem = nn.Sequential(*layers, nn.Conv2d(width_in, width_in, 1))
        self.grid = config.image_size // 2 ** len(config.widths)
        self.position = nn.Parameter(torch.randn(1, width_in, self.grid, self.grid) * 0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(width_in, config.image_head_count) for _ in range(config.image_layer_count)
        )
        self.norm = nn.LayerNorm(width_in)
        self.project = nn.Linear(width_in, config.embedding_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, embedding_size)."""
        h = self.stem(x)  # (n, width, grid, grid)
        position = self.position
        if h.shape[-2:] != position.shape[-2:]:  # trainings begin with small pictures
            position = F.interpolate(position, h.shape[-2:], mode="bilinear", align_corners=False)
        h = (h + position).flatten(2).transpose(1, 2).contiguous()
        for block in self.blocks:
            h = block(h)
        return self.project(self.norm(h).mean(1))


class TextReader(nn.Module, ABC):
    """Base of text towers: (n, t) token ids, END and padding 0 -> (n, d), not normalized, to compare with pictures.

    A subclass sets the embedding `token`, `project`, the projection of the mean state, and `match`, which adds to it; None
    adds nothing.
    """

    token: nn.Embedding
    project: nn.Linear
    match: nn.Sequential | None

    @abstractmethod
    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n, t) token ids -> (n, t, text_width), and (n, t) bool, True where they count."""

    @abstractmethod
    def mean_state(self, states: Tensor, real: Tensor) -> Tensor:
        """(n, t, text_width) and (n, t) bool -> (n, text_width), of the states where `real` is True."""

    def pooled(self, tokens: Tensor) -> Tensor:
        """(n, t) token ids -> (n, text_width), the mean state of each text."""
        return self.mean_state(*self.states(tokens))

    def compared(self, pooled: Tensor) -> Tensor:
        """(n, text_width) mean states -> (n, embedding_size)."""
        return self.project(pooled) if self.match is None else self.project(pooled) + self.match(pooled)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, t) token ids -> (n, embedding_size)."""
        return self.compared(self.pooled(tokens))


def matching_head(config: ClipConfig) -> nn.Sequential | None:
    """A hidden layer from mean states to what is added to their projections, at first nothing. None without a width."""
    if not config.match_width:
        return None
    last = nn.Linear(config.match_width, config.embedding_size)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(config.text_width, config.match_width), nn.GELU(), last)


class TextTower(TextReader):
    """A Transformer. The mean over the text and its END is projected."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        width = config.text_width
        self.token = nn.Embedding(config.vocabulary_size, width)
        self.position = nn.Parameter(torch.randn(config.context_length, width) * 0.01)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.text_head_count) for _ in range(config.text_layer_count)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.embedding_size, bias=False)
        self.match = matching_head(config)
        nn.init.normal_(self.token.weight, std=0.02)

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n, t) token ids -> the states after the last block (n, t, text_width), and (n, t) bool, True up to END."""
        length = (tokens != 0).sum(1, keepdim=True) + 1  # with END
        real = torch.arange(tokens.shape[1], device=tokens.device) < length
        h = self.token(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h, real[:, None, None, :])
        return self.norm(h), real

    def mean_state(self, states: Tensor, real: Tensor) -> Tensor:
        """(n, t, text_width) states and (n, t) bool -> (n, text_width), their mean where `real` is True."""
        weight = real[:, :, None].to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)


class WordsTower(TextReader):
    """A tower that the order of the tokens does not matter to.

    "bag" is a bag of words (Joulin et al. 2016): each token of a text counts once, and all is linear but a norm. "cbow"
    is the mean of the tokens' vectors (Mikolov et al. 2013), and one hidden layer after it.
    """

    def __init__(self, config: ClipConfig):
        super().__init__()
        width, self.once = config.text_width, config.text_kind == "bag"
        self.token = nn.Embedding(config.vocabulary_size, width)
        self.hidden: nn.Module = nn.Identity()
        if not self.once:
            self.hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.embedding_size, bias=False)
        self.match = matching_head(config)
        nn.init.normal_(self.token.weight, std=0.02)

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n, t) token ids -> their vectors (n, t, text_width), and (n, t) bool, True where they count."""
        length = (tokens != 0).sum(1, keepdim=True) + 1  # with END
        counted = torch.arange(tokens.shape[1], device=tokens.device) < length
        if self.once:
            counted &= ~(tokens[:, :, None] == tokens[:, None, :]).tril(-1).any(2)
        return self.token(tokens), counted

    def mean_state(self, states: Tensor, real: Tensor) -> Tensor:
        """(n, t, text_width) vectors and (n, t) bool -> (n, text_width)."""
        weight = real[:, :, None].to(states.dtype)
        return self.norm(self.hidden((states * weight).sum(1) / weight.sum(1)))


class Clip(ClipNetwork):
    """Both towers and the tokenizer. Resizes and normalizes pictures itself."""

    def __init__(self, config: ClipConfig, tokenizer: Tokenizer):
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        tower = (
            TransformerTower
            if config.image_layer_count
            else EfficientNetTower
            if config.mobile
            else ImageTower
        )
        self.image = tower(config)
        self.text: TextReader = TextTower(config) if config.text_kind == "transformer" else WordsTower(config)
        first = 10.0 if config.sigmoid else 1 / 0.07
        self.log_scale = nn.Parameter(torch.tensor(math.log(first)))  # the learned temperature
        self.bias = nn.Parameter(torch.tensor(-10.0)) if config.sigmoid else None

    def tokenize(self, prompts: list[str]) -> Tensor:
        """List of n texts -> (n, t) token ids, END and padding 0, cut to the context length; t is the longest."""
        rows = [self.tokenizer.encode(prompt)[: self.config.context_length - 1] for prompt in prompts]
        tokens = torch.zeros(len(rows), 1 + max(map(len, rows)), dtype=torch.long)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        return tokens.to(self.device)

    def prepare(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] of any size -> (n, 3, s, s), zero mean and unit variance over the training data.

        Squares of side `image_size` or `small_size` are not resized.
        """
        size, small = self.config.image_size, self.config.small_size
        if images.shape[-2:] not in ((size, size), (small, small)):
            if images.shape[-1] > size and images.shape[-2] > size:
                images = F.interpolate(images, (size, size), mode="area")
            else:
                images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        return (images - 0.5) / 0.6

    def text_features(self, tokens: Tensor) -> Tensor:
        """(n, t) token ids, END and padding 0 -> (n, d), not normalized."""
        return self.text(tokens)

    def encode_image(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, d) float32 of unit length, differentiable."""
        return F.normalize(self.image(self.prepare(images)).float(), dim=-1)


@dataclass(frozen=True)
class TextStates:
    """What networks that draw read of n texts: `states` (n, t, width), `real` (n, t) bool for tokens, and `vector` (n, d).

    The vector is the projection of the mean state, of unit length, without the matching head.
    """

    states: Tensor
    real: Tensor
    vector: Tensor


@torch.no_grad()
def text_states(clip: Clip, tokens: Tensor) -> TextStates:
    """CLIP's states and vectors of (n, t) token ids, END and padding 0, without a gradient."""
    states, real = clip.text.states(tokens.to(clip.device))
    vector = clip.text.project(clip.text.mean_state(states, real))
    return TextStates(states, real, F.normalize(vector.float(), dim=-1))


def read_texts(clip: Clip, prompts: list[str]) -> TextStates:
    """CLIP's states and vectors of n prompts, without a gradient."""
    return text_states(clip, clip.tokenize(prompts))
