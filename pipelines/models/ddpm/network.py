"""Published unconditional pixel diffusion models: Ho et al. 2020, and Dhariwal & Nichol 2021 (ADM).

Both are UNet2DModel of diffusers; they differ in the config. The defaults are those of the published models of 256 x 256
faces, churches and bedrooms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from pipelines.models.base import PixelDenoiser
from pipelines.models.checkpoint import Config
from pipelines.models.ddim import linear_alphas_cumprod


@dataclass(frozen=True)
class DdpmConfig(Config):
    """Sizes, the differences between Ho's and Dhariwal's networks, and the noise schedule, with linear variances."""

    image_size: int = 256
    widths: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    # levels with attention, finest first
    attends: tuple[bool, ...] = (False, False, False, False, True, False)
    layer_count: int = 2
    head_size: int = 0  # channels of an attention head, 0 to divide them among `head_count`
    head_count: int = 1
    group_count: int = 32
    epsilon: float = 1e-6  # of the norms
    scale_shift: bool = False  # the step scales and shifts (ADM), or is added
    cosine_first: bool = False  # order of the step's embedding
    frequency_shift: float = 1.0  # of its lowest frequency
    padding: int = 0  # of the halving convolutions: 0 pads at the right and the bottom only, 1 on all sides
    middle_norm: bool = True  # before the attention at the coarsest level's end; diffusers' own may lack it
    residual_resampling: bool = False  # residual blocks halve and double the side (ADM), or convolutions
    learned_variance: bool = False  # three more channels come out, which nothing here needs
    # of the sines and cosines that tell the step; 0 for widths[0]. Twice that in ADM of 512 px
    step_width: int = 0
    first_beta: float = 1e-4
    last_beta: float = 0.02
    step_count: int = 1000

    @property
    def factor(self) -> int:
        """The sides of a picture must be multiples of this, in pixels."""
        return 2 ** (len(self.widths) - 1)


class Ddpm(PixelDenoiser):
    """Predicts the noise. `alphas_cumprod` (step_count,) float32 is the picture's share of the variance at each t."""

    def __init__(self, config: DdpmConfig):
        super().__init__(linear_alphas_cumprod(config.first_beta, config.last_beta, config.step_count))
        # Costs seconds to import, so only when a network is made.
        from diffusers.models.attention_processor import Attention
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps
        from diffusers.models.resnet import ResnetBlock2D
        from diffusers.models.unets.unet_2d import UNet2DModel

        self.config = config
        resampling = "resnet" if config.residual_resampling else "conv"
        plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
        plain = plain if config.residual_resampling else ("DownBlock2D", "UpBlock2D")
        step_width = config.step_width or config.widths[0]
        self.network = UNet2DModel(
            sample_size=config.image_size,
            out_channels=6 if config.learned_variance else 3,
            down_block_types=tuple("AttnDownBlock2D" if yes else plain[0] for yes in config.attends),
            up_block_types=tuple("AttnUpBlock2D" if yes else plain[1] for yes in reversed(config.attends)),
            block_out_channels=config.widths,
            layers_per_block=config.layer_count,
            downsample_padding=config.padding,
            downsample_type=resampling,
            upsample_type=resampling,
            attention_head_dim=None,  # one head; the true number is set below
            norm_num_groups=config.group_count,
            attn_norm_num_groups=config.group_count if config.middle_norm else None,
            norm_eps=config.epsilon,
            resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
            flip_sin_to_cos=config.cosine_first,
            freq_shift=config.frequency_shift,  # type: ignore[arg-type]
            time_embedding_dim=4 * step_width,
        )
        if config.step_width:  # diffusers gives the sines and cosines the width of the first level
            shift = cast(Any, config.frequency_shift)
            self.network.time_proj = Timesteps(step_width, config.cosine_first, shift)
            self.network.time_embedding = TimestepEmbedding(step_width, 4 * step_width)
        for module in self.network.modules():
            if isinstance(module, Attention):
                module.heads = module.inner_dim // config.head_size if config.head_size else config.head_count
                module.scale = (module.inner_dim // module.heads) ** -0.5
            elif isinstance(module, ResnetBlock2D) and cast(Any, module).downsample is not None:
                # the same without a part called "conv", which adapters look for
                module.downsample = nn.AvgPool2d(2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, 3, s, s) noisy pictures and (n,) int64 steps in [0, step_count) -> (n, 3, s, s), the noise in them."""
        return self.network(x, t, return_dict=False)[0][:, :3]
