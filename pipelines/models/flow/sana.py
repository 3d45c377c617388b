"""SANA-Sprint (Chen et al. 2025): a flow that is distilled to one to four steps, over a codec of 32 pixels a latent."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pipelines.models.base import Reading, reading_by
from pipelines.models.flow.base import Flow
from pipelines.models.latent_diffusion import OWN
from pipelines.models.schedulers import ConsistencyScheduler, flow_scheduler
from pipelines.models.typed import floats

MOST_TOKENS = 300  # of the language model's states that the network reads
# angles of the noise at which its publishers' steps begin; the second, of two steps
FIRST, SECOND = 1.57080, 1.3


@dataclass(frozen=True)
class SanaSprint(Flow):
    """SANA-Sprint, which reads by Gemma 2 after an instruction of its publishers.

    They count the noise as an angle; the network's own time is that of a flow's line, on which all samplers work.
    """

    scale = 4.5  # of the guidance that the network is told

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side: 32."""
        return self.pipe.vae_scale_factor

    @property
    def side_multiple(self) -> int:
        """The sides of a picture are multiples of this, in pixels."""
        return self.factor * self.pipe.transformer.config.patch_size

    @property
    def image_size(self) -> int:
        """The side of the pictures that it draws best, in pixels: 1024."""
        return self.pipe.transformer.config.sample_size * self.factor

    @property
    def proposed_steps(self) -> int:
        """2."""
        return 2

    @property
    def proposed_guidance(self) -> float:
        """1: the network is told its guidance."""
        return 1.0

    def read_prompt(self, prompt: str) -> Reading:
        """The pieces that the language model reads, in small letters; no word is unknown."""
        limit = MOST_TOKENS - 2  # the start of the text and the last piece of the instruction
        return reading_by(self.pipe.tokenizer, prompt.lower().strip(), limit)

    def condition(
        self, prompt: str, negative_prompt: str, width: int, height: int, rows: int, guided: bool
    ) -> dict[str, Tensor]:
        """The network's inputs besides latents and time; when guided, the rows of the negative prompt come first."""
        network, texts, masks = self.pipe.transformer, list[Tensor](), list[Tensor]()
        instruction = inspect.signature(type(self.pipe).__call__).parameters["complex_human_instruction"]
        for text in [negative_prompt, prompt][not guided :]:
            states, mask = self.pipe.encode_prompt(
                text, device=self.device, max_sequence_length=MOST_TOKENS,
                complex_human_instruction=instruction.default,
            )  # fmt: skip
            texts.append(states.expand(rows, -1, -1))
            masks.append(mask.expand(rows, -1))
        read = torch.cat(texts)
        told = read.new_full((len(read),), self.scale) * network.config.guidance_embeds_scale
        return {
            "encoder_hidden_states": read.to(network.dtype),
            "encoder_attention_mask": torch.cat(masks),
            "guidance": told,
        }

    def scheduler(self, steps: int, sampler: str = OWN, size: tuple[int, int] = (1024, 1024)) -> Any:
        """Its publishers' times with fresh noise between them, or another sampler on the line."""
        if sampler != OWN:
            return flow_scheduler(sampler, steps, self.device)
        angles = torch.tensor([FIRST, SECOND]) if steps == 2 else torch.linspace(FIRST, 0, steps + 1)[:-1]
        times = angles.sin() / (angles.cos() + angles.sin())
        return ConsistencyScheduler(floats(times), self.device)

    def predict(self, latents: Tensor, t: Tensor, condition: Any, more: Tensor | None = None) -> Tensor:
        """The velocity (n, c, h, w) in float32."""
        network = self.pipe.transformer
        time = t.to(latents.device).expand(len(latents)) / 1000
        output = network(latents.to(network.dtype), timestep=time, **condition, return_dict=False)[0]
        return cast(Tensor, output).float()

    def encode(self, images: Tensor) -> Any:
        """(n, 3, h, w) in [-1, 1] -> their latents (n, c, h / factor, w / factor), normalized. Nothing is random."""
        vae = self.pipe.vae
        latents = torch.cat([vae.encode(image[None].to(vae.dtype)).latent for image in images])
        return latents.float() * vae.config.scaling_factor

    def sample(self, distribution: Any, generators: list[torch.Generator]) -> Tensor:
        """The latents themselves, (n, c, h, w) for n generators."""
        return distribution.expand(len(generators), -1, -1, -1)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalized latents (n, c, h, w) -> (n, 3, H, W) float32, about [-1, 1], one after the other."""
        vae = self.pipe.vae
        own = (latents / vae.config.scaling_factor).to(vae.dtype)
        return torch.cat([vae.decode(row[None], return_dict=False)[0].float() for row in own])
