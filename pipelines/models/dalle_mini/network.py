"""DALL·E mini and mega (Dayma et al. 2021): a BART (Lewis et al. 2020) from text to the image tokens of a VQGAN.

Every layer has the extra norms of NormFormer (Shleifer et al. 2021) and a gated feed-forward with exact GELU (Shazeer
2020); no matrix has a bias. Sampling is bound by reading the decoder's weights, so a step reads them once for all rows.
The text's keys and values are projected once a prompt and shared by all its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.checkpoint import Config


@dataclass(frozen=True)
class DalleMiniConfig(Config):
    """Sizes; the defaults are mini's. A text is `text_begin`, its tokens, `text_end`, then `text_pad` to the end."""

    text_vocabulary: int
    image_vocabulary: int = 16384  # what can be drawn
    start_token: int = 16384  # what the decoder begins with, of mini and of mega
    text_length: int = 64
    grid: int = 16
    width: int = 1024
    inner_width: int = 2730  # of the feed-forward
    encoder_layer_count: int = 12
    decoder_layer_count: int = 12
    head_count: int = 16
    text_begin: int = 0
    text_pad: int = 1
    text_end: int = 2
    token_rows: int = 0  # of the decoder's table of tokens, 16416 in mega; 0 for start_token + 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config from JSON values. TypeError for a field that the config does not have.

        BadInput for a mega that an earlier version converted. It took the last row of the table for the start token, and
        the rows after the start token were never trained.
        """
        config = super().from_dict(values)
        if not config.token_rows and config.start_token > config.image_vocabulary:
            raise BadInput(
                "models.start_token_of_before", found=config.start_token, expected=config.image_vocabulary
            )
        return config

    @property
    def table_size(self) -> int:
        """Rows of the decoder's table of tokens."""
        return self.token_rows or self.start_token + 1

    @property
    def semantic_length(self) -> int:
        """Tokens that are drawn before the picture's: none."""
        return 0

    @property
    def prompt_length(self) -> int:
        """Text tokens that a prompt may have."""
        return self.text_length - 2

    @property
    def image_length(self) -> int:
        """Image tokens in a picture."""
        return self.grid * self.grid


def product(x: Tensor, weight: Tensor) -> Tensor:
    """(n, t, i) and (o, i) -> (n, t, o), F.linear(x, weight).

    For 4 to 128 rows on a CPU it is computed as (weight x^T)^T, which is about twice as fast in float32.
    """
    if x.device.type == "cpu" and 4 <= x.shape[0] * x.shape[1] <= 128:
        return cast(Tensor, (weight @ x.flatten(0, 1).T).T.unflatten(0, x.shape[:2]))
    return F.linear(x, weight)


class SelfAttention(nn.Module):
    """x + norm(attention(norm(x)))."""

    def __init__(self, config: DalleMiniConfig):
        super().__init__()
        width = config.width
        self.head_count = config.head_count
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def queries_keys_values(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (3, n, heads, t, width / heads)."""
        qkv = product(self.norm_in(x), self.qkv.weight)
        return cast(Tensor, qkv.unflatten(2, (3, self.head_count, -1))).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(n, t, width) -> the same shape; `mask` is True where a query attends."""
        q, k, v = self.queries_keys_values(x)
        return self.attend(x, q, k, v, mask)

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """(n, t, width) x, its queries, and keys and values (n, heads, s, width / heads) -> the output, as x."""
        h = F.scaled_dot_product_attention(q.contiguous(), k, v, attn_mask=mask)
        return x + self.norm_out(product(h.transpose(1, 2).flatten(2), self.out.weight))


class CrossAttention(nn.Module):
    """x + norm(attention(norm(x))) from image tokens to the text, where neighbouring rows share one text."""

    def __init__(self, config: DalleMiniConfig):
        super().__init__()
        width = config.width
        self.head_count = config.head_count
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.keys_values = nn.Linear(width, 2 * width, bias=False)

    def read(self, text: Tensor) -> Tensor:
        """(n, text_length, width) -> the text's keys and values, (2, n, heads, text_length, width / heads)."""
        kv = F.linear(text, self.keys_values.weight)
        return cast(Tensor, kv.unflatten(2, (2, self.head_count, -1))).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, kv: Tensor, mask: Tensor) -> Tensor:
        """(rows, t, width) -> the same shape; kv is what `read` gives for n texts, each for rows / n neighbours.

        The mask, (n, 1, 1, text_length), is True where the text is no padding.
        """
        q = product(self.norm_in(x), self.query.weight)
        q = q.reshape(kv.shape[1], -1, *q.shape[2:])
        q = cast(Tensor, q.unflatten(2, (self.head_count, -1))).transpose(1, 2)
        h = F.scaled_dot_product_attention(q.contiguous(), kv[0], kv[1], attn_mask=mask)
        return x + self.norm_out(product(h.transpose(1, 2).reshape(x.shape), self.out.weight))


class FeedForward(nn.Module):
    """x + down(norm(gelu(gate) * value)), where one matrix makes gate and value from norm(x)."""

    def __init__(self, config: DalleMiniConfig):
        super().__init__()
        self.norm_in, self.norm_inner = nn.LayerNorm(config.width), nn.LayerNorm(config.inner_width)
        self.gate_value = nn.Linear(config.width, 2 * config.inner_width, bias=False)
        self.down = nn.Linear(config.inner_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (n, t, width)."""
        gate, value = product(self.norm_in(x), self.gate_value.weight).chunk(2, 2)
        return x + product(self.norm_inner(F.gelu(gate) * value), self.down.weight)


class EncoderLayer(nn.Module):
    """Self-attention of text tokens, then the feed-forward."""

    def __init__(self, config: DalleMiniConfig):
        super().__init__()
        self.attention, self.feed_forward = SelfAttention(config), FeedForward(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(n, text_length, width) -> the same shape."""
        return self.feed_forward(self.attention(x, mask))


class DecoderLayer(nn.Module):
    """Causal self-attention of image tokens, attention to the text, then the feed-forward."""

    def __init__(self, config: DalleMiniConfig):
        super().__init__()
        self.attention, self.cross = SelfAttention(config), CrossAttention(config)
        self.feed_forward = FeedForward(config)


class KVCache:
    """The static buffers of a drawing: all keys and values, and the head's weights in float32.

    `image` is (layers, 2, rows, heads, image_length, head size), `text` is (layers, 2, texts, heads, text_length, head
    size), once for each distinct text, and `text_mask` (texts, 1, 1, text_length) is True where the text is no padding.
    """

    def __init__(self, config: DalleMiniConfig, rows: int, texts: int, head: Tensor):
        layers, heads = config.decoder_layer_count, config.head_count
        size = config.width // heads
        self.image = head.new_zeros(layers, 2, rows, heads, config.image_length, size)
        self.text = head.new_zeros(layers, 2, texts, heads, config.text_length, size)
        self.text_mask = torch.ones(texts, 1, 1, config.text_length, dtype=torch.bool, device=head.device)
        self.places = torch.arange(config.image_length, device=head.device)
        self.head = head.float()  # the same memory where the weights are float32


class DalleMini(nn.Module):
    """The Decoder. `forward` gives all logits at once; `prefill` and `decode_step` sample with a static cache."""

    def __init__(self, config: DalleMiniConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.text_token = nn.Embedding(config.text_vocabulary, width)
        self.text_position = nn.Embedding(config.text_length, width)
        self.text_norm_in, self.text_norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layer_count))
        self.image_token = nn.Embedding(config.table_size, width)
        self.image_position = nn.Embedding(config.image_length, width)
        self.image_norm_in, self.image_norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layer_count))
        self.image_head = nn.Linear(width, config.image_vocabulary, bias=False)
        self._graphs: StepGraphs | None = None

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DalleMini:
        """Moving or converting the weights discards the CUDA graphs recorded with them."""
        self._graphs = None
        return cast(Any, super())._apply(fn, recurse)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.image_head.weight.device

    def text_tokens(self, ids: list[int]) -> Tensor:
        """A prompt's ids -> (text_length,) int64 with begin and end tokens; a long prompt is cut before the end token."""
        config = self.config
        tokens = torch.full((config.text_length,), config.text_pad)
        kept = [config.text_begin, *ids[: config.text_length - 2], config.text_end]
        tokens[: len(kept)] = torch.tensor(kept)
        return tokens.to(self.device)

    def encode_text(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """(n, text_length) tokens -> (n, text_length, width) states, and a (n, 1, 1, text_length) mask.

        The mask is True for tokens, False for padding.
        """
        mask = (text != self.config.text_pad)[:, None, None]
        x = self.text_norm_in(self.text_token(text) + self.text_position.weight)
        for layer in self.encoder:
            x = layer(x, mask)
        return self.text_norm_out(x), mask

    def forward(self, text: Tensor, tokens: Tensor) -> Tensor:
        """(n, text_length) and (n, image_length) tokens -> (n, image_length, image_vocabulary) float32.

        The logits at a place predict the token there from all tokens before it.
        """
        encoded, mask = self.encode_text(text)
        start = torch.full_like(tokens[:, :1], self.config.start_token)
        x = self.image_token(torch.cat([start, tokens[:, :-1]], 1)) + self.image_position.weight
        x, length = self.image_norm_in(x), tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        for layer in self.decoder_layers:
            x = layer.attention(x, causal)
            x = layer.feed_forward(layer.cross(x, layer.cross.read(encoded), mask))
        return F.linear(self.image_norm_out(x).float(), self.image_head.weight.float())

    @torch.no_grad()
    def prefill(self, text: Tensor, row_count: int) -> tuple[KVCache, Tensor]:
        """(n, text_length) texts -> a cache of row_count rows, and the first image token's logits.

        Each text serves row_count / n neighbouring rows. The logits are (row_count, image_vocabulary) float32. On CUDA,
        drawings with equal numbers of rows and texts share one cache, and reading a text overwrites it.
        """
        encoded, mask = self.encode_text(text.to(self.device))
        cache = self._cache(row_count, len(text))
        cache.text_mask.copy_(mask)
        cache.head.copy_(self.image_head.weight)
        for kv, layer in zip(cache.text, self.decoder_layers, strict=True):
            kv.copy_(layer.cross.read(encoded))
        start = torch.full((row_count,), self.config.start_token, device=self.device)
        return cache, self._logits_at(cache, start, 0)

    @torch.no_grad()
    def decode_step(self, cache: KVCache, token: Tensor, position: int) -> Tensor:
        """Image tokens (row_count,) at raster `position` -> (row_count, image_vocabulary) float32 logits of the next."""
        return self._logits_at(cache, token, position + 1)

    # ------------------------------------------------------------------------------------------------ one step

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The decoder's layers, with their own type."""
        return cast(list[DecoderLayer], list(self.decoder))

    def _cache(self, rows: int, texts: int) -> KVCache:
        if self.device.type != "cuda":
            return KVCache(self.config, rows, texts, self.image_head.weight)
        shape = (rows, texts)
        if self._graphs is None or self._graphs.shape != shape:
            self._graphs = None  # gives its memory back first
            self._graphs = StepGraphs(self, KVCache(self.config, rows, texts, self.image_head.weight), shape)
        return self._graphs.cache

    def _logits_at(self, cache: KVCache, token: Tensor, place: int) -> Tensor:
        if self._graphs is not None and self._graphs.cache is cache:
            return self._graphs.logits_at(token, place)
        return self.step(cache, token, cache.places[place : place + 1], place + 1)

    def step(self, cache: KVCache, token: Tensor, place: Tensor, length: int, masked: bool = False) -> Tensor:
        """Tokens (rows,) at `place`, a (1,) tensor -> (rows, image_vocabulary) float32 logits of the next.

        Attention reads the first `length` slots of the cache. With `masked`, slots after `place` are masked, so that one
        length serves many places.
        """
        mask = (cache.places[:length] <= place).expand(1, 1, 1, -1) if masked else None
        x = self.image_norm_in((self.image_token(token) + self.image_position(place))[:, None])
        for number, layer in enumerate(self.decoder_layers):
            qkv, slots = layer.attention.queries_keys_values(x), cache.image[number]
            slots.index_copy_(3, place, qkv[1:])
            keys, values = slots[:, :, :, :length]
            x = layer.attention.attend(x, qkv[0], keys, values, mask)
            x = layer.feed_forward(layer.cross(x, cache.text[number], cache.text_mask))
        # guidance would multiply any rounding
        return product(self.image_norm_out(x).float(), cache.head)[:, 0]


class StepGraphs:
    """Steps on CUDA, recorded as one graph for each of a few lengths.

    Launching a step's kernels one by one takes longer than running them. The buffers, the cache included, are reused by
    every later drawing of the same `shape` (rows, texts).
    """

    def __init__(self, network: DalleMini, cache: KVCache, shape: tuple[int, int]):
        self.network, self.cache, self.shape = network, cache, shape
        self.token = torch.zeros(shape[0], dtype=torch.long, device=network.device)
        self.place = torch.zeros(1, dtype=torch.long, device=network.device)
        self.recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def logits_at(self, token: Tensor, place: int) -> Tensor:
        """Tokens (rows,) at `place` -> float32 logits of the next, by the graph of the shortest sufficient length."""
        length = next(n for n in self.lengths if n > place)
        self.token.copy_(token)
        self.place.copy_(self.cache.places[place : place + 1])
        if length not in self.recorded:
            self.recorded[length] = self._record(length)
        graph, logits = self.recorded[length]
        graph.replay()
        return logits.clone()

    @property
    def lengths(self) -> list[int]:
        """The recorded lengths: 32, 64, 128, ... up to image_length."""
        whole, lengths = self.network.config.image_length, [32]
        while lengths[-1] < whole:
            lengths.append(2 * lengths[-1])
        return [min(length, whole) for length in lengths]

    def _record(self, length: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        # a step off the graph first: libraries allocate their workspaces on first use
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step(length)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._step(length)
        return graph, logits

    def _step(self, length: int) -> Tensor:
        return self.network.step(self.cache, self.token, self.place, length, masked=True)
