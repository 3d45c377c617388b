"""The initial z: from a draft's tokens, from a picture, from white, or the best of many random ones.

The picture may be drawn by the pack's latent diffusion.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.cutouts import whole_view
from pipelines.core.candidates import candidate_seeds, generator_at
from pipelines.core.generators import finished
from pipelines.core.looks import of_style, under_looks
from pipelines.core.prompts import as_words, parse_targets
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, to_pil, to_tensor
from pipelines.models.base import Clip, Codec
from pipelines.models.latent_diffusion import LatentDiffusion, walk
from pipelines.optimize.canvas import Canvas, canvas_size, resized, token_grid
from pipelines.optimize.settings import OptimizeSettings
from pipelines.optimize.targets import Targets

STARTS = 32  # random ones, of which CLIP picks one
DRAWN = 8  # pictures by diffusion, of which CLIP picks one
SPLASH = 0.6  # radius of a splash; 1 reaches the edges


def given_picture(settings: OptimizeSettings, canvas: Canvas) -> Tensor | None:
    """(1, 3, h, w) in [-1, 1]: the start picture of the settings on the canvas; None without one."""
    return canvas.on_canvas(to_tensor([open_picture(settings.image)])) if settings.image else None


@torch.no_grad()
def drawn_picture(settings: OptimizeSettings, model: LatentDiffusion, clip: Clip) -> Image.Image:
    """The best, by CLIP, of DRAWN pictures of the heaviest target of the first scene, with the model's own settings."""
    first = next(settings for step, settings in settings.timeline() if step == 0)
    words = max(parse_targets(first.story()[0][1]), key=lambda target: target.weight).text
    size, guidance = (model.image_size, model.image_size), model.proposed_guidance
    styled, read = under_looks(model, as_words(words), [of_style(first.style)])
    condition = styled.condition(parse_targets(read)[0].text, "", *size, DRAWN, guidance > 1)
    ticks = walk(
        model, candidate_seeds(settings.seed, DRAWN), size, condition, model.proposed_steps, guidance
    )
    pictures = to_pil(model.decode(finished(ticks)))
    cosines = clip.encode_image(to_tensor(pictures).to(clip.device)) @ clip.encode_text([words])[0]
    return pictures[int(cosines.argmax())]


def anchor_of(settings: OptimizeSettings, canvas: Canvas, picture: Tensor | None) -> Tensor | None:
    """(1, 3, h, w) in [-1, 1], held by `anchor_weight`: the given picture, the draft or white; None for random starts."""
    if picture is not None:
        return picture
    if settings.tokens:
        with torch.no_grad():
            return canvas.decode(canvas.codec.embed(read_tokens(settings, canvas.codec)))
    if settings.start in ("splash", "white"):
        return torch.ones(1, 3, *canvas.full_size, device=canvas.device)
    return None


def start_of(
    settings: OptimizeSettings,
    first: OptimizeSettings,
    targets: Targets,
    grid: tuple[int, int],
    picture: Tensor | None,
) -> Tensor:
    """The z of step 0, (1, c, rows, columns) for `grid` (rows, columns).

    Random numbers are drawn on the CPU from the seed alone, so they are the same on every device. `first` are the settings
    in force at step 0, `picture` the start picture. BadInput when tokens do not fit the canvas or the codebook.
    """
    canvas = targets.canvas
    generator = generator_at(settings.seed, 0, "start")
    rows, columns = grid
    size = canvas.pixels(grid)
    if settings.tokens:
        return resized(canvas.codec.embed(read_tokens(settings, canvas.codec)), grid)
    if picture is not None:
        return canvas.encode(F.interpolate(picture, size, mode="area"))
    start = settings.start
    white = torch.ones(1, 3, *size, device=canvas.device)
    if start == "white":
        return canvas.encode(white)
    if start in ("splash", "codes"):
        tokens = torch.randint(len(canvas.codec.codes), (STARTS, rows, columns), generator=generator)
        starts = canvas.codec.embed(tokens.to(canvas.device))
        if start == "splash":
            starts = torch.where(_disc(rows, columns).to(canvas.device), starts, canvas.encode(white))
    else:
        side = size if start == "noise" else (2, 2)
        pictures = torch.rand(STARTS, 3, *side, generator=generator) * 2 - 1
        pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=True)
        starts = torch.cat([canvas.encode(batch) for batch in torch.split(pictures.to(canvas.device), 1)])
    return _nearest(starts, first, targets)


def _nearest(starts: Tensor, first: OptimizeSettings, targets: Targets) -> Tensor:
    """(n, c, h, w) -> (1, c, h, w), the start whose picture has the highest weighted cosine with the targets."""
    clip, canvas = targets.clip, targets.canvas
    size = canvas.pixels((starts.shape[2], starts.shape[3]))
    scene = first.story()[0][1]
    whole = [encoded for encoded in targets.read(first, scene, size) if encoded.region is None]
    target = torch.stack([encoded.weight * encoded.vector for encoded in whole]).sum(0)
    scores: list[Tensor] = []
    for batch in torch.split(starts, max(1, 8 * 128**2 // math.prod(size))):
        pictures = canvas.decode(canvas.codec.embed(canvas.codec.quantize(batch)))
        scores.append(clip.encode_image(whole_view(pictures, clip.config.image_size)) @ target)
    best = int(torch.cat(scores).argmax())
    return starts[best : best + 1].clone()


def _disc(rows: int, columns: int) -> Tensor:
    """(rows, columns) bool: True in an ellipse in the middle of the canvas, in at least one cell."""
    down, across = (torch.arange(n).add(0.5).div(n).mul(2).sub(1).square() for n in (rows, columns))
    distance = (down[:, None] + across[None, :]).sqrt()
    return distance <= max(SPLASH, distance.min().item())


def read_tokens(settings: OptimizeSettings, vqgan: Codec) -> Tensor:
    """(1, rows, columns) int64: the tokens in the settings. BadInput when they do not fit the canvas or the codebook."""
    tokens = torch.tensor([int(token) for token in settings.tokens.split()])
    width, height = canvas_size(settings.size, settings.image, vqgan)
    rows, columns = token_grid(width, height, vqgan)
    if len(tokens) != rows * columns:
        raise BadInput(
            "optimize.token_count", count=len(tokens), width=width, height=height, needed=rows * columns
        )
    if int(tokens.max()) >= len(vqgan.codes):
        raise BadInput("optimize.token_too_large", token=int(tokens.max()), largest=len(vqgan.codes) - 1)
    return tokens.view(1, rows, columns).to(vqgan.codes.device)
