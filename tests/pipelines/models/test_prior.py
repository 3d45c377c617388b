"""The latent prior: its flow, its guidance, and that it walks as a scheduler of diffusers thinks it does."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pipelines.core.execute import run
from pipelines.core.generators import finished
from pipelines.core.pipeline import Result
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.io.images import picture_to_uri, to_pil
from pipelines.models.clip.network import read_texts
from pipelines.models.latent_diffusion import Known, walk
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.models.prior.network import draw
from pipelines.models.typed import floats
from tests.support.tiny import tiny_prior, tiny_prior_diffuse

SIZE = (32, 32)


def walked(model: PriorDiffusion, steps: int, guidance: float, known: Known | None = None) -> Tensor:
    condition = model.condition("two cats", "", *SIZE, 2, guidance > 1)
    return finished(walk(model, [3, 4], SIZE, condition, steps, guidance, known))


def noise_of(seed: int) -> Tensor:
    return torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_many_steps_of_the_scheduler_end_where_many_euler_steps_end() -> None:
    model = tiny_prior()
    noise = torch.cat([noise_of(3), noise_of(4)])
    style = torch.zeros(2, dtype=torch.long)
    text = read_texts(model.clip, ["two cats"] * 2)
    expected = model.prior.normalize(draw(model.prior, noise, text, style, 400, 3.0))
    errors = [(walked(model, steps, 3.0) - expected).abs().mean().item() for steps in (5, 20, 200)]
    assert errors[2] < 0.01 * expected.std() and errors[2] < errors[1] < errors[0]


@torch.no_grad()
def test_a_picture_is_kept_outside_the_mask_and_nearly_kept_by_a_short_walk() -> None:
    model = tiny_prior()
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = model.encode(picture)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    drawn = walked(model, 6, 2.0, Known(latents, 1.0, mask))
    assert torch.equal(drawn[..., 2:], latents.expand(2, -1, -1, -1)[..., 2:])
    assert (drawn[..., :2] - latents[..., :2]).abs().mean() > 0.1
    near, far = (
        (walked(model, 20, 2.0, Known(latents, strength)) - latents).abs().mean() for strength in (0.1, 0.9)
    )
    assert near < far / 2


@torch.no_grad()
def test_the_clean_picture_of_a_step_is_the_end_of_its_line() -> None:
    model = tiny_prior()
    clean, noise = noise_of(1), noise_of(2)
    for t, later in pairwise(floats(torch.linspace(1, 0, 5))):
        x = torch.lerp(clean, noise, t)
        assert torch.allclose(model.clean(x, noise - clean, torch.tensor(1000 * t)), clean, atol=1e-6)
        assert torch.allclose(x + (later - t) * (noise - clean), torch.lerp(clean, noise, later), atol=1e-6)


def test_a_negative_prompt_stands_where_no_text_stood() -> None:
    model = tiny_prior()
    tokens, real = model.condition("two cats", "a red heart", *SIZE, 2, True)
    plain, plain_real = model.condition("two cats", "", *SIZE, 2, True)
    assert len(tokens) == len(plain) == 4
    assert torch.equal(tokens[2:][real[2:]], plain[2:][plain_real[2:]])
    assert real[:2].sum() > plain_real[:2].sum() == 4  # the style and the learned token alone


def test_a_prompt_is_read_with_clips_tokenizer() -> None:
    reading = tiny_prior().read_prompt("a red heart and a zebra")
    assert "zebra" in reading.unknown and "red" not in reading.unknown
    assert "".join(reading.tokens).strip().startswith("a red heart") and reading.limit == 11


@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_candidates_of_any_number_are_the_same(size: tuple[int, int]) -> None:
    def drawn(count: int) -> dict[int, bytes]:
        settings = DiffuseSettings(
            prompt="two cats", candidates=count, keep=count, steps=2, width=size[0] * 2, height=size[1] * 2
        )
        *_, result = run(tiny_prior_diffuse(), settings)
        assert isinstance(result, Result)
        return {one.seed: one.image.tobytes() for one in result.pictures}

    few, many = drawn(2), drawn(5)
    assert len(many) == 5 and few.items() <= many.items()


def test_it_proposes_its_own_size_steps_and_guidance() -> None:
    pipeline = tiny_prior_diffuse()
    image = picture_to_uri(to_pil(torch.zeros(1, 3, 64, 64))[0])
    settings = pipeline.prepare(DiffuseSettings(image=image))
    assert (settings.steps, settings.guidance, settings.candidates) == (20, 4.0, 16)
    assert settings.width == settings.height
