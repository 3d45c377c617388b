"""Rectified flows in Diffuse: our walk against diffusers' own pipelines."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from pipelines.core.candidates import candidate_seed
from pipelines.diffuse.pipeline import Diffuse
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri
from pipelines.models.flow.base import Flow
from pipelines.models.flow.network import FLOWS
from pipelines.models.flow.sana import SanaSprint
from pipelines.models.schedulers import SAMPLERS
from pipelines.models.stable_diffusion.load import load_diffusers
from pipelines.weights.catalog import folder_kind
from tests.support.diffuse import decoded_by, half_mask, painting, pictures_of
from tests.support.flows import flow_folder
from tests.support.tiny import CPU, tiny_clip


@cache
def loaded(kind: str) -> Diffuse:
    pipe = load_diffusers(flow_folder(kind), CPU)
    return Diffuse(FLOWS[type(pipe).__name__](pipe), tiny_clip())


def flow_of(pipeline: Diffuse) -> Flow:
    assert isinstance(pipeline.diffusion, Flow)
    return pipeline.diffusion


def assert_same_walk(
    kind: str, settings: DiffuseSettings, job: str, monkeypatch: pytest.MonkeyPatch, **given: Any
) -> None:
    """Our latents against those of diffusers' pipeline of this name, once for each candidate's seed."""
    import diffusers

    pipeline = loaded(kind)
    settings = pipeline.prepare(settings)
    pipe = flow_of(pipeline).pipe
    ours = decoded_by(pipe, lambda: pictures_of(pipeline, settings), monkeypatch)
    theirs = pipe if job in FLOWS else getattr(diffusers, job)(**pipe.components)
    theirs.set_progress_bar_config(disable=True)
    assert settings.guidance is not None
    scale = (
        settings.guidance - 1 if job.startswith("ZImage") else settings.guidance
    )  # Z-Image's own begins at 0
    if isinstance(pipeline.diffusion, SanaSprint):
        scale, given = SanaSprint.scale, {**given, "use_resolution_binning": False}
        given |= {} if settings.steps == 2 else {"intermediate_timesteps": None}
    seeds = [candidate_seed(settings.seed, k) for k in range(settings.candidates or 0)]
    expected = decoded_by(
        pipe,
        lambda: [
            theirs(
                prompt=settings.prompt, num_inference_steps=settings.steps, guidance_scale=scale,
                height=settings.height, width=settings.width, generator=torch.Generator().manual_seed(seed), **given,
            )
            for seed in seeds
        ],
        monkeypatch,
    )  # fmt: skip
    assert expected.shape == ours.shape and expected.std() > 0.1
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("z-image", {}),
        ("z-image by size", {"width": 96, "height": 64, "guidance": 3.5, "negative_prompt": "a blue cat"}),
        ("klein", {"width": 96, "height": 64}),
        ("klein base", {"guidance": 3.0}),
        ("sd-3", {"width": 96, "height": 64, "negative_prompt": "a blue cat"}),
        ("flux-1", {"width": 96, "height": 64}),
        ("sana", {"width": 96, "height": 64}),
        ("sana", {"steps": 2, "prompt": "A Red CAT "}),
        ("sana", {"steps": 1}),
    ],
)
def test_pictures_from_text_are_those_of_diffusers(
    kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"width": 64, "height": 64}
    settings = DiffuseSettings(**{"seed": 7, "candidates": 2, "steps": 3, **size, **changes})
    job = type(flow_of(loaded(kind)).pipe).__name__
    negative = changes.get("negative_prompt")
    given = {"negative_prompt": negative} if negative else {}
    assert_same_walk(kind, settings, job, monkeypatch, **given)


@pytest.mark.parametrize(
    ("kind", "job"),
    [
        ("z-image", "ZImageImg2ImgPipeline"),
        ("sd-3", "StableDiffusion3Img2ImgPipeline"),
        ("flux-1", "FluxImg2ImgPipeline"),
        ("sana", "SanaSprintImg2ImgPipeline"),
    ],
)
def test_pictures_from_a_picture_are_those_of_diffusers(
    kind: str, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = painting()
    settings = DiffuseSettings(
        candidates=2, steps=5, strength=0.6, image=picture_to_uri(image), width=64, height=64
    )
    assert_same_walk(kind, settings, job, monkeypatch, image=image, strength=0.6)


def test_pictures_within_a_mask_are_those_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = painting(), half_mask()
    settings = DiffuseSettings(
        candidates=1, steps=4, strength=0.5, image=picture_to_uri(image), mask=picture_to_uri(mask),
        width=64, height=64,
    )  # fmt: skip
    given = {"image": image, "mask_image": mask, "strength": 0.5}
    assert_same_walk("z-image", settings, "ZImageInpaintPipeline", monkeypatch, **given)


def test_kleins_pictures_begin_with_a_picture_too() -> None:
    """diffusers has no such pipeline of it; at a small distance the picture comes back as its VAE makes it."""
    pipeline, image = loaded("klein base"), picture_to_uri(painting())
    flow = flow_of(pipeline)
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 64) * 2 - 1
        latents = flow.sample(flow.encode(x), [torch.Generator(), torch.Generator()])
        own = flow.pipe.vae.decode(flow.pipe.vae.encode(x).latent_dist.mode()).sample
    assert latents.shape == (2, 16, 4, 4)
    assert (flow.decode(latents)[1] - own[0]).abs().max() < 1e-4
    made = [
        pictures_of(
            pipeline, DiffuseSettings(candidates=1, steps=20, strength=s, image=image, width=64, height=64)
        )
        for s in (0.05, 0.05, 0.9)
    ]
    near, again, far = (one[0].image.tobytes() for one in made)
    assert near == again != far


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_ends_near_the_models_own(sampler: str) -> None:
    flow = flow_of(loaded("z-image"))
    own, other = (flow.scheduler(12, one, (64, 64)) for one in ("auto", sampler))
    assert float(other.timesteps[0]) == pytest.approx(float(own.timesteps[0]), abs=2)
    assert len(own.timesteps) == 12
    middle = float(own.timesteps[6])
    assert middle == pytest.approx(1000 * 3 * 0.5 / (1 + 2 * 0.5), abs=1)  # moved towards noise


def test_a_prompt_is_read_as_the_language_model_reads_it() -> None:
    reading = loaded("klein").read_prompt("A red heart " + "x" * 600)
    around = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert reading.limit == 512 - len(flow_of(loaded("klein")).pipe.tokenizer(around)["input_ids"])
    assert "".join(reading.tokens).startswith("A red heart") and reading.cut.startswith("xx")


def test_sizes_that_the_patches_do_not_cover_are_refused() -> None:
    with pytest.raises(BadInput, match="width 72 is not a multiple of 16"):
        loaded("z-image").prepare(DiffuseSettings(width=72))
    settings = loaded("klein").prepare(DiffuseSettings(image=picture_to_uri(painting(size=(320, 200)))))
    assert settings.width is not None and settings.height is not None
    assert settings.width % 16 == settings.height % 16 == 0
    assert (settings.steps, settings.guidance) == (4, 1.0)


def test_a_users_own_folder_tells_its_kind() -> None:
    assert folder_kind(flow_folder("klein")) == "flow"
    assert folder_kind(flow_folder("klein").parent) == "diffusion"
