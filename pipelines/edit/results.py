"""The results of Edit: the pictures of all strengths with their figures, and the learned direction for a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.losses import directional_similarity
from pipelines.clip.ranking import text_vector
from pipelines.core.pipeline import Picture
from pipelines.edit.directions import Direction
from pipelines.edit.inputs import LARGE, EditInputs, Models, reduced_settings
from pipelines.edit.settings import EditSettings
from pipelines.io.images import open_untouched, ssim
from pipelines.models.checkpoint import network_hash

# mean changes around a pixel, in units of [-1, 1], at which detail begins to fade and is gone
CHANGED = 0.1, 0.4
LOST = 0.2, 0.3  # mean losses there, likewise: small ones stay, as of drawings like those the codec learned
FADE_SIDE = 7  # of the square around a pixel in which both are counted


def edited_images(
    settings: EditSettings, inputs: EditInputs, x: Tensor, strengths: list[float], drawn: Tensor
) -> list[Image.Image]:
    """The sampled `drawn`, (n, c, h, w), as pictures of the original's size, in the same order.

    `x` is what was inverted, after `purify`. Its difference from the original is added in proportion to the strength, at
    most once, so that strength 0 gives the original. Only differences of decoded pictures are added, so that what a codec
    loses is not lost, but for what `faded` takes.
    """
    decode = inputs.models.unet.decode
    nearness = torch.tensor([min(1.0, abs(strength)) for strength in strengths], device=x.device)
    start = decode(x)
    seen = start if x is inputs.x else decode(inputs.x)
    # one at a time: how a batch is rounded depends on how many there are
    change = torch.cat([decode(one) for one in torch.split(drawn, 1)]) - start
    if x is not inputs.x:
        change = change + (start - seen) * nearness[:, None, None, None]
    if settings.fade_detail:
        change = change - faded(change, inputs.image.to(seen) - seen)
    if settings.automatic_mask:
        change = change * automatic_mask(change)
    return [
        inputs.framing.returned(inputs.picture, change[k : k + 1], inputs.mask) for k in range(len(strengths))
    ]


def as_pictures(
    settings: EditSettings,
    inputs: EditInputs,
    strengths: list[float],
    images: list[Image.Image],
    moves: list[float] | None = None,
) -> list[Picture]:
    """The pictures with their figures as facts, the chosen strength first, the others by increasing strength.

    `moves` are how far they are from the original for CLIP, in degrees. At strength 0 it is the file's own picture, with
    its profile and transparency, while the figures are those of what the models see.
    """
    order = sorted(range(len(strengths)), key=lambda k: (strengths[k] != settings.strength, strengths[k]))
    kept, original = settings, None  # what the record says
    if inputs.picture.width * inputs.picture.height > LARGE:
        kept, original = reduced_settings(settings, inputs.picture), list(inputs.picture.size)
    untouched = open_untouched(settings.image) if 0 in strengths and settings.image else None
    pictures: list[Picture] = []
    for rank, (k, figures) in enumerate(
        zip(order, _figures(settings, inputs, [images[k] for k in order]), strict=True)
    ):
        facts: dict[str, Any] = {"strength": strengths[k], "return_step": settings.return_step, **figures}
        if original:
            facts["original"] = original
        if moves:
            facts["clip moved"] = moves[k]
        score = figures["critic target"] if rank == 0 else None
        image = images[k] if strengths[k] or untouched is None else untouched
        pictures.append(Picture(image, settings.seed, score, facts, kept))
    return pictures


def _figures(settings: EditSettings, inputs: EditInputs, images: list[Image.Image]) -> list[dict[str, float]]:
    """For each picture: CLIP's and the critic's cosines with direction and texts; L1 in [0, 1] and SSIM."""
    before = inputs.image
    shown = torch.cat([before, *(inputs.framing.reduced(image).to(before.device) for image in images)])
    by_clip, by_critic = (judge.encode_image(shown) for judge in (inputs.models.clip, inputs.models.critic))
    source, target = (text_vector(inputs.models.critic, text) for text in (settings.source, settings.target))
    direction = inputs.direction
    rows: list[dict[str, float]] = []
    for k in range(1, len(shown)):
        after = shown[k : k + 1]
        figures = {
            "clip direction": directional_similarity(by_clip[0], by_clip[k], direction.clip),
            "critic direction": directional_similarity(by_critic[0], by_critic[k], direction.critic),
            "critic source": by_critic[k] @ source,
            "critic target": by_critic[k] @ target,
            "critic source before": by_critic[0] @ source,
            "critic target before": by_critic[0] @ target,
            "L1": (after - before).abs().mean() / 2,
            "SSIM": ssim((after + 1) / 2, (before + 1) / 2),
        }
        rows.append({name: round(value.item(), 4) for name, value in figures.items()})
    return rows


def as_direction(
    models: Models,
    settings: EditSettings,
    tensors: dict[str, Tensor],
    updates: int,
    curves: list[list[float]],
) -> Direction:
    """A Direction of float16 tensors, with the facts of its training. `curves` are those of AdapterTraining."""
    facts: dict[str, Any] = {
        "source": settings.source,
        "target": settings.target,
        "by": "pictures" if settings.target_images else "texts",
        "base": network_hash(models.unet),
        "clip": network_hash(models.clip.image)[:16],
        "mode": settings.mode,
        "rank": settings.rank,
        "return_step": settings.return_step,
        "seed": settings.seed,
        "updates": updates,
        "loss": settings.loss,
        "keep": settings.l1_weight,
    }
    if curves:
        facts["figures"] = {"clip direction": curves[-1][1], "critic direction": curves[-1][2]}
    return Direction({name: tensor.to("cpu", torch.float16) for name, tensor in tensors.items()}, facts)


def overshot(curves: list[list[float]]) -> int:
    """The update with the critic's best similarity, if it later fell by more than 0.1 while CLIP's did not; else 0.

    Rows of `curves` are averaged over three, since single batches are noisy.
    """
    means = [[curves[k + 1][0], *np.mean(curves[k : k + 3], 0)[1:]] for k in range(len(curves) - 2)]
    if len(means) < 3:
        return 0
    best, last = max(means, key=lambda row: row[2]), means[-1]
    return int(best[0]) if last[2] < best[2] - 0.1 and last[1] >= best[1] else 0


def faded(change: Tensor, lost: Tensor) -> Tensor:
    """(n, 3, h, w) changes and what the codec loses, (1, 3, h, w) -> what of that goes: much, where much changes.

    Otherwise the outlines of what was there would be seen through what is drawn in its place.
    """

    def share(x: Tensor, bounds: tuple[float, float]) -> Tensor:
        size = F.pad(x.abs().mean(1, keepdim=True), (FADE_SIDE // 2,) * 4, mode="replicate")
        return ((F.avg_pool2d(size, FADE_SIDE, 1) - bounds[0]) / (bounds[1] - bounds[0])).clamp(0, 1)

    return share(change, CHANGED) * share(lost, LOST) * lost


def automatic_mask(change: Tensor) -> Tensor:
    """(n, 3, h, w) changes -> (n, 1, h, w) in [0, 1]: 0 where the change is small.

    After DiffEdit (Couairon et al. 2023), which compares the noise that two prompts predict.
    """
    size = F.avg_pool2d(change.abs().mean(1, keepdim=True), 5, 1, 2)
    most = size.flatten(1).quantile(0.98, dim=1)[:, None, None, None].clamp(min=1e-6)
    return ((size / most - 0.25) / 0.25).clamp(0, 1)
