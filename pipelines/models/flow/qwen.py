"""Flows that read by Qwen3: Z-Image (Z-Image Team 2025) and FLUX.2 klein (Black Forest Labs 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.models.base import Reading, reading_by
from pipelines.models.flow.base import Flow

MOST_TOKENS = 512  # of a prompt with what stands around it
START, THINKING = "<|im_start|>user\n", "<think>\n\n</think>\n\n"
END = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class QwenFlow(Flow):
    """Base of both: how they read."""

    answers = END  # what follows the prompt in the language model's form of a conversation

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces that the language model reads; no word is unknown."""
        tokenizer = self.pipe.tokenizer
        limit = MOST_TOKENS - len(tokenizer(START + self.answers)["input_ids"])
        return reading_by(tokenizer, prompt, limit)

    def read(self, prompt: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """The language model's states of a prompt, (1, MOST_TOKENS, width) a layer, and which of them are no padding.

        The conversation's form is written here, so that no template of the folder is run.
        """
        words = self.pipe.tokenizer(
            START + prompt + self.answers, padding="max_length", max_length=MOST_TOKENS, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        ids, mask = words["input_ids"].to(self.device), words["attention_mask"].to(self.device)
        output = self.pipe.text_encoder(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        )
        return output.hidden_states, mask.bool()


@dataclass(frozen=True)
class ZImage(QwenFlow):
    """Z-Image: one Transformer over text and picture, 16 numbers a latent of 8 pixels."""

    @property
    def proposed_guidance(self) -> float:
        """1, for Turbo."""
        return 1.0

    @property
    def proposed_steps(self) -> int:
        """8, for Turbo."""
        return 8

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> list[Tensor]:
        """For each row the states before the last layer, (tokens, width); guided, first those of what to leave out."""
        texts: list[Tensor] = []
        for text in [negative_prompt, prompt][not guided :]:
            states, mask = self.read(text)
            texts += [states[-2][0][mask[0]]] * rows
        return texts

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The velocity (n, c, h, w) in float32. The network counts its time from noise to picture, as its velocity."""
        network = self.pipe.transformer
        rows = list(latents.to(network.dtype)[:, :, None].unbind(0))
        time = (1000 - t.to(latents.device).expand(len(latents))) / 1000
        output = network(rows, time, condition, return_dict=False)[0]
        return -torch.stack([row.float() for row in output]).squeeze(2)


@dataclass(frozen=True)
class Klein(QwenFlow):
    """FLUX.2 klein. A latent is a patch of 2 x 2 of the VAE's: 128 numbers for 16 pixels, normalized one by one."""

    answers = END + THINKING
    layers = (9, 18, 27)  # of the language model, whose states are read side by side

    @property
    def proposed_guidance(self) -> float:
        """1 where it is distilled, else 4."""
        return 1.0 if self.pipe.config.get("is_distilled") else 4.0

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        return self.side_multiple

    @property
    def latent_channels(self) -> int:
        """Numbers per latent."""
        return self.pipe.transformer.config.in_channels

    @property
    def proposed_steps(self) -> int:
        """4 where it is distilled, else 50."""
        return 4 if self.pipe.config.get("is_distilled") else 50

    def mu(self, steps: int, places: int) -> float:
        """As its publishers fitted it to the numbers of places and of steps."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return compute_empirical_mu(places, steps)

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> tuple[Tensor, Tensor]:
        """The states of three layers side by side, (n, tokens, 3 * width), and their places (n, tokens, 4)."""
        texts: list[Tensor] = []
        for text in [negative_prompt, prompt][not guided :]:
            states, _ = self.read(text)
            texts.append(torch.cat([states[k] for k in self.layers], -1).expand(rows, -1, -1))
        read = torch.cat(texts).to(self.pipe.transformer.dtype)
        return read, self._places((1, 1, 1, read.shape[1]), len(read))

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The velocity (n, c, h, w) in float32."""
        network, (read, places) = self.pipe.transformer, condition
        height, width = latents.shape[-2:]
        output = network(
            hidden_states=latents.flatten(2).mT.to(network.dtype),
            timestep=t.to(latents).expand(len(latents)) / 1000,
            guidance=None,
            encoder_hidden_states=read,
            txt_ids=places,
            img_ids=self._places((1, height, width, 1), len(latents)),
            return_dict=False,
        )[0]
        return cast(Tensor, output.mT.unflatten(2, (height, width))).float()

    def encode(self, images: Tensor) -> Any:
        """(n, 3, h, w) in [-1, 1] -> their likeliest latents (n, c, h / factor, w / factor), normalized."""
        vae = self.pipe.vae
        modes = torch.cat([vae.encode(image[None].to(vae.dtype)).latent_dist.mode() for image in images])
        mean, deviation = self._latent_stats()
        return (F.pixel_unshuffle(modes, 2).float() - mean) / deviation

    def sample(self, distribution: Any, generators: list[torch.Generator]) -> Tensor:
        """The latents themselves, (n, c, h, w) for n generators; nothing is random."""
        return distribution.expand(len(generators), -1, -1, -1)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalized latents (n, c, h, w) -> (n, 3, H, W) float32, about [-1, 1], one after the other."""
        vae = self.pipe.vae
        mean, deviation = self._latent_stats()
        own = F.pixel_shuffle(latents * deviation + mean, 2).to(vae.dtype)
        return torch.cat([vae.decode(row[None], return_dict=False)[0].float() for row in own])

    def _latent_stats(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the VAE's patches, (1, c, 1, 1) float32."""
        norm, epsilon = self.pipe.vae.bn, self.pipe.vae.config.batch_norm_eps
        mean, variance = (x.float().view(1, -1, 1, 1) for x in (norm.running_mean, norm.running_var))
        return mean, (variance + epsilon).sqrt()

    def _places(self, sides: tuple[int, ...], rows: int) -> Tensor:
        """(rows, product of the sides, 4) int64: the places of a grid, the last side fastest."""
        grid = torch.cartesian_prod(*(torch.arange(side, device=self.device) for side in sides))
        return grid.expand(rows, -1, -1)
