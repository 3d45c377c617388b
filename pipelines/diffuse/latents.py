"""The picture that Diffuse begins with, its mask, and what lies beyond its edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.diffuse.canvas import is_beyond, joined, offset
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, to_pil, to_tensor
from pipelines.io.masks import read_mask
from pipelines.models.latent_diffusion import Known, LatentDiffusion

NEAR = 0.4  # the last share of the walk in which what lies next to the picture is drawn; it grows to 1 farther away


@dataclass(frozen=True)
class Scene:
    """The picture of a run, the mask of what may change (grey, 0 or 255), and what the network is told of both.

    `frame` is (left, top, right, bottom) of the picture on the canvas, where there is something beyond its edges.
    """

    picture: Image.Image
    mask: Image.Image | None
    known: Known
    frame: tuple[int, int, int, int] | None = None

    def finished(self, drawn: Tensor) -> list[Image.Image]:
        """The pictures of (n, 3, h, w) decoded ones in [-1, 1]; outside the mask no pixel changes."""
        if self.mask is None:
            return to_pil(drawn)
        if self.frame is not None:
            drawn = joined(drawn, to_tensor([self.picture]).to(drawn), self.frame)
        return [Image.composite(image, self.picture, self.mask) for image in to_pil(drawn)]


def fitted_mask(source: str, picture: Image.Image, size: tuple[int, int], invert: bool) -> Image.Image:
    """The mask of a picture as RGB, black or white, scaled and cropped to `size`.

    BadInput when nothing may change: it is all black, or all white where the mask is what stays.
    """
    mask = read_mask(source, picture.size, None, may_be_black=invert).convert("L")
    light = np.asarray(ImageOps.fit(mask, size, Image.Resampling.BOX))
    white = light > 127
    if not (white != invert).any():
        raise BadInput("diffuse.mask_light" if invert else "diffuse.mask_dark")
    return Image.fromarray(np.where(white, 255, 0).astype(np.uint8)).convert("RGB")


def read_scene(model: LatentDiffusion, settings: DiffuseSettings) -> Scene | None:
    """The picture and the mask of prepared settings; None without a picture."""
    if not settings.image:
        return None
    picture, mask, frame = open_picture(settings.image).convert("RGB"), None, None
    if settings.mask:
        mask = open_picture(settings.mask).convert("L")
        mask = ImageOps.invert(mask) if settings.invert else mask
    if is_beyond(settings):
        picture, mask, frame = _on_canvas(model, settings, picture, mask)
    x = to_tensor([picture]).to(model.device)
    latents = model.encode(x)
    if mask is None:
        return Scene(picture, None, Known(latents, settings.strength))
    white = torch.as_tensor(np.asarray(mask) > 127).to(x)[None, None]
    small = (x.shape[2] // model.factor, x.shape[3] // model.factor)
    small_mask = F.interpolate(white, small)
    if frame is not None:  # also latents that are partly beyond the edges
        small_mask = F.adaptive_max_pool2d(white, small) * _shares(frame, small, model).to(white)
    elif not small_mask.any():  # a mask finer than latents
        small_mask = F.adaptive_max_pool2d(white, small)
    outside = model.encode(x * (1 - white)) if model.is_inpainting else None
    return Scene(picture, mask, Known(latents, settings.strength, small_mask, outside), frame)


def _shares(frame: tuple[int, int, int, int], grid: tuple[int, int], model: LatentDiffusion) -> Tensor:
    """(1, 1, h, w) in [NEAR, 1]: the last shares of the walk in which latents of a grid (h, w) around a frame are drawn.

    What lies beyond the edges begins as the drawn-out edges. The farther away it is, up to half of the model's own square,
    the farther may the walk go from them. So colours and shapes go on beyond the edges. Within the frame it is 1.
    """
    left, top, right, bottom = (side / model.factor for side in frame)
    y, x = (torch.arange(length) + 0.5 for length in grid)
    across = torch.maximum(left - x, x - right)
    down = torch.maximum(top - y, y - bottom)
    distance = (across.clamp(min=0).square() + down.clamp(min=0)[:, None].square()).sqrt()
    reach = model.image_size / model.factor / 2
    shares = NEAR + (1 - NEAR) * (distance / reach).clamp(max=1)
    within = (across <= -0.5) & (down <= -0.5)[:, None]
    return torch.where(within, torch.ones(()), shares)[None, None]


def _on_canvas(
    model: LatentDiffusion, settings: DiffuseSettings, picture: Image.Image, mask: Image.Image | None
) -> tuple[Image.Image, Image.Image, tuple[int, int, int, int]]:
    """The picture on its canvas, its edges drawn out to the canvas's; the mask of the canvas; the picture's frame."""
    assert settings.width is not None and settings.height is not None
    canvas, (width, height) = (settings.width, settings.height), picture.size
    left, top = offset(settings.place, picture.size, canvas, model.factor)
    beyond = ((top, canvas[1] - top - height), (left, canvas[0] - left - width))
    pixels = np.pad(np.asarray(picture), (*beyond, (0, 0)), "edge")
    inside = np.zeros((height, width), np.uint8) if mask is None else np.asarray(mask)
    whole = np.pad(inside, beyond, constant_values=255)
    return Image.fromarray(pixels), Image.fromarray(whole), (left, top, left + width, top + height)
