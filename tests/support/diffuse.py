"""What the tests of Diffuse share: pictures, masks, runs to their end, and diffusers' own pipelines beside ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipelines.core.candidates import candidate_seed
from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Result
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.models.stable_diffusion.network import StableDiffusion
from tests.support.tiny import SIDE

OTHERS: dict[str, Callable[[Any], Any]] = {  # as diffusers' documentation changes schedulers
    "euler": lambda config: diffusers.EulerDiscreteScheduler.from_config(config),
    "heun": lambda config: diffusers.HeunDiscreteScheduler.from_config(config),
    "dpm++2m": lambda config: diffusers.DPMSolverMultistepScheduler.from_config(config),
    "ddim": lambda config: diffusers.DDIMScheduler.from_config(config, clip_sample=False),
}


def painting(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR)


def half_mask(size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    mask = Image.new("RGB", size, "black")
    mask.paste("white", (0, 0, size[0] // 2, size[1]))
    return mask


def pipe_of(pipeline: Diffuse) -> Any:
    assert isinstance(pipeline.diffusion, StableDiffusion)
    return pipeline.diffusion.pipe


def pictures_of(pipeline: Diffuse, settings: DiffuseSettings) -> list[Picture]:
    *_, result = run(pipeline, settings)
    assert isinstance(result, Result)
    return result.pictures


def decoded_by(pipe: Any, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the VAE is given to decode while the work is done."""
    seen, decode = [], pipe.vae.decode
    with monkeypatch.context() as patch:
        patch.setattr(
            pipe.vae, "decode", lambda z, *rest, **named: seen.append(z) or decode(z, *rest, **named)
        )
        work()
    return torch.cat(seen)


def assert_same_walk(
    pipeline: Diffuse, settings: DiffuseSettings, auto: str, monkeypatch: pytest.MonkeyPatch, **given: Any
) -> None:
    """Our latents against those of diffusers' own call, once for each candidate's seed."""
    settings = pipeline.prepare(settings)
    ours = decoded_by(pipe_of(pipeline), lambda: pictures_of(pipeline, settings), monkeypatch)
    made = {} if hasattr(pipe_of(pipeline), "text_encoder_2") else {"requires_safety_checker": False}
    theirs = getattr(diffusers, f"AutoPipelineFor{auto}").from_pipe(pipe_of(pipeline), **made)
    theirs.set_progress_bar_config(disable=True)
    if settings.sampler != "auto":
        theirs.scheduler = OTHERS[settings.sampler](pipe_of(pipeline).scheduler.config)
    seeds = [candidate_seed(settings.seed, k) for k in range(settings.candidates or 0)]
    expected = decoded_by(
        theirs,
        lambda: [
            theirs(
                prompt=settings.prompt, negative_prompt=settings.negative_prompt or None,
                num_inference_steps=settings.steps, guidance_scale=settings.guidance,
                generator=torch.Generator().manual_seed(seed), **given,
            )
            for seed in seeds
        ],
        monkeypatch,
    )  # fmt: skip
    assert expected.shape == ours.shape and expected.std() > 0.1
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()
