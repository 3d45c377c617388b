"""Large canvases beyond the edges of a picture are drawn small first.

Windows of a large canvas know little of one another: each would draw the whole prompt. So the canvas is first drawn in
about the model's own size, where the picture and all around it are seen at once. That is enlarged, and the windows draw
its details, from a share of the noise (as Meng et al. 2022, SDEdit).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.diffuse.course import by_windows, course_of
from pipelines.diffuse.latents import Scene
from pipelines.diffuse.layout import Walk, read_layout
from pipelines.diffuse.settings import MIN_SIDE, SIDE_MULTIPLE, DiffuseSettings
from pipelines.io.images import to_tensor
from pipelines.models.latent_diffusion import Course, Known, LatentDiffusion, Tick, walk

DETAIL = 0.5  # share of the walk that the windows make from the enlarged sketch
LEAST = 0.8  # of the canvas's sides: a larger sketch would be hardly smaller


def sketch_size(
    model: LatentDiffusion, settings: DiffuseSettings, scene: Scene | None
) -> tuple[int, int] | None:
    """Width and height of the sketch that prepared settings need; None where nothing is drawn beyond edges by windows."""
    assert settings.width is not None and settings.height is not None
    if scene is None or scene.frame is None or not by_windows(model, settings):
        return None
    canvas = settings.width, settings.height
    share = max(model.image_size / max(canvas), MIN_SIDE / min(canvas))
    multiple = max(SIDE_MULTIPLE, model.side_multiple)
    width, height = (max(round(side * share / multiple) * multiple, MIN_SIDE) for side in canvas)
    return (width, height) if share <= LEAST else None


def after_sketch(settings: DiffuseSettings, size: tuple[int, int] | None) -> DiffuseSettings:
    """The settings of the walk of the canvas itself: no step is made again after a sketch. `size` None is no sketch."""
    return settings if size is None else replace(settings, rounds=0)


def sketched(
    model: LatentDiffusion,
    settings: DiffuseSettings,
    seeds: list[int],
    scene: Scene,
    size: tuple[int, int],
) -> Generator[Tick, None, Known]:
    """Draw a sketch of `size` for each seed. Yields a Tick a step and returns what the walks of the canvas begin from."""
    assert scene.mask is not None and settings.steps is not None
    small, steps = reduced(model, scene, size), settings.steps
    own = replace(settings, width=size[0], height=size[1], windows="never")

    def begin(condition: Any, course: Course) -> Walk:
        return walk(model, seeds, size, condition, steps, own.guidance or 0.0, small.known, course)

    conditions, layout = course_of(model, own, len(seeds)), read_layout(model, own, len(seeds))
    latents = yield from begin(*conditions) if layout is None else layout.walk(begin, *conditions)
    canvases = [
        Image.composite(image.resize(scene.picture.size, Image.Resampling.BICUBIC), scene.picture, scene.mask)
        for image in small.finished(model.decode(latents))
    ]
    distribution = model.encode(to_tensor(canvases).to(model.device))
    assert scene.known.mask is not None
    open_latents = (scene.known.mask > 0).to(scene.known.mask.dtype)
    strength = max(DETAIL, 1 / steps)
    return replace(scene.known, distribution=distribution, strength=strength, mask=open_latents)


def reduced(model: LatentDiffusion, scene: Scene, size: tuple[int, int]) -> Scene:
    """A scene beyond the edges of a picture, its canvas reduced to `size`."""
    assert scene.mask is not None and scene.frame is not None
    picture = scene.picture.resize(size, Image.Resampling.LANCZOS)
    light = np.asarray(scene.mask.resize(size, Image.Resampling.BOX))
    mask = Image.fromarray(np.where(light > 0, 255, 0).astype(np.uint8))
    shares = (size[0] / scene.picture.width, size[1] / scene.picture.height) * 2
    left, top, right, bottom = (round(side * share) for side, share in zip(scene.frame, shares, strict=True))
    x = to_tensor([picture]).to(model.device)
    white = torch.as_tensor(np.asarray(mask) > 127).to(x)[None, None]
    open_latents = F.adaptive_max_pool2d(white, (size[1] // model.factor, size[0] // model.factor))
    outside = model.encode(x * (1 - white)) if model.is_inpainting else None
    known = Known(model.encode(x), 1.0, open_latents, outside)
    return Scene(picture, mask, known, (left, top, right, bottom))
