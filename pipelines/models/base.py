"""The roles of models, which are all that pipelines know of a network, and the code that networks of one role share.

The roles are Protocols: a network has a role when it has the role's methods; it need not derive from anything here.
Pictures are float32 (n, 3, h, w) in [-1, 1], tokens are int64. Every network is an nn.Module.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Reading:
    """How a model reads a prompt."""

    tokens: list[str]  # the pieces that it reads, at most `limit`
    limit: int  # the number of tokens that fit
    cut: str  # the end of the prompt that does not fit
    unknown: list[str]  # words that were in no training text
    known_as: str = ""  # the prompt in words that were, where these are others


def joint_reading(readings: list[Reading]) -> Reading:
    """How a model reads several texts: the pieces of the longest, all that is cut off, and all unknown words."""
    longest = max(readings, key=lambda reading: len(reading.tokens))
    cut = " … ".join(reading.cut for reading in readings if reading.cut)
    unknown = list(dict.fromkeys(word for reading in readings for word in reading.unknown))
    return Reading(longest.tokens, longest.limit, cut, unknown)


def reading_by(tokenizer: Any, text: str, limit: int) -> Reading:
    """How a fast tokenizer of transformers reads a text, of which `limit` tokens fit; no word is unknown."""
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = read["offset_mapping"]
    cut = text[spans[limit][0] :] if len(spans) > limit else ""
    return Reading([text[start:end] for start, end in spans[:limit]], limit, cut.strip(), [])


@runtime_checkable
class HasThesaurus(Protocol):
    """A tokenizer that knows what some words are called in the texts of the training."""

    def known_as(self, text: str) -> str:
        """The text in words that are known; the text itself where nothing is to change."""
        ...


def known_as(tokenizer: Any, text: str) -> str:
    """A text in words that the tokenizer knows; "" where it stays as it is, or where nobody tells."""
    known = tokenizer.known_as(text) if isinstance(tokenizer, HasThesaurus) else text
    return "" if known == text else known


class Tokenizer(Protocol):
    """Turns texts into token ids."""

    vocabulary_size: int

    def encode(self, text: str) -> list[int]:
        """The ids of a text, each in [0, vocabulary_size), not cut, not padded, without start and end tokens."""
        ...

    def pieces(self, text: str) -> list[str]:
        """The readable text of each id that `encode` gives, one string an id, for display."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the training texts did not contain, each once, in order."""
        ...


class Network(Protocol):
    """The methods of nn.Module that pipelines use on networks of every role."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters, each once."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters with their dotted names."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """All buffers, each once."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """The network itself and all modules inside it."""
        ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The network itself and all modules inside it, with their dotted names."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Dotted names -> parameters and persistent buffers."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether gradients of the parameters are computed. Returns the network."""
        ...

    def eval(self) -> Self:
        """Switch to inference mode. Returns the network."""
        ...


class ClipConfig(Protocol):
    """The fields of a CLIP's config that pipelines read. Pictures are square; sides are in pixels."""

    @property
    def image_size(self) -> int:
        """The side of a training picture."""
        ...

    @property
    def small_size(self) -> int:
        """A smaller side that the CLIP was also trained on; image_size where there is none."""
        ...

    @property
    def embedding_size(self) -> int:
        """Length of an embedding vector."""
        ...


class Clip(Network, Protocol):
    """Encodes texts and pictures as unit vectors of one space (Radford et al. 2021). The critic has this role too."""

    @property
    def config(self) -> ClipConfig:
        """Its sizes."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    @property
    def image(self) -> nn.Module:
        """The image tower. A hash of its weights identifies the CLIP in records."""
        ...

    @property
    def logit_scale(self) -> float:
        """What turns a cosine into a logit: the inverse of the learned temperature, about 10 to 120."""
        ...

    @property
    def logit_bias(self) -> float | None:
        """What is added to a logit before its sigmoid (Zhai et al. 2023). None where training took a softmax."""
        ...

    def encode_text(self, prompts: list[str]) -> Tensor:
        """List of n texts -> (n, embedding_size) float32 of unit length, without a gradient. Long texts are cut."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) of any size -> (n, embedding_size) float32 of unit length, differentiable."""
        ...


class CodecConfig(Protocol):
    """The fields of a codec's config that pipelines read. `has_encoder` may be absent; False means it only decodes."""

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
    def config(self) -> CodecConfig:
        """Its sizes."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor), near the codes. BadInput without an encoder."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        ...

    def quantize(self, z: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, h, w) tokens: the nearest code by Euclidean distance."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, c, h, w) their codes."""
        ...

    def encode_tokens(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) tokens."""
        ...

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        ...

    def seamless(self) -> Self:
        """A copy that shares the weights and whose convolutions pad circularly, so that pictures tile seamlessly."""
        ...


class DecoderConfig(Protocol):
    """The fields of a DALL·E's config that pipelines read."""

    @property
    def grid(self) -> int:
        """Image tokens along a side."""
        ...

    @property
    def image_length(self) -> int:
        """Image tokens in a picture, grid * grid."""
        ...

    @property
    def semantic_length(self) -> int:
        """Semantic tokens that are drawn before the image tokens; 0 for most."""
        ...

    @property
    def prompt_length(self) -> int:
        """Text tokens that a prompt may have."""
        ...

    @property
    def image_vocabulary(self) -> int:
        """Number of different image tokens. The codec has at least as many codes."""
        ...


class Decoder(Network, Protocol):
    """A DALL·E: predicts image tokens from a text, one after the other (Ramesh et al. 2021).

    It may predict a few semantic tokens first, which say what the picture shows.
    """

    @property
    def config(self) -> DecoderConfig:
        """Its sizes."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    def text_tokens(self, ids: list[int]) -> Tensor:
        """A prompt's ids -> (t,) int64, cut or padded. The empty list gives the text without a condition."""
        ...

    def prefill(self, text: Tensor, row_count: int) -> tuple[Any, Tensor]:
        """(n, t) texts of `text_tokens`, each serving row_count / n neighbouring rows.

        Returns the cache for `decode_step` and the logits of the first token, (row_count, its vocabulary) float32.
        """
        ...

    def decode_step(self, cache: Any, token: Tensor, position: int) -> Tensor:
        """The token (row_count,) at `position` -> the logits of the one after, (row_count, its vocabulary) float32.

        Positions count the semantic tokens, if there are any, then the image tokens in raster order.
        """
        ...


class DenoiserConfig(Protocol):
    """The fields of a denoiser's config that pipelines read."""

    @property
    def image_size(self) -> int:
        """The side of its square pictures, in pixels."""
        ...

    @property
    def factor(self) -> int:
        """The sides of other pictures are multiples of this, in pixels."""
        ...


class Denoiser(Network, Protocol):
    """Predicts the noise in pictures, or in latents of pictures (Ho et al. 2020; Rombach et al. 2022).

    `alphas_cumprod` (step_count,) float32 is the share of the clean picture's variance that is left at each step.
    `encode` gives what noise is added to, x (n, c, h, w): the picture itself, or its latents.
    """

    alphas_cumprod: Tensor

    @property
    def config(self) -> DenoiserConfig:
        """Its sizes."""
        ...

    @property
    def network(self) -> nn.Module:
        """The module that LoRA adapters are injected into."""
        ...

    @property
    def reads_text(self) -> bool:
        """Whether a text changes what it predicts."""
        ...

    @property
    def proposed_guidance(self) -> float:
        """The scale of classifier-free guidance where nobody asks for another; 0 where it reads no text."""
        ...

    def under(self, prompt: str, guidance: float = 1.0) -> Denoiser:
        """The same weights under a text, "" for none, with classifier-free guidance; itself where it reads no text."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) in [-1, 1], with s of the config or multiples of its factor -> x (n, c, h, w)."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """x (n, c, h, w) -> (n, 3, s, s), about [-1, 1], differentiable."""
        ...

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, c, h, w) noisy x and (n,) int64 steps in [0, step_count) -> (n, c, h, w), the noise in it."""
        ...


# ---------------------------------------------------------------------------------------------- what networks share


class CodecNetwork(nn.Module, ABC):
    """Base of codecs: a subclass defines `encode` and `decode`, and the rest of the role follows from `codes`."""

    codes: nn.Parameter  # (code_count, code_size)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, c, h / factor, w / factor), near the codes."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """(n, c, h, w) codes, or anything between them -> (n, 3, h * factor, w * factor), about [-1, 1]."""

    def quantize(self, z: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, h, w) tokens: the nearest code by Euclidean distance."""
        n, c, h, w = z.shape
        flat, codes = z.permute(0, 2, 3, 1).reshape(-1, c).float(), self.codes.float()
        distance = codes.square().sum(1) - 2 * flat @ codes.T  # |z|^2 is the same for every code
        return distance.argmin(1).view(n, h, w)

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, c, h, w) their codes."""
        return F.embedding(tokens, self.codes).permute(0, 3, 1, 2)

    def encode_tokens(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h / factor, w / factor) tokens."""
        return self.quantize(self.encode(images))

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """(n, h, w) tokens -> (n, 3, h * factor, w * factor), about [-1, 1]."""
        return self.decode(self.embed(tokens))

    def seamless(self) -> Self:
        """A copy that shares the weights and whose convolutions pad circularly, so that pictures tile seamlessly."""
        shared = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        twin = copy.deepcopy(self, shared)
        for module in twin.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
                module.padding_mode = "circular"
        return twin


class PixelDenoiser(nn.Module):
    """Base of denoisers of the pictures themselves, which read no text."""

    alphas_cumprod: Tensor
    reads_text = False
    proposed_guidance = 0.0

    def __init__(self, alphas_cumprod: Tensor):
        super().__init__()
        self.register_buffer("alphas_cumprod", alphas_cumprod, persistent=False)

    def under(self, prompt: str, guidance: float = 1.0) -> Self:
        """Itself."""
        return self

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) -> the same pictures."""
        return images

    def decode(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) -> the same pictures."""
        return x
