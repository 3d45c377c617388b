"""Cutting things out: a picture with its opacity, by a matting network, and with the colours of the thing alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.export.foreground import at_edges, foreground
from pipelines.io.images import to_tensor
from pipelines.models.matting.network import Matting, border_colour

CLEAR, OPAQUE = 0.03, 0.97  # opacities below and above are none and full
RADIUS = 2  # of the guided filter's windows, in pixels of the small picture
EVEN = 1e-3  # variance in such a window that counts as none


def is_cut_out(picture: Image.Image) -> bool:
    """Whether some of the picture is clear already."""
    return picture.mode == "RGBA" and cast("tuple[int, int]", picture.getchannel("A").getextrema())[0] < 128


@torch.no_grad()
def cut_out(pictures: Sequence[Image.Image], matting: Matting, name: str = "") -> list[Image.Image]:
    """RGB pictures of any size -> RGBA pictures of the same sizes. Those that are cut out already stay as they are.

    BadInput, with the `name` of what they are of, when nothing but background is found in one.
    """
    cut = list[Image.Image]()
    for number, picture in enumerate(pictures, start=1):
        if is_cut_out(picture):
            cut.append(picture)
            continue
        alpha = opacity(picture, matting)
        if float(alpha.max()) < 0.5:
            raise BadInput("export.nothing_found", picture=name or number)
        colours = (np.asarray(picture.convert("RGB")) / 255).astype(np.float32)
        if max(picture.size) <= matting.config.image_size:  # the edges of larger ones are wider
            alpha = at_edges(colours, alpha)
        whole = np.concatenate([foreground(colours, alpha), alpha[..., None]], 2)
        cut.append(Image.fromarray((whole * 255).round().astype(np.uint8)))
    return cut


def opacity(picture: Image.Image, matting: Matting) -> NDArray[np.float32]:
    """(h, w) in [0, 1], the opacity of the thing in an RGB picture.

    The network sees the picture at the size that it learned. The opacity of a larger one follows its edges by a guided
    filter (He and Sun 2015).
    """
    side, factor = matting.config.image_size, matting.config.factor
    share = side / max(picture.size)
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    large = to_tensor([picture]).to(next(matting.parameters()).device)
    small = to_tensor([picture.resize(size, Image.Resampling.LANCZOS)]).to(large.device)
    right, below = -size[0] % factor, -size[1] % factor
    padded = F.pad(small, (0, right, 0, below), mode="replicate")
    alpha = matting.alpha(padded)[..., : size[1], : size[0]]
    if share != 1:
        alpha = _guided(alpha, _apart(small), _apart(large)) if share < 1 else _stretched(alpha, large)
    alpha = ((alpha - CLEAR) / (OPAQUE - CLEAR)).clamp(0, 1)
    return alpha[0, 0].cpu().numpy()


def _apart(images: Tensor) -> Tensor:
    """How far every pixel is from the border's colour: (n, 3, h, w) -> (n, 1, h, w) in [0, 1]."""
    return (images - border_colour(images)[:, :, None, None]).abs().amax(1, keepdim=True) / 2


def _stretched(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def _guided(alpha: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Alpha of the small picture at the size of the large one: locally linear in what guides it, both (1, 1, h, w)."""

    def mean(x: Tensor) -> Tensor:
        padded = F.pad(x, (RADIUS,) * 4, mode="replicate")
        return F.avg_pool2d(padded, 2 * RADIUS + 1, 1)

    if min(small.shape[-2:]) <= RADIUS:
        return _stretched(alpha, large)
    means = mean(small), mean(alpha)
    slope = (mean(small * alpha) - means[0] * means[1]) / (mean(small * small) - means[0] ** 2 + EVEN)
    offset = means[1] - slope * means[0]
    return _stretched(mean(slope), large) * large + _stretched(mean(offset), large)
