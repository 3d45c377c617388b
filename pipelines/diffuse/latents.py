"""The picture that Diffuse begins with, and its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, to_tensor
from pipelines.io.masks import read_mask
from pipelines.models.latent_diffusion import Known, LatentDiffusion


@dataclass(frozen=True)
class Scene:
    """The picture of a run, the mask of what may change (grey, 0 or 255), and what the network is told of both."""

    picture: Image.Image
    mask: Image.Image | None
    known: Known


def fitted_mask(source: str, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask of a picture as RGB, black or white, scaled and cropped to `size`. BadInput when it is all black."""
    mask = read_mask(source, picture.size, None).convert("L")
    light = np.asarray(ImageOps.fit(mask, size, Image.Resampling.BOX))
    mask = Image.fromarray(np.where(light > 127, 255, 0).astype(np.uint8))
    if mask.getbbox() is None:
        raise BadInput("diffuse.mask_dark")
    return mask.convert("RGB")


def read_scene(model: LatentDiffusion, settings: DiffuseSettings) -> Scene | None:
    """The picture and the mask of prepared settings; None without a picture."""
    if not settings.image:
        return None
    picture = open_picture(settings.image).convert("RGB")
    x = to_tensor([picture]).to(model.device)
    latents = model.encode(x)
    if not settings.mask:
        return Scene(picture, None, Known(latents, settings.strength))
    mask = open_picture(settings.mask).convert("L")
    white = torch.as_tensor(np.asarray(mask) > 127).to(x)[None, None]
    small_mask = F.interpolate(white, (x.shape[2] // model.factor, x.shape[3] // model.factor))
    outside = model.encode(x * (1 - white)) if model.is_inpainting else None
    return Scene(picture, mask, Known(latents, settings.strength, small_mask, outside))
