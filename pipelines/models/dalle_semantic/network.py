"""DALL·E (Ramesh et al. 2021) with semantic tokens: a decoder-only Transformer that plans a picture before it draws it.

Its sequence is CLIP's text as a prefix, a style, a few semantic tokens, then the image tokens in raster order. The
semantic tokens are CLIP's image vector after residual quantization (Juang and Gray 1982): the place of unCLIP's prior
(Ramesh et al. 2022) in one sequence with the picture. Attention is dense and causal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models.checkpoint import Config
from pipelines.models.clip.network import Clip, TextStates, text_states
from pipelines.models.decoder_only import CausalKVCache, NormalizedBlock

UNKNOWN_STYLE = 0  # the styles of the config follow it


@dataclass(frozen=True)
class SemanticDalleConfig(Config):
    """Sizes. `grid` is image tokens along a side. Of CLIP's text states the first `text_length` are read."""

    image_vocabulary: int
    grid: int = 8
    semantic_vocabulary: int = 256
    semantic_length: int = 2  # levels of the residual quantizer
    text_length: int = 20  # with END
    width: int = 256
    layer_count: int = 7
    head_count: int = 4
    text_width: int = 256  # of CLIP's states
    embedding_size: int = 256  # of CLIP's vectors
    styles: tuple[str, ...] = ()

    @property
    def prompt_length(self) -> int:
        """Text tokens that a prompt may have."""
        return self.text_length - 1

    @property
    def image_length(self) -> int:
        """Image tokens in a picture."""
        return self.grid * self.grid

    @property
    def prefix_length(self) -> int:
        """Places before the first semantic token: CLIP's vector, its states, the style."""
        return self.text_length + 2

    @property
    def length(self) -> int:
        """Places in the whole sequence."""
        return self.prefix_length + self.semantic_length + self.image_length


@dataclass(frozen=True)
class Dropout:
    """Which numbers are kept, drawn before the network runs (Srivastava et al. 2014).

    `kept` is (layers, 2, n, t, width) bool: for what attention, and what the feed-forward adds.
    """

    kept: Tensor
    scale: float  # of the kept ones, 1 / (1 - rate)

    def __call__(self, x: Tensor, layer: int, part: int) -> Tensor:
        """What one of the two parts of a layer adds at the last places, (n, t, width) -> the same shape."""
        return self.kept[layer, part, :, -x.shape[1] :] * (x * self.scale)


def draw_dropout(shape: tuple[int, ...], rate: float, generator: torch.Generator) -> Dropout:
    """A Dropout of that shape, its rate rounded to 1/256, on the generator's device.

    One random byte a number, drawn eight at a time, is several times faster than torch's own on a processor.
    """
    count, dropped = math.prod(shape), round(256 * rate)
    eights = torch.empty(-(-count // 8), dtype=torch.int64, device=generator.device)
    eights.random_(-(2**63), None, generator=generator)
    kept = eights.view(torch.uint8)[:count].view(shape) >= dropped
    return Dropout(kept, 256 / (256 - dropped))


class Block(NormalizedBlock):
    """A block whose attention and feed-forward are asked apart: a training drops parts of what each adds."""

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """(n, t, width) x, its queries, and keys and values (n, heads, s, width / heads) -> what attention adds, as x.

        `bias` (t, s) is added to the attention's logits. Plain attention is faster than the fused one for so few places
        on processors, above all backward.
        """
        logits = q @ k.transpose(-1, -2)
        share = (logits if bias is None else logits + bias.to(logits.dtype)).softmax(-1)
        return self.out((share.to(v.dtype) @ v).transpose(1, 2).reshape(x.shape))

    def feed_forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> what the feed-forward adds, with squared ReLU (So et al. 2021): the same shape."""
        return self.down(F.relu(self.up(self.norm2(x))).square())


class SemanticDalle(nn.Module):
    """The Decoder. `forward` is for training; `prefill` and `decode_step` sample with a static key/value cache.

    It reads texts with a CLIP that is no part of it: of the kind that it was trained with, and not saved with it.
    """

    semantic_codes: Tensor  # (semantic_length, semantic_vocabulary, embedding_size)
    causal_bias: Tensor

    def __init__(self, config: SemanticDalleConfig, clip: Clip):
        super().__init__()
        self.config, self.read = config, partial(text_states, clip)
        width = config.width
        self.text = nn.Linear(config.text_width, width)
        self.text_position = nn.Parameter(torch.randn(config.text_length, width) * 0.02)
        self.pad = nn.Parameter(torch.randn(config.text_length, width) * 0.02)  # one for each position
        self.vector = nn.Linear(config.embedding_size, width)
        self.no_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.style = nn.Embedding(1 + len(config.styles), width)
        self.semantic_token = nn.Embedding(config.semantic_length * config.semantic_vocabulary, width)
        self.image_token = nn.Embedding(config.image_vocabulary + 1, width)  # the last one hides a token
        self.row = nn.Parameter(torch.randn(config.grid, width) * 0.02)
        self.column = nn.Parameter(torch.randn(config.grid, width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layer_count))
        self.norm = nn.LayerNorm(width)
        self.semantic_head = nn.Linear(width, config.semantic_length * config.semantic_vocabulary)
        self.image_head = nn.Linear(width, config.image_vocabulary)
        for embedding in (self.style, self.semantic_token, self.image_token):
            nn.init.normal_(embedding.weight, std=0.02)
        codes = torch.zeros(config.semantic_length, config.semantic_vocabulary, config.embedding_size)
        self.register_buffer("semantic_codes", codes)
        bias = torch.full((config.length, config.length), float("-inf")).triu(1)
        self.register_buffer("causal_bias", bias, persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.pad.device

    @property
    def layers(self) -> list[Block]:
        """The blocks, with their own type."""
        return cast(list[Block], list(self.blocks))

    # ------------------------------------------------------------------------------------------------- what it reads

    def text_tokens(self, ids: list[int], style: str = "") -> Tensor:
        """A prompt's ids, of CLIP's tokenizer -> (1 + text_length,) int64: the style, then the ids, cut or padded with 0.

        [] is the text without a condition, "" the unknown style. ValueError for a style that is not in the config.
        """
        row = torch.zeros(1 + self.config.text_length, dtype=torch.long)
        row[0] = 1 + self.config.styles.index(style) if style else UNKNOWN_STYLE
        ids = ids[: self.config.prompt_length]
        row[1 : 1 + len(ids)] = torch.tensor(ids, dtype=torch.long)
        return row

    def prefix(self, text: TextStates, style: Tensor, told: Tensor) -> Tensor:
        """What comes before the semantic tokens: (n, prefix_length, width).

        `style` is (n,) int64. `told` is (n,) bool, False for rows that do not see the text; these, and places after a
        text's end, get learned vectors instead.
        """
        length = self.config.text_length
        states = self.text(text.states.to(self.device)[:, :length])
        missing = length - states.shape[1]
        real = F.pad(text.real.to(self.device)[:, :length] & told[:, None], (0, missing))
        states = F.pad(states, (0, 0, 0, missing)) + self.text_position
        states = torch.where(real[:, :, None], states, self.pad)
        vector = text.vector.to(self.device) * self.config.embedding_size**0.5  # numbers of size 1
        vector = torch.where(told[:, None], self.vector(vector), self.no_vector)
        return torch.cat([vector[:, None], states, self.style(style)[:, None]], 1)

    def embed_semantic(self, tokens: Tensor, start: int = 0) -> Tensor:
        """(n, t) tokens of the levels start, start + 1, ... -> (n, t, width)."""
        level = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return self.semantic_token(tokens + level * self.config.semantic_vocabulary)

    def embed_image(self, image: Tensor, start: int = 0) -> Tensor:
        """(n, t) tokens at raster positions start, start + 1, ... -> (n, t, width). `image_vocabulary` hides a token."""
        place = torch.arange(start, start + image.shape[1], device=image.device)
        rows = place.div(self.config.grid, rounding_mode="floor")
        return self.image_token(image) + self.row[rows] + self.column[place % self.config.grid]

    # ----------------------------------------------------------------------------------------------- the whole sequence

    def forward(
        self, prefix: Tensor, semantic: Tensor, image: Tensor, dropout: Dropout | None = None
    ) -> Tensor:
        """The states that predict each token: (n, semantic_length + image_length, width).

        `prefix` is (n, prefix_length, width), the tokens are (n, semantic_length) and (n, image_length). `dropout` is
        for t = length - 1 places.
        """
        x = torch.cat([prefix, self.embed_semantic(semantic), self.embed_image(image[:, :-1])], 1)
        bias, first = self.causal_bias[: x.shape[1], : x.shape[1]], self.config.prefix_length - 1
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            if layer == len(self.blocks) - 1:  # of what the last one gives, only these places are used
                x, q, bias = x[:, first:], q[:, :, first:], bias[first:]
            added = block.attend(x, q, k, v, bias)
            x = x + (added if dropout is None else dropout(added, layer, 0))
            added = block.feed_forward(x)
            x = x + (added if dropout is None else dropout(added, layer, 1))
        return self.norm(x)

    def logits(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives -> logits of the semantic and of the image tokens.

        They are (n, semantic_length, semantic_vocabulary) and (n, image_length, image_vocabulary) float32.
        """
        count = self.config.semantic_length
        semantic = [self.next_logits(states[:, level], level) for level in range(count)]
        return torch.stack(semantic, 1), self.image_head(states[:, count:]).float()

    def next_logits(self, state: Tensor, place: int) -> Tensor:
        """(n, width) states -> float32 logits of the token at `place`, semantic tokens first: (n, its vocabulary)."""
        count = self.config.semantic_vocabulary
        if place >= self.config.semantic_length:
            return self.image_head(state).float()
        level = slice(place * count, (place + 1) * count)
        return F.linear(state, self.semantic_head.weight[level], self.semantic_head.bias[level]).float()

    # ------------------------------------------------------------------------------------------------ token by token

    def prefill(self, text: Tensor, row_count: int) -> tuple[CausalKVCache, Tensor]:
        """(n, 1 + text_length) texts -> a cache of row_count rows, and the first semantic token's logits.

        Each text serves row_count / n neighbouring rows. The logits are (row_count, semantic_vocabulary) float32.
        """
        config = self.config
        head_size = config.width // config.head_count
        cache = CausalKVCache(
            config.length, config.layer_count, row_count, config.head_count, head_size, self.pad
        )
        x = self.prefix(self.read(text[:, 1:]), text[:, 0], text[:, 1:].any(1))
        bias = self.causal_bias[: x.shape[1], : x.shape[1]]
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, 0, k, v)
            x = x + block.attend(x, q, k, v, bias)
            x = x + block.feed_forward(x)
        logits = self.next_logits(self.norm(x[:, -1]), 0)
        return cache, logits.repeat_interleave(row_count // len(text), 0)

    def decode_step(self, cache: CausalKVCache, token: Tensor, position: int) -> Tensor:
        """Tokens (row_count,) at `position` -> (row_count, vocabulary) float32 logits of the next.

        Positions count the semantic tokens, then the image tokens in raster order.
        """
        count, slot = self.config.semantic_length, self.config.prefix_length + position
        if position < count:
            x = self.embed_semantic(token[:, None], position)
        else:
            x = self.embed_image(token[:, None], position - count)
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, slot, k, v)
            x = x + block.attend(x, q, *cache.read(layer, slot))
            x = x + block.feed_forward(x)
        return self.next_logits(self.norm(x[:, 0]), position + 1)


@torch.no_grad()
def semantic_tokens(codes: Tensor, vectors: Tensor) -> Tensor:
    """(levels, k, d) codes and (n, d) vectors -> (n, levels) int64: each level takes the code nearest to what is left."""
    left, tokens = vectors.float(), list[Tensor]()
    for table in codes.float():
        nearest = [torch.cdist(chunk, table).argmin(1) for chunk in torch.split(left, 8192)]
        tokens.append(torch.cat(nearest))
        left = left - table[tokens[-1]]
    return torch.stack(tokens, 1)
