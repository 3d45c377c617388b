"""The canvas of Diffuse: its size, where a given picture lies on it, and how its edges are joined to what is drawn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.diffuse.settings import FILL, MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, DiffuseSettings
from pipelines.errors import BadInput
from pipelines.models.latent_diffusion import LatentDiffusion

FADE = 16  # pixels beyond the edges over which the drawn colours go over into the picture's
LARGEST = 4  # times the model's own side: its square holds the most pixels of a canvas


def is_beyond(settings: DiffuseSettings) -> bool:
    """Whether the settings ask for what lies beyond the edges of their picture."""
    return bool(settings.image) and settings.place != FILL


def fit(
    settings: DiffuseSettings, picture: Image.Image | None, model: LatentDiffusion
) -> tuple[Image.Image | None, tuple[int, int]]:
    """The picture in the size in which it lies on the canvas, and the canvas's (width, height) in pixels.

    BadInput for a size that the model cannot draw, and when the picture leaves no room for anything beyond its edges.
    """
    _check_multiples(settings, model)
    if picture is None or not is_beyond(settings):
        size = _own_size(settings, picture, model)
        fitted = None if picture is None else ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    else:
        fitted, size = _room_around(settings, picture, model)
    most = (LARGEST * model.image_size) ** 2
    if size[0] * size[1] > max(most, MIN_SIDE**2):
        side = LARGEST * model.image_size
        raise BadInput("diffuse.canvas_too_large", width=size[0], height=size[1], side=side)
    return fitted, size


def offset(place: str, picture: tuple[int, int], canvas: tuple[int, int], factor: int) -> tuple[int, int]:
    """Left and top of a picture on the canvas, in pixels, for sizes (width, height).

    Between two edges of the canvas they are multiples of `factor`, so that few latents are partly of the picture.
    """
    left, top = (
        0 if first in place else room if last in place else room // 2 // factor * factor
        for room, first, last in (
            (canvas[0] - picture[0], "left", "right"),
            (canvas[1] - picture[1], "top", "bottom"),
        )
    )
    return left, top


def _check_multiples(settings: DiffuseSettings, model: LatentDiffusion) -> None:
    for name, side in (("width", settings.width), ("height", settings.height)):
        if side is not None and side % model.side_multiple:
            lower = side // model.side_multiple * model.side_multiple
            raise BadInput(
                "diffuse.not_multiple", setting=name, side=side, factor=model.side_multiple, lower=lower,
                higher=lower + model.side_multiple,
            )  # fmt: skip


def _own_size(
    settings: DiffuseSettings, picture: Image.Image | None, model: LatentDiffusion
) -> tuple[int, int]:
    """Width and height: as set, else the model's number of pixels in the picture's proportions.

    Where MIN_SIDE makes the shorter side larger, the longer one grows with it, up to LARGEST times the model's own.
    """
    width, height = float(settings.width or 0), float(settings.height or 0)
    aspect = picture.width / picture.height if picture else 1.0
    if not width and not height:
        width = model.image_size * aspect**0.5
    width = width or height * aspect
    height = height or width / aspect
    if not (settings.width or settings.height):
        grown = max(MIN_SIDE / min(width, height), 1.0)
        most = max(LARGEST * model.image_size, MIN_SIDE)
        width, height = (min(side * grown, most) for side in (width, height))
    multiple = max(SIDE_MULTIPLE, model.side_multiple)
    w, h = (min(max(round(side / multiple) * multiple, MIN_SIDE), MAX_SIDE) for side in (width, height))
    return w, h


def _room_around(
    settings: DiffuseSettings, picture: Image.Image, model: LatentDiffusion
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture and the canvas around it, twice as large where it is not set.

    A picture whose canvas would be too large is reduced, where no side is set; one that a set canvas cannot hold is
    reduced to half of it. Any other keeps its pixels.
    """
    beside = not settings.place.startswith(("top", "bottom")) or "-" in settings.place
    above = settings.place not in ("left", "right")
    shares, given = (1 + beside, 1 + above), (settings.width, settings.height)
    most = (LARGEST * model.image_size // 2) ** 2
    if not any(given) and picture.width * picture.height > most:
        scale = (most / (picture.width * picture.height)) ** 0.5
        smaller = max(int(picture.width * scale), 1), max(int(picture.height * scale), 1)
        picture = picture.resize(smaller, Image.Resampling.LANCZOS)
    elif any(own > (side or own) for own, side in zip(picture.size, given, strict=True)):
        half = [
            side // share if side else own
            for own, side, share in zip(picture.size, given, shares, strict=True)
        ]
        picture = ImageOps.contain(picture, (half[0], half[1]), Image.Resampling.LANCZOS)
    multiple = max(SIDE_MULTIPLE, model.side_multiple)
    width, height = (
        side or min(max(_multiple_of(multiple, own, share), MIN_SIDE), MAX_SIDE)
        for own, side, share in zip(picture.size, given, shares, strict=True)
    )
    if picture.size == (width, height) and not settings.mask:
        raise BadInput("diffuse.no_room", width=width, height=height)
    return picture, (width, height)


def _multiple_of(factor: int, own: int, share: int) -> int:
    """A multiple of `factor`: the next above a picture's own side, or about twice that side and not more."""
    return -(-own // factor) * factor if share == 1 else share * own // factor * factor


def joined(drawn: Tensor, picture: Tensor, frame: tuple[int, int, int, int]) -> Tensor:
    """The drawn pictures (n, 3, h, w), beyond the frame moved towards the picture (1, 3, h, w) at its edges.

    What the codec loses of the picture at its edges is a step there. It is carried on beyond them as a membrane between
    these edges and nothing at FADE pixels away (Pérez et al. 2003, equation 5): a harmonic function, by Jacobi's method.
    """
    left, top, right, bottom = frame
    near = (..., slice(max(top - FADE, 0), bottom + FADE), slice(max(left - FADE, 0), right + FADE))
    known = torch.zeros_like(picture[:, :1])
    known[..., top:bottom, left:right] = 1
    known = known[near]
    reach = F.max_pool2d(known, 2 * FADE - 1, 1, FADE - 1)
    loss = known * (picture - drawn)[near]
    membrane = loss
    for _ in range(FADE**2):
        out = F.pad(membrane, (1, 1, 1, 1), "replicate")
        around = out[..., :-2, 1:-1] + out[..., 2:, 1:-1] + out[..., 1:-1, :-2] + out[..., 1:-1, 2:]
        membrane = torch.where(known > 0, loss, reach * around / 4)
    result = drawn.clone()
    result[near] += (1 - known) * membrane
    return result
