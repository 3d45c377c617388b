"""The latents of Diffuse: the VAE, a given picture and its mask, and the latents that a batch starts from.

`pipe` is a diffusers pipeline that `load_diffusers` returned. Latents are float32 (n, c, h, w) of about zero mean and unit
variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.diffuse.load import is_inpainting
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, to_tensor
from pipelines.io.masks import read_mask
from pipelines.models.unet.network import predict_x0

PREVIEW_LATENTS = 32  # of a preview's longer side

# ------------------------------------------------------------------------------------------------------------- the VAE


def encode(vae: Any, x: Tensor) -> Any:
    """(1, 3, h, w) in [-1, 1] -> the VAE's distribution of its latents, not normalized."""
    return vae.encode(x.to(vae.dtype)).latent_dist


def sample_latents(vae: Any, distribution: Any, generators: list[torch.Generator]) -> Tensor:
    """Normalized latents (n, c, h, w), one sample of an `encode` distribution for each of n generators."""
    drawn = torch.cat([distribution.sample(generator=generator) for generator in generators]).float()
    mean, deviation = latent_stats(vae)
    return (drawn - mean) / deviation


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Normalized latents (n, c, h, w) -> (n, 3, H, W) float32, about [-1, 1]."""
    mean, deviation = latent_stats(vae)
    return vae.decode((latents * deviation + mean).to(vae.dtype), return_dict=False)[0].float()


def latent_stats(vae: Any) -> tuple[Tensor | float, Tensor | float]:
    """Mean and deviation of the VAE's own latents: numbers, or in some models tensors (1, c, 1, 1)."""
    means, deviations = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if means is None or deviations is None:
        return 0.0, 1 / vae.config.scaling_factor
    mean, deviation = (
        torch.tensor(values, device=vae.device).view(1, -1, 1, 1) for values in (means, deviations)
    )
    return mean, deviation / vae.config.scaling_factor


@torch.no_grad()
def preview_x0(pipe: Any, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """A small preview (n, 3, H, W) of the clean pictures predicted from latents and the network's output at step t.

    The latents are reduced to at most PREVIEW_LATENTS a side before decoding.
    """
    alpha = pipe.scheduler.alphas_cumprod[round(t.item())].item()
    kind = pipe.scheduler.config.prediction_type
    if kind == "v_prediction":
        clean = alpha**0.5 * latents - (1 - alpha) ** 0.5 * noise
    else:
        clean = noise if kind == "sample" else predict_x0(latents, noise, alpha)
    fewer = math.ceil(max(clean.shape[-2:]) / PREVIEW_LATENTS)
    return decode(pipe.vae, F.avg_pool2d(clean, fewer))


# -------------------------------------------------------------------------------------------------- the given picture


@dataclass(frozen=True)
class Scene:
    """The picture of a run, the distribution of its latents, and the mask of what may change."""

    picture: Image.Image
    latents: Any  # a distribution
    mask: Image.Image | None  # grey, 0 or 255
    small_mask: Tensor | None  # (1, 1, h, w) of 0 and 1, on the grid of latents
    masked_latents: (
        Any  # for an inpainting network the distribution of the picture without what the mask covers
    )


def fitted_mask(source: str, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask of a picture as RGB, black or white, scaled and cropped to `size`. BadInput when it is all black."""
    mask = read_mask(source, picture.size, None).convert("L")
    light = np.asarray(ImageOps.fit(mask, size, Image.Resampling.BOX))
    mask = Image.fromarray(np.where(light > 127, 255, 0).astype(np.uint8))
    if mask.getbbox() is None:
        raise BadInput("diffuse.mask_dark")
    return mask.convert("RGB")


def read_scene(pipe: Any, settings: DiffuseSettings) -> Scene | None:
    """The picture and the mask of prepared settings; None without a picture."""
    if not settings.image:
        return None
    picture = open_picture(settings.image).convert("RGB")
    x = to_tensor([picture]).to(pipe.unet.device)
    latents = encode(pipe.vae, x)
    if not settings.mask:
        return Scene(picture, latents, None, None, None)
    mask = open_picture(settings.mask).convert("L")
    white = torch.as_tensor(np.asarray(mask) > 127).to(x)[None, None]
    small_mask = F.interpolate(white, latents.mean.shape[-2:])
    masked_latents = encode(pipe.vae, x * (1 - white)) if is_inpainting(pipe) else None
    return Scene(picture, latents, mask, small_mask, masked_latents)


# ---------------------------------------------------------------------------------------------------------- beginning


@dataclass(frozen=True)
class Start:
    """The start of a batch. Tensors are (rows, c, h, w)."""

    times: Tensor  # (steps,) of the steps to do
    latents: Tensor
    noise: Tensor
    known: Tensor | None  # latents of the given picture, if they are used
    mask_channels: Tensor | None  # further input channels of an inpainting network


def begin(
    pipe: Any,
    scheduler: Any,
    settings: DiffuseSettings,
    scene: Scene | None,
    generators: list[torch.Generator],
) -> Start:
    """The start of a batch, one row for each generator. Sets the begin index of `scheduler`, whose steps are set.

    Random numbers are drawn on the CPU in the order of diffusers: the picture, the noise, the masked picture.
    """
    assert settings.steps is not None and settings.width is not None and settings.height is not None
    vae, times = pipe.vae, scheduler.timesteps
    mask = None if scene is None else scene.small_mask
    from_noise = scene is None or (mask is not None and settings.strength == 1)
    known = mask_channels = None
    if scene is not None:
        skipped = (settings.steps - int(settings.steps * settings.strength)) * scheduler.order
        times = times[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        if not (from_noise and is_inpainting(pipe)):
            known = sample_latents(vae, scene.latents, generators)
    rows, columns = settings.height // pipe.vae_scale_factor, settings.width // pipe.vae_scale_factor
    shape = (1, vae.config.latent_channels, rows, columns)
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    noise = noise.to(pipe.unet.device)
    if from_noise or known is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(known, noise, times[:1])
    if is_inpainting(pipe) and scene is not None and mask is not None:
        masked_image_latents = sample_latents(vae, scene.masked_latents, generators)
        mask_channels = torch.cat([mask.expand(len(generators), -1, -1, -1), masked_image_latents], 1)
    return Start(times, latents, noise, known, mask_channels)
