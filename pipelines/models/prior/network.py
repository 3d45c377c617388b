"""The latent prior: a text-conditioned flow on the codec's continuous latents (Rombach et al. 2022; Liu et al. 2023).

A latent x_0 and noise are joined by the straight line x_t = (1 - t) x_0 + t noise, t in [0, 1]; the network predicts the
line's velocity, noise - x_0. It is conditioned on the pack's CLIP by cross-attention: on the states of all tokens of the
text, on the text's vector, and on a style. diffusers' UNet2DConditionModel is the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipelines.models.attention import Control, open_attention
from pipelines.models.checkpoint import Config
from pipelines.models.clip.network import TextStates
from pipelines.models.typed import floats

UNKNOWN_STYLE = 0  # the styles of the config follow it
PREFIX = 2  # tokens of the context before those of the text: a style and the text's vector
VECTOR_SCALE = 16.0  # of CLIP's unit vector, so that its numbers are of size 1


@dataclass(frozen=True)
class PriorConfig(Config):
    """Sizes. `widths` are per level, each at half the side; the two coarsest levels have self- and cross-attention."""

    latent_channels: int = 8
    grid: int = 16
    widths: tuple[int, ...] = (64, 128, 192)
    layer_count: int = 1
    head_count: int = 8
    text_width: int = 256
    embedding_size: int = 256
    styles: tuple[str, ...] = ()


class Prior(nn.Module):
    """Predicts the velocity of latents of zero mean and unit variance.

    `normalize` and `restore` convert the codec's latents to these and back.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: PriorConfig):
        super().__init__()
        # Costs seconds to import, so only when a network is made.
        from diffusers.models.attention_processor import AttnProcessor
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        self.config = config
        attends = [k >= len(config.widths) - 2 for k in range(len(config.widths))]
        self.network = UNet2DConditionModel(
            sample_size=config.grid,
            in_channels=config.latent_channels,
            out_channels=config.latent_channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)),
            block_out_channels=config.widths,
            layers_per_block=config.layer_count,
            attention_head_dim=config.head_count,
            cross_attention_dim=config.text_width,
            norm_num_groups=8,
        )
        self.network.set_attn_processor(AttnProcessor())  # faster than the fused one for few places on a CPU
        open_attention(self.network)
        self.style = nn.Embedding(1 + len(config.styles), config.text_width)
        self.vector = nn.Linear(config.embedding_size, config.text_width)
        self.empty = nn.Parameter(torch.randn(config.text_width) * 0.02)
        self.register_buffer("mean", torch.zeros(config.latent_channels, 1, 1))
        self.register_buffer("deviation", torch.ones(config.latent_channels, 1, 1))
        nn.init.zeros_(self.network.conv_out.weight)

    def normalize(self, z: Tensor) -> Tensor:
        """The codec's latents (n, c, h, w) -> latents of zero mean and unit variance, the same shape."""
        return (z - self.mean) / self.deviation

    def restore(self, x: Tensor) -> Tensor:
        """Latents of zero mean and unit variance (n, c, h, w) -> the codec's, the same shape."""
        return x * self.deviation + self.mean

    def context(
        self, text: TextStates, style: Tensor, has_text: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The tokens of cross-attention, (n, t + 2, width), and their mask, (n, t + 2) bool, True for real tokens.

        `style` is (n,) int64, UNKNOWN_STYLE for no particular one. `has_text` is (n,) bool, False for rows without the
        text, which get one learned token instead; None means True for all.
        """
        n = len(text.states)
        if has_text is None:
            has_text = torch.ones(n, dtype=torch.bool, device=style.device)
        states = torch.where(has_text[:, None, None], text.states, torch.zeros_like(text.states))
        vector = torch.where(has_text[:, None], self.vector(VECTOR_SCALE * text.vector), self.empty)
        tokens = torch.cat([self.style(style)[:, None], vector[:, None], states], 1)
        prefix_mask = torch.ones(n, PREFIX, dtype=torch.bool, device=style.device)
        return tokens, torch.cat([prefix_mask, text.real & has_text[:, None]], 1)

    def forward(
        self, x: Tensor, t: Tensor, context: tuple[Tensor, Tensor], control: Control | None = None
    ) -> Tensor:
        """Latents (n, c, h, w) at times t (n,) in [0, 1] -> (n, c, h, w), the predicted velocity."""
        tokens, mask = context
        return self.network(
            x,
            t * 1000,
            tokens.to(x.dtype),
            encoder_attention_mask=mask.to(x.dtype),
            cross_attention_kwargs=None if control is None else {"control": control},
            return_dict=False,
        )[0]


def guided_velocity(
    prior: Prior,
    x: Tensor,
    times: Tensor,
    text_context: tuple[Tensor, Tensor],
    empty_context: tuple[Tensor, Tensor],
    guidance: float,
) -> Tensor:
    """The velocity (n, c, h, w) of latents x at times (n,) in [0, 1] with classifier-free guidance (Ho and Salimans 2022).

    It is without + guidance * (with - without), where `text_context` and `empty_context` are the contexts with and
    without the text.
    """
    if guidance == 1:
        return prior(x, times, text_context)
    contexts = tuple(torch.cat([a, b]) for a, b in zip(empty_context, text_context, strict=True))
    without, with_text = prior(x.repeat(2, 1, 1, 1), times.repeat(2), (contexts[0], contexts[1])).chunk(2)
    return without + guidance * (with_text - without)


@torch.no_grad()
def draw(
    prior: Prior,
    noise: Tensor,
    text: TextStates,
    style: Tensor,
    steps: int = 20,
    guidance: float = 4.0,
) -> Tensor:
    """The codec's latents (n, c, h, w) from Gaussian noise of the same shape, by Euler steps from t = 1 to t = 0."""
    text_context = prior.context(text, style)
    empty_context = prior.context(text, style, torch.zeros(len(noise), dtype=torch.bool, device=noise.device))
    x = noise
    for time, next_time in pairwise(floats(torch.linspace(1, 0, steps + 1))):
        times = torch.full((len(x),), time, device=x.device)
        x = x + (next_time - time) * guided_velocity(prior, x, times, text_context, empty_context, guidance)
    return prior.restore(x)
