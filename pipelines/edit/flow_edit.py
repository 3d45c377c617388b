"""Editing without inversion and without learning: FlowEdit (Kulikov et al. 2024), for denoisers that read texts.

FlowEdit moves z from x_0 at time t to the edit at time 0. At each step of a rectified flow
z_source = (1 - t) x_0 + t noise, z_target = z + z_source - x_0, and z moves by the difference of two velocities, that of
z_target under the target and that of z_source under the source. Let z - x_0 = (1 - t) change, and write each velocity by
the clean picture that it means. Then z_target is x_0 + change under the same noise, and an Euler step from the ratio s of
noise to picture to a lower s' is

    change' = (s' / s) change + (1 - s' / s) (clean of z_target - clean of z_source),

which holds in the coordinates of a variance-preserving diffusion as well.

Under two texts a network differs a little everywhere, which blurs what neither text is about. So the difference is weighed
by how large it has been there so far, as DiffEdit (Couairon et al. 2023) finds its mask, but softly: see `focused`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.edit.ddim import NoisePredictor, alphas_at
from pipelines.edit.settings import EditSettings
from pipelines.models.base import Denoiser
from pipelines.models.ddim import predict_x0
from pipelines.models.sampling import generator_of

RETURN_STEP = 880  # where strength 1 begins: t = 0.98
STEPS = 28  # of strength 1
NOISES = 2  # averaged at each step
SOURCE_GUIDANCE = 1.5
TARGET_GUIDANCE = 2.5  # times `guidance`, above the source's


def edits_by_text(unet: Denoiser, settings: EditSettings) -> bool:
    """Whether these settings ask for FlowEdit: the mode "instant" between two texts that the denoiser reads."""
    by_text = not settings.directions and not settings.target_images
    return settings.mode == "instant" and unet.reads_text and by_text


def target_guidance(settings: EditSettings) -> float:
    """The scale of classifier-free guidance under the target text, from the relative `guidance` of the settings."""
    return SOURCE_GUIDANCE + TARGET_GUIDANCE * settings.guidance


def flow_grid(return_step: int, count: int, strengths: list[float]) -> tuple[list[int], list[int]]:
    """The steps from CLEAN up to where the strongest edit begins, and for each strength the place in it where it begins.

    Strength 1 begins at `return_step`, after `count` steps of the grid; others in proportion, at most at step 999. A
    strength therefore walks the same steps alone and beside others.
    """
    begins = [math.ceil(round(abs(strength) * count, 6)) for strength in strengths]
    steps = [min(round(k * return_step / count), 1000) - 1 for k in range(max(begins) + 1)]
    grid = list(dict.fromkeys(steps))  # steps may coincide
    return grid, [grid.index(steps[begin]) for begin in begins]


def flow_edit(
    source: NoisePredictor,
    target: NoisePredictor,
    alphas_cumprod: Tensor,
    x: Tensor,
    grid: list[int],
    begins: list[int],
    seed: int,
    mask: Tensor | None = None,
    focuses: Sequence[float] = (),
) -> Generator[tuple[int, Tensor], None, Tensor]:
    """Edit x (1, c, h, w); returns (n, c, h, w), one for each of n places of `grid` where it begins, 0 for no change.

    `source` and `target` predict noise under the texts, with guidance. Outside `mask`, (1, 1, h, w) in [0, 1], nothing
    changes. `focuses` in [0, 1] are those of `focused`, one for each place; 0 is none. The noise of a step depends on the
    seed and the place in the grid only. Yields the number of steps made and x as it is edited so far.
    """
    alphas = alphas_at(alphas_cumprod, grid)
    ratios = [math.sqrt(1 / alpha - 1) for alpha in alphas]
    change = x.new_zeros(len(begins), *x.shape[1:])
    sizes = x.new_zeros(len(begins), 1, *x.shape[2:])  # of the differences so far
    focus = x.new_tensor(list(focuses) or [0.0] * len(begins))[:, None, None, None]
    for k in reversed(range(1, len(grid))):
        rows = [row for row, begin in enumerate(begins) if begin >= k]
        generator = generator_of(seed, k)
        noise = torch.randn(NOISES, *x.shape[1:], generator=generator).to(x.device)
        noise = (1 - alphas[k]) ** 0.5 * noise
        before = alphas[k] ** 0.5 * x + noise
        after = (alphas[k] ** 0.5 * (x + change[rows])[:, None] + noise).flatten(0, 1)
        clean_before, clean_after = (
            predict_x0(noisy, noise_of(noisy, grid[k]), alphas[k])
            for noisy, noise_of in ((before, source), (after, target))
        )
        difference = (clean_after.view(len(rows), NOISES, *x.shape[1:]) - clean_before).mean(1)
        sizes[rows] += size_of(difference)
        difference = torch.where(focus[rows] > 0, focused(difference, sizes[rows], focus[rows]), difference)
        if mask is not None:
            difference = difference * mask
        change[rows] = torch.lerp(difference, change[rows], ratios[k - 1] / ratios[k])
        yield len(grid) - k, x + change
    return x + change


def size_of(difference: Tensor) -> Tensor:
    """How large (n, c, h, w) is at each place: the root mean square over the channels, over 3 x 3 places, (n, 1, h, w)."""
    size = difference.square().mean(1, keepdim=True).sqrt()
    return F.avg_pool2d(size, 3, stride=1, padding=1, count_include_pad=False)


def focused(difference: Tensor, sizes: Tensor, focus: Tensor) -> Tensor:
    """A difference (n, c, h, w), weighed by the sizes (n, 1, h, w) of those so far.

    Whole where the size is `focus`, (n, 1, 1, 1), times the picture's largest or more, and in proportion below.
    """
    largest = sizes.amax((2, 3), keepdim=True).clamp(min=1e-12)
    return difference * (sizes / (focus * largest).clamp(min=1e-30)).clamp(max=1)
