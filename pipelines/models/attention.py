"""Attention of diffusers' UNets, watched and changed while it is computed (Hertz et al. 2022, Prompt-to-Prompt).

Weights of a layer are (n, heads, queries, keys) after the softmax. Queries are the places of the picture, row by row.
Keys are those places in self-attention, and the tokens of the text in cross-attention. A UNet's batch holds the rows
without the text first, if there are any, and the rows under the text last; controls take the last ones.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.words import Alignment, PromptTokens

# self-attention over more places is not taken over: it holds no layout, and much memory
MOST_PLACES = 32 * 32
SELF_SHARE = 0.5  # of the steps that take over cross-attention, the first that take over self-attention too
BLOCK_LAYERS = (".attn1.processor", ".attn2.processor")  # of a transformer block: self- and cross-attention


class Control(Protocol):
    """What looks at the attention weights of a prediction, and may change them."""

    def wants(self, cross: bool, places: int) -> bool:
        """Whether it is to be called for a layer of cross- or self-attention of the picture's `places`."""
        ...

    def __call__(self, layer: str, cross: bool, weights: Tensor) -> Tensor:
        """The weights to use, (n, heads, places, keys), in place of a layer's own."""
        ...


@runtime_checkable
class HasAttention(Protocol):
    """A LatentDiffusion whose attention can be watched and changed."""

    def prompt_tokens(self, prompt: str) -> PromptTokens:
        """The prompt's tokens, and their keys in cross-attention."""
        ...

    def controlled(self, condition: Any, control: Control) -> Any:
        """A condition for `predict`, under which `control` is asked in every layer."""
        ...

    def mixture(self, t: Tensor) -> tuple[float, float]:
        """The factors of the clean latents and of unit noise in latents at time t."""
        ...


@runtime_checkable
class WeighsWords(Protocol):
    """A LatentDiffusion that can weigh what a word adds to the rest of its text."""

    def weighed(self, condition: Any, prompt: str, weights: Sequence[tuple[str, float]], rows: int) -> Any:
        """A condition whose last `rows` rows are of the prompt, with weights of its words."""
        ...


class ControlledAttention:
    """The attention of one layer. Without a control, or where that wants nothing, `plain` computes it."""

    def __init__(self, layer: str, plain: Any):
        self.layer, self.plain = layer, plain

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        control: Control | None = None,
    ) -> Tensor:
        """(n, places, width) and, for cross-attention, (n, keys, width of the text) -> (n, places, width)."""
        cross = encoder_hidden_states is not None
        if control is None or not control.wants(cross, hidden_states.shape[1]):
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if cross and attn.norm_cross:
            read = attn.norm_encoder_hidden_states(read)
        mask = attn.prepare_attention_mask(attention_mask, read.shape[1], len(read))
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key, value = attn.head_to_batch_dim(attn.to_k(read)), attn.head_to_batch_dim(attn.to_v(read))
        weights = attn.get_attention_scores(query, key, mask)
        weights = control(self.layer, cross, weights.unflatten(0, (-1, attn.heads))).flatten(0, 1)
        states = attn.batch_to_head_dim(torch.bmm(weights, value))
        return attn.to_out[1](attn.to_out[0](states))


def open_attention(network: Any) -> None:
    """Let a UNet of diffusers take `cross_attention_kwargs={"control": Control}`. Without it, it computes as before."""
    network.set_attn_processor(
        {
            name: ControlledAttention(name, plain) if name.endswith(BLOCK_LAYERS) else plain
            for name, plain in network.attn_processors.items()
        }
    )


class AttentionStore:
    """The weights of one step of a source's walk, for the same step of a target's.

    `cross_attention` and `self_attention` say which are taken over at present.
    """

    def __init__(self) -> None:
        self.cross_attention = self.self_attention = True
        self.weights: defaultdict[str, deque[Tensor]] = defaultdict(deque)

    def wants(self, cross: bool, places: int) -> bool:
        """Whether a layer's weights are taken over at present."""
        return self.cross_attention if cross else self.self_attention and places <= MOST_PLACES

    def set_step(self, done: int, kept: float) -> None:
        """Say what is taken over in the step after `done` steps, where `kept` steps take something over."""
        self.cross_attention, self.self_attention = done + 0.5 <= kept, done + 0.5 <= SELF_SHARE * kept


class AttentionRecorder:
    """Puts the weights of the last `rows` rows of each layer into a store, and changes nothing."""

    def __init__(self, store: AttentionStore, rows: int):
        self.store, self.rows = store, rows
        self.wants = store.wants

    def __call__(self, layer: str, cross: bool, weights: Tensor) -> Tensor:
        """The weights themselves."""
        self.store.weights[layer].append(weights[-self.rows :])
        return weights


class AttentionEdit:
    """Uses a store's weights in the last `rows` rows, and then multiplies those of cross-attention by `scale`.

    Keys of the target without a counterpart keep their own weights. `scale` is (keys,) or shorter, and 1 for the keys
    after it; None is 1 everywhere. As in the paper, weights are not made to sum to 1 again.
    """

    def __init__(self, store: AttentionStore, rows: int, alignment: Alignment, scale: Tensor | None = None):
        self.store, self.rows, self.alignment, self.scale = store, rows, alignment, scale

    def wants(self, cross: bool, places: int) -> bool:
        """Where the store or the scale changes something."""
        return self.store.wants(cross, places) or (cross and self.scale is not None)

    def __call__(self, layer: str, cross: bool, weights: Tensor) -> Tensor:
        """The weights, the last rows changed."""
        own = weights[-self.rows :]
        if self.store.wants(cross, weights.shape[2]):
            stored = self.store.weights[layer].popleft()
            own = self._moved(stored, own) if cross else stored
        if cross and self.scale is not None:
            rest = weights.shape[-1] - len(self.scale)
            own = own * F.pad(self.scale, (0, rest), value=1.0).to(own)
        return torch.cat([weights[: -self.rows], own])

    def _moved(self, stored: Tensor, own: Tensor) -> Tensor:
        matrix, paired = self.alignment.matrix(stored.shape[-1], own.shape[-1])
        return stored @ matrix.to(stored) + own * (~paired).to(own)


class AttentionMaps:
    """Means of cross-attention over layers and predictions, at the size of the latents (Tang et al. 2022, DAAM).

    Nothing is changed. `size` is height and width of the latents. They are read whole, or by windows of height and width
    `window`, with tops and lefts `places`, `together` of them in one prediction, in its last rows. Another control may
    come `first`.
    """

    def __init__(
        self,
        size: tuple[int, int],
        window: tuple[int, int] | None = None,
        places: Sequence[tuple[int, int]] = ((0, 0),),
        together: int = 1,
    ):
        self.size, self.window, self.places, self.together = size, window or size, places, together
        self.first: Control | None = None
        self.total = self.count = torch.zeros(0)
        self.turns: defaultdict[str, int] = defaultdict(int)  # layer -> predictions that it has seen

    def wants(self, cross: bool, places: int) -> bool:
        """All cross-attention, and what the other control wants."""
        return cross or (self.first is not None and self.first.wants(cross, places))

    def __call__(self, layer: str, cross: bool, weights: Tensor) -> Tensor:
        """The weights, as the other control changes them."""
        if self.first is not None and self.first.wants(cross, weights.shape[2]):
            weights = self.first(layer, cross, weights)
        if cross:
            begun = self.turns[layer] * self.together % _rounded_up(len(self.places), self.together)
            self.turns[layer] += 1
            rows = weights[-self.together :].float().mean(1).cpu()  # (together, places, keys)
            for row, place in zip(rows, self.places[begun : begun + self.together], strict=False):
                self._add(row, place)
        return weights

    def _add(self, row: Tensor, place: tuple[int, int]) -> None:
        if not len(self.total):
            self.total, self.count = torch.zeros(row.shape[1], *self.size), torch.zeros(self.size)
        grid = row.T.reshape(-1, *grid_of(len(row), self.window))[None]
        grown = F.interpolate(grid, self.window, mode="bilinear", align_corners=False)[0]
        (top, left), (height, width) = place, self.window
        self.total[:, top : top + height, left : left + width] += grown
        self.count[top : top + height, left : left + width] += 1

    def maps(self) -> Tensor:
        """(keys, height, width), the mean share of attention that each place gives to each key; they sum to 1."""
        return self.total / self.count


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step


def grid_of(places: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a layer of so many places over latents of `size`: these halved, rounded up, some times."""
    height, width = size
    while height * width > places and max(height, width) > 1:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != places:
        raise ValueError(f"{places} places are no level of {size[0]} x {size[1]} latents")
    return height, width
