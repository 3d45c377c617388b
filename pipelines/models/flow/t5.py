"""Flows that read by CLIP and T5: Stable Diffusion 3 and 3.5 (Esser et al. 2024), and FLUX.1 (Black Forest Labs 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.base import Reading, reading_by
from pipelines.models.flow.base import Flow


@dataclass(frozen=True)
class T5Flow(Flow):
    """Base of both: how they read."""

    reader = "tokenizer_2"  # T5's
    most_tokens = 512  # of T5's

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces that T5 reads, or CLIP where the folder has no T5; no word is unknown."""
        own = getattr(self.pipe, self.reader, None)
        tokenizer = own or self.pipe.tokenizer
        limit = self.most_tokens - 1 if own else self.pipe.tokenizer_max_length - 2
        return reading_by(tokenizer, prompt, limit)

    def stacked(self, parts: list[Tensor], rows: int) -> Tensor:
        """(rows * len(parts), ...) of (1, ...) each, in the network's type."""
        network = self.pipe.transformer
        return torch.cat([part.expand(rows, *part.shape[1:]) for part in parts]).to(
            network.device, network.dtype
        )


@dataclass(frozen=True)
class StableDiffusion3(T5Flow):
    """Stable Diffusion 3 and 3.5, which read by two CLIPs and, where it is there, T5."""

    reader = "tokenizer_3"
    most_tokens = 256

    @property
    def proposed_steps(self) -> int:
        """28."""
        return 28

    @property
    def proposed_guidance(self) -> float:
        """4.5."""
        return 4.5

    def times(self, steps: int) -> list[float] | None:
        """None: the scheduler's own."""
        return None

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> dict[str, Tensor]:
        """The network's inputs besides latents and time; when guided, the rows of the negative prompt come first."""
        read = self.pipe.encode_prompt(
            prompt, None, None, self.device, 1, guided, negative_prompt or None, max_sequence_length=self.most_tokens
        )  # fmt: skip
        texts, negative_texts, pooled, negative_pooled = read
        return {
            "encoder_hidden_states": self.stacked([negative_texts, texts][not guided :], rows),
            "pooled_projections": self.stacked([negative_pooled, pooled][not guided :], rows),
        }

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The velocity (n, c, h, w) in float32."""
        network = self.pipe.transformer
        time = t.to(latents.device).expand(len(latents))
        return network(latents.to(network.dtype), timestep=time, **condition, return_dict=False)[0].float()


@dataclass(frozen=True)
class Flux1(T5Flow):
    """FLUX.1 schnell and dev, which read by CLIP and T5. The network reads patches of 2 x 2 latents."""

    scale = 3.5  # of the guidance that the network of dev is told

    @property
    def proposed_steps(self) -> int:
        """28 for dev, 4 for schnell."""
        return 28 if self.pipe.transformer.config.guidance_embeds else 4

    @property
    def proposed_guidance(self) -> float:
        """1: dev is told its guidance, and schnell is distilled with it."""
        return 1.0

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> dict[str, Tensor]:
        """The network's inputs besides latents, time and places; guided, the rows of the negative prompt come first."""
        texts: list[Tensor] = []
        pooled: list[Tensor] = []
        for text in [negative_prompt, prompt][not guided :]:
            read = self.pipe.encode_prompt(text, None, self.device, max_sequence_length=self.most_tokens)
            texts.append(read[0])
            pooled.append(read[1])
        states = self.stacked(texts, rows)
        return {
            "encoder_hidden_states": states,
            "pooled_projections": self.stacked(pooled, rows),
            "txt_ids": states.new_zeros(states.shape[1], 3),
        }

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The velocity (n, c, h, w) in float32."""
        network = self.pipe.transformer
        patches = F.pixel_unshuffle(latents.to(network.dtype), 2)
        height, width = patches.shape[-2:]
        places = torch.cartesian_prod(
            *(torch.arange(side, device=latents.device) for side in (1, height, width))
        )
        told = network.config.guidance_embeds
        output = network(
            hidden_states=patches.flatten(2).mT,
            timestep=t.to(patches).expand(len(patches)) / 1000,
            guidance=patches.new_full((len(patches),), self.scale) if told else None,
            img_ids=places.to(patches.dtype),
            **condition,
            return_dict=False,
        )[0]
        return F.pixel_shuffle(cast(Tensor, output.mT.unflatten(2, (height, width))), 2).float()
