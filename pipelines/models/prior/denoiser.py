"""The latent prior as a Denoiser: a rectified flow in the coordinates of a variance-preserving diffusion.

On the flow x_t = (1 - t) x_0 + t noise. With alpha_cumprod = (1 - t)^2 / ((1 - t)^2 + t^2), the diffusion's state
sqrt(alpha_cumprod) x_0 + sqrt(1 - alpha_cumprod) noise is x_t / sqrt((1 - t)^2 + t^2). The same x_0 and noise are in both,
so the velocity gives the noise: x_t + (1 - t) velocity.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipelines.models.base import DenoiserConfig
from pipelines.models.ddim import linear_alphas_cumprod
from pipelines.models.prior.diffusion import Condition, PriorDiffusion
from pipelines.models.prior.network import guided_velocity


class PriorDenoiser(nn.Module):
    """Predicts the noise in latents (n, c, h, w) of zero mean and unit variance, under a text.

    Its 1,000 steps have the noise levels of Ho et al. 2020, so a step means what it means to a pixel model. A step is at
    the flow's time t = s / (1 + s), where s = sqrt((1 - alpha) / alpha) is the ratio of noise to picture.
    """

    alphas_cumprod: Tensor
    reads_text = True
    proposed_guidance = PriorDiffusion.proposed_guidance

    def __init__(self, diffusion: PriorDiffusion, prompt: str = "", guidance: float = 1.0):
        super().__init__()
        self.diffusion, self.guidance = diffusion, guidance
        # As modules, so that all weights on which its predictions depend are parameters of it.
        self.prior, self.codec, self.clip = diffusion.prior, diffusion.codec, diffusion.clip
        self.register_buffer("alphas_cumprod", linear_alphas_cumprod().to(diffusion.device), persistent=False)
        tokens, real = diffusion.condition(prompt, "", 0, 0, rows=1, guided=True)
        self.empty_context, self.text_context = (tokens[:1], real[:1]), (tokens[1:], real[1:])

    @property
    def config(self) -> DenoiserConfig:
        """Its sizes."""
        return self.diffusion

    @property
    def network(self) -> nn.Module:
        """The UNet of diffusers inside."""
        return self.prior.network

    def under(self, prompt: str, guidance: float = 1.0) -> PriorDenoiser:
        """The same weights under a text, "" for none, with classifier-free guidance."""
        return PriorDenoiser(self.diffusion, prompt, guidance)

    @property
    def style_slots(self) -> tuple[str, ...]:
        """The styles that it draws in when it is told which."""
        return self.diffusion.style_slots

    def in_styles(self, slots: Sequence[str]) -> PriorDenoiser:
        """The same weights, in styles under every text that `under` is given."""
        return PriorDenoiser(self.diffusion.in_styles(slots))

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) in [-1, 1] -> latents (n, c, h, w)."""
        return self.diffusion.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        """Latents (n, c, h, w) -> (n, 3, s, s), about [-1, 1]."""
        return self.diffusion.decode(x)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, c, h, w) noisy latents and (n,) int64 steps in [0, 1000) -> (n, c, h, w), the noise in them."""
        alpha = self.alphas_cumprod[t][:, None, None, None]
        picture, noise = alpha.sqrt(), (1 - alpha).sqrt()
        time = noise / (picture + noise)
        x = x / (picture + noise)  # on the flow's line
        text, empty = (self._repeated(context, len(x)) for context in (self.text_context, self.empty_context))
        return x + (1 - time) * guided_velocity(self.prior, x, time.flatten(), text, empty, self.guidance)

    @staticmethod
    def _repeated(context: Condition, count: int) -> Condition:
        tokens, real = context
        return tokens.expand(count, -1, -1), real.expand(count, -1)
