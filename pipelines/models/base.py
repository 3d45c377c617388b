"""The roles of models, as the pipelines know them, and what networks of one role share.

The roles are Protocols: a network plays one by having its methods, and derives from nothing here. Pictures are float32
(n, 3, h, w) in [-1, 1], tokens are int64. Every network is an nn.Module.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_REMEMBERED = 20_000  # prompts


class Tokenizer(Protocol):
    """Reads texts as token ids."""

    vocabulary_size: int

    def encode(self, text: str) -> list[int]:
        """The ids of a text, each in [0, vocabulary_size), neither cut nor padded, without start and end."""
        ...

    def pieces(self, text: str) -> list[str]:
        """What each of these ids stands for, to be shown to a person."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """The words that the model has never seen, each once, in order."""
        ...


class Network(Protocol):
    """What all roles have of nn.Module."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...
    def eval(self) -> Self: ...


class ClipConfig(Protocol):
    """What pipelines read of a CLIP's config. Sides are in pixels, of square pictures."""

    @property
    def image_size(self) -> int:
        """The side that it was trained on."""
        ...

    @property
    def small_size(self) -> int:
        """A smaller side that it sees almost as well; image_size where there is none."""
        ...

    @property
    def embedding_size(self) -> int:
        """Numbers in a vector."""
        ...


class Clip(Network, Protocol):
    """Puts texts and pictures into one space of unit vectors (Radford et al. 2021). Also the role of the critic."""

    @property
    def config(self) -> ClipConfig: ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def image(self) -> nn.Module:
        """The image tower, by whose weights a CLIP is recognized."""
        ...

    def encode_text(self, prompts: list[str]) -> Tensor:
        """(n, embedding_size) float32 of unit length, without a gradient. Long texts are cut."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) of any size -> (n, embedding_size) float32 of unit length, differentiable."""
        ...


class CodecConfig(Protocol):
    """What pipelines read of a codec's config. It may also have `has_encoder`, False for one that only decodes."""

    @property
    def image_size(self) -> int:
        """The side of a training picture, in pixels."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per token, along a side."""
        ...


class Codec(Network, Protocol):
    """Pictures to image tokens and back through a table of codes (van den Oord et al. 2017; Esser et al. 2021).

    c is the size of a code. Sides of pictures are multiples of `config.factor`.
    """

    codes: nn.Parameter  # (code_count, c)

    @property
    def config(self) -> CodecConfig: ...

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor), near the codes. BadInput without an encoder."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        ...

    def nearest(self, z: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, h, w) tokens: the nearest code by Euclidean distance."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, c, h, w) their codes."""
        ...

    def tokens_of(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) tokens."""
        ...

    def pictures_of(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        ...

    def seamless(self) -> Self:
        """A twin on the same weights whose convolutions wrap around, so that pictures meet themselves at the edges."""
        ...


class DecoderConfig(Protocol):
    """What pipelines read of a DALL·E's config."""

    @property
    def grid(self) -> int:
        """Image tokens along a side."""
        ...

    @property
    def image_length(self) -> int:
        """Image tokens in a picture, grid * grid."""
        ...

    @property
    def prompt_length(self) -> int:
        """Text tokens that a prompt may have."""
        ...

    @property
    def image_vocabulary(self) -> int:
        """How many image tokens there are; the codec has at least as many codes."""
        ...


class Decoder(Network, Protocol):
    """A DALL·E: reads a text and gives the logits of image tokens, one after the other (Ramesh et al. 2021)."""

    @property
    def config(self) -> DecoderConfig: ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def text_tokens(self, ids: list[int]) -> Tensor:
        """A prompt's ids -> (text_length,), cut or padded. The empty list gives the text without a condition."""
        ...

    def read_text(self, text: Tensor, row_count: int) -> tuple[Any, Tensor]:
        """(n, text_length) texts, each serving row_count / n neighbouring rows.

        Returns the cache for `next_logits` and the logits of the first image token, (row_count, image_vocabulary)
        float32.
        """
        ...

    def next_logits(self, cache: Any, token: Tensor, position: int) -> Tensor:
        """The image token (row_count,) at raster `position` -> (row_count, image_vocabulary) float32 of the one after."""
        ...


class DenoiserConfig(Protocol):
    """What pipelines read of a denoiser's config."""

    @property
    def image_size(self) -> int:
        """The side of its square pictures, in pixels."""
        ...


class Denoiser(Network, Protocol):
    """Predicts the noise in pictures (Ho et al. 2020).

    `alphas_cumprod` (step_count,) float32 is the share of the picture's variance left at each step.
    """

    alphas_cumprod: Tensor

    @property
    def config(self) -> DenoiserConfig: ...

    @property
    def network(self) -> nn.Module:
        """The part that adapters go into."""
        ...

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, 3, s, s) noisy pictures and (n,) int64 steps in [0, step_count) -> (n, 3, s, s), the noise in them."""
        ...


# ---------------------------------------------------------------------------------------------- what networks share


class CodecNetwork(nn.Module, ABC):
    """A Codec, from the two towers that a subclass brings."""

    codes: nn.Parameter  # (code_count, code_size)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor), near the codes."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""

    def nearest(self, z: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, h, w) tokens: the nearest code by Euclidean distance."""
        n, c, h, w = z.shape
        flat, codes = z.permute(0, 2, 3, 1).reshape(-1, c).float(), self.codes.float()
        distance = codes.square().sum(1) - 2 * flat @ codes.T  # |z|^2 is the same for every code
        return distance.argmin(1).view(n, h, w)

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, c, h, w) their codes."""
        return F.embedding(tokens, self.codes).permute(0, 3, 1, 2)

    def tokens_of(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) tokens."""
        return self.nearest(self.encode(images))

    def pictures_of(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        return self.decode(self.embed(tokens))

    def seamless(self) -> Self:
        """A twin on the same weights whose convolutions wrap around, so that pictures meet themselves at the edges."""
        shared = {id(one): one for one in (*self.parameters(), *self.buffers())}
        twin = copy.deepcopy(self, shared)
        for module in twin.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
                module.padding_mode = "circular"
        return twin


def remembered(
    memory: dict[str, Tensor], prompts: list[str], read: Callable[[list[str]], Tensor], device: torch.device
) -> Tensor:
    """(n, d) float32 of unit length: what `read` makes of each prompt, from `memory` when it was read before."""
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in memory]
    if len(memory) + len(new) > MOST_REMEMBERED:
        memory.clear()
        new = list(dict.fromkeys(prompts))
    for start in range(0, len(new), 256):
        chunk = new[start : start + 256]
        memory.update(zip(chunk, F.normalize(read(chunk).float(), dim=-1), strict=True))
    return torch.stack([memory[prompt].to(device) for prompt in prompts])
