"""The second stage of the VQGAN (Esser et al. 2021, sections 3.2 and 3.3): a Transformer over the codes of a picture.

Its attention is a window that slides: a token sees the tokens before it that are less than `grid` rows above and less
than `grid` columns aside, and where they are relative to it. On a training picture that is all of them. What a token
knows does not change as the window moves on, so keys and values can be kept on canvases of any size, where
taming-transformers computes the whole window anew for each token.

A place also has a row and a column. On a large canvas they are those that taming-transformers gives it in its window:
counted from the near edge, and the middle ones in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.models.dalle.network import Block
from pipelines.models.decoder_only import DecoderOnlyConfig, KVCache

CONDITIONS = ("none", "class", "text")
TOLD = 12  # names in an error


@dataclass(frozen=True)
class TransformerConfig(DecoderOnlyConfig):
    """Sizes. `grid` is image tokens along a side of a training picture. ValueError for an unknown condition.

    The condition "none" has one start token, "class" one token, the number of a class from 1 on, and "text" as many
    tokens as `text_length`. 0 is no condition. `class_tokens` are the ids of each class's name.
    """

    image_vocabulary: int
    grid: int = 8
    condition: str = "none"
    text_vocabulary: int = 1
    text_length: int = 1
    classes: tuple[str, ...] = ()
    class_tokens: tuple[tuple[int, ...], ...] = ()
    width: int = 192
    layer_count: int = 4
    head_count: int = 3

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition {self.condition!r} is not one of {CONDITIONS}")

    @property
    def prompt_length(self) -> int:
        """Text tokens that a prompt may have. A class's name may have any number."""
        return {"none": 0, "class": 32, "text": self.text_length}[self.condition]


@dataclass(frozen=True)
class Plan:
    """Who sees whom on a canvas of h x w tokens after t of the condition; length is t + h w.

    `rows`, `columns` (h w,) are places within a training picture. `mask` (length, length) is True where the row may look.
    `above`, `aside` (h w, h w) are offsets, moved to be indices of the table of relative places.
    """

    rows: Tensor
    columns: Tensor
    mask: Tensor
    above: Tensor
    aside: Tensor


def local_places(count: int, grid: int) -> Tensor:
    """(count,) rows, or columns, of a canvas as places within a training picture of `grid`."""
    place, half = torch.arange(count), grid // 2
    from_end = place - count + grid
    return torch.where(place < half, place, torch.where(count - place <= half, from_end, half))


def plan_of(canvas: tuple[int, int], grid: int, before: int) -> Plan:
    """The plan of a canvas of (rows, columns) after `before` tokens of the condition."""
    height, width = canvas
    place = torch.arange(height * width)
    row, column = place // width, place % width
    above, aside = row[:, None] - row[None, :], column[:, None] - column[None, :]
    sees = (place[:, None] >= place[None, :]) & (above < grid) & (aside.abs() < grid)
    mask = torch.ones(before + len(place), before + len(place), dtype=torch.bool).tril()
    mask[before:, before:] = sees
    return Plan(
        local_places(height, grid)[row],
        local_places(width, grid)[column],
        mask,
        above.clamp(0, grid - 1),
        aside.clamp(1 - grid, grid - 1) + grid - 1,
    )


class WindowCache(KVCache):
    """Keys and values of every slot of a canvas, and what its places mean.

    A slot reads the condition and the last `grid` rows of the canvas; the biases hide those of them that are too far
    aside. So nothing need be gathered.
    """

    def __init__(
        self,
        canvas: tuple[int, int],
        grid: int,
        before: int,
        biases: Tensor,
        places: Tensor,
        shape: list[int],
    ):
        """`biases` (layers, heads, length, length) and `places` (h w, width) are those of the canvas.

        `shape` is that of all keys, (layers, row_count, heads, length, size). `before` tokens are the condition.
        """
        self.keys, self.values = biases.new_empty(shape), biases.new_empty(shape)
        self.width, self.grid, self.before = canvas[1], grid, before
        self.biases, self.places = biases, places

    def first(self, slot: int) -> int:
        """The first slot of the rows that a slot sees; 0 where it sees all before it."""
        row = (slot - self.before) // self.width
        return self.before + (row - self.grid + 1) * self.width if row >= self.grid else 0

    def read(self, layer: int, slot: int) -> tuple[Tensor, Tensor]:
        """The keys and the values that `slot` may attend to, (row_count, heads, seen, size) each."""
        return self._of(self.keys[layer], slot), self._of(self.values[layer], slot)

    def bias(self, layer: int, slot: int) -> Tensor:
        """(heads, 1, seen) for the slots that `read` gives."""
        return self._of(self.biases[layer, :, slot, :, None], slot).transpose(1, 2)

    def _of(self, x: Tensor, slot: int) -> Tensor:
        """(..., length, size) -> those of the slots that `slot` sees."""
        first = self.first(slot)
        if first == 0:
            return x[..., : slot + 1, :]
        return torch.cat([x[..., : self.before, :], x[..., first : slot + 1, :]], -2)


class Transformer(nn.Module):
    """The Decoder. A `canvas` is (rows, columns) of tokens, each at least `config.grid`; None is a training picture."""

    slides = True  # `prefill` takes a canvas

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        width, grid = config.width, config.grid
        self.text_token = nn.Embedding(config.text_vocabulary, width)
        self.text_position = nn.Parameter(torch.randn(config.text_length, width) * 0.02)
        self.pad = nn.Parameter(torch.randn(config.text_length, width) * 0.02)  # one for each position
        self.image_token = nn.Embedding(config.image_vocabulary, width)
        self.row = nn.Parameter(torch.randn(grid, width) * 0.02)
        self.column = nn.Parameter(torch.randn(grid, width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layer_count))
        self.relative = nn.Parameter(torch.zeros(config.layer_count, config.head_count, grid, 2 * grid - 1))
        self.norm = nn.LayerNorm(width)
        self.image_head = nn.Linear(width, config.image_vocabulary)
        nn.init.normal_(self.text_token.weight, std=0.02)
        nn.init.normal_(self.image_token.weight, std=0.02)
        self._classes = {tuple(ids): k + 1 for k, ids in enumerate(config.class_tokens)}
        self._plans: dict[tuple[tuple[int, int], torch.device], Plan] = {}

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.pad.device

    @property
    def layers(self) -> list[Block]:
        """The blocks, with their own type."""
        return cast(list[Block], list(self.blocks))

    def text_tokens(self, ids: list[int]) -> Tensor:
        """A prompt's ids -> (text_length,) int64. [] is no condition, and so is every text for the condition "none".

        BadInput where the condition is a class and the ids are not those of a class's name.
        """
        tokens = torch.zeros(self.config.text_length, dtype=torch.long)
        if self.config.condition == "text":
            ids = ids[: len(tokens)]
            tokens[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        elif self.config.condition == "class" and ids:
            if tuple(ids) not in self._classes:
                names = self.config.classes
                raise BadInput("models.class_unknown", count=len(names), some=", ".join(names[:TOLD]))
            tokens[0] = self._classes[tuple(ids)]
        return tokens

    def plan(self, canvas: tuple[int, int] | None = None) -> Plan:
        """The plan of a canvas, on the device; kept."""
        canvas = canvas or (self.config.grid, self.config.grid)
        key = (canvas, self.device)
        if key not in self._plans:
            plan = plan_of(canvas, self.config.grid, self.config.text_length)
            self._plans[key] = Plan(**{name: value.to(self.device) for name, value in vars(plan).items()})
        return self._plans[key]

    def biases(self, plan: Plan) -> Tensor:
        """(layers, heads, length, length), -inf where a row may not look; the condition is seen without a bias."""
        before = self.config.text_length
        among = self.relative[:, :, plan.above, plan.aside]
        whole = nn.functional.pad(among, (before, 0, before, 0))
        return whole.masked_fill(~plan.mask, -torch.inf)

    def embed_text(self, text: Tensor) -> Tensor:
        """(n, text_length) tokens, 0 from the end of the text on -> (n, text_length, width)."""
        padded = (text == 0)[:, :, None]
        token = torch.where(padded, self.pad.to(self.text_token.weight.dtype), self.text_token(text))
        return token + self.text_position

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        canvas: tuple[int, int] | None = None,
        places: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(n, text_length) and the first (n, k) tokens of the canvas -> (n, text_length + k, width), states.

        The states from text_length - 1 on predict the tokens. `places` are rows and columns, (n, h w) each, in the stead
        of the plan's.
        """
        plan = self.plan(canvas)
        rows, columns = (part[..., : image.shape[1]] for part in places or (plan.rows, plan.columns))
        shown = self.image_token(image) + self.row[rows] + self.column[columns]
        x = torch.cat([self.embed_text(text), shown], 1)
        t = x.shape[1]
        for block, bias in zip(self.layers, self.biases(plan)[:, :, :t, :t], strict=True):
            q, k, v = block.queries_keys_values(x)
            x = block.attend(x, q, k, v, bias[None].to(q.dtype))
        return self.norm(x)

    def image_logits(self, text: Tensor, image: Tensor, canvas: tuple[int, int] | None = None) -> Tensor:
        """(n, text_length) and (n, h w) tokens -> (n, h w, image_vocabulary) float32, without a cache."""
        states = self.forward(text, image[:, :-1], canvas)
        return self.image_head(states[:, self.config.text_length - 1 :]).float()

    def prefill(
        self, text: Tensor, row_count: int, canvas: tuple[int, int] | None = None
    ) -> tuple[WindowCache, Tensor]:
        """(n, text_length) conditions -> a cache of row_count rows, and the first image token's logits.

        Each condition serves row_count / n neighbouring rows. The logits are (row_count, image_vocabulary) float32.
        """
        plan, t = self.plan(canvas), self.config.text_length
        canvas = canvas or (self.config.grid, self.config.grid)
        biases = self.biases(plan).to(self.pad.dtype)
        layers, heads, length, _ = biases.shape
        places = self.row[plan.rows] + self.column[plan.columns]
        shape = [layers, row_count, heads, length, self.config.width // heads]
        cache = WindowCache(canvas, self.config.grid, t, biases, places, shape)
        x = self.embed_text(text)
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, 0, k, v)
            x = block.attend(x, q, k, v, biases[layer, None, :, :t, :t])
        logits = self.image_head(self.norm(x[:, -1])).float()
        return cache, logits.repeat_interleave(row_count // len(text), 0)

    def decode_step(self, cache: WindowCache, token: Tensor, position: int) -> Tensor:
        """Image tokens (row_count,) at raster `position` -> (row_count, image_vocabulary) float32 logits of the next."""
        x = (self.image_token(token) + cache.places[position])[:, None]
        slot = self.config.text_length + position
        for layer, block in enumerate(self.layers):
            q, k, v = block.queries_keys_values(x)
            cache.write(layer, slot, k, v)
            x = block.attend(x, q, *cache.read(layer, slot), cache.bias(layer, slot)[None])
        return self.image_head(self.norm(x[:, 0])).float()
