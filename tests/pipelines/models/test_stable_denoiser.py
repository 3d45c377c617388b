"""Stable Diffusion as a denoiser: noise, whatever its network predicts."""

from __future__ import annotations

import pytest
import torch

from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.errors import BadInput
from pipelines.guide.pipeline import Guide
from pipelines.guide.settings import GuideSettings
from pipelines.models.stable_diffusion.denoiser import StableDenoiser
from tests.support.tiny import tiny_clip, tiny_critic, tiny_diffuse, tiny_tokenizer


@pytest.mark.parametrize("kind", ["1.5", "2.1", "xl"])
def test_noise_and_clean_latents_make_up_what_was_given(kind: str) -> None:
    diffusion = tiny_diffuse(kind).diffusion
    denoiser = StableDenoiser(diffusion, "a red heart", 3.0)  # type: ignore[arg-type]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        noise = denoiser(x, torch.tensor([400]))
        condition = diffusion.condition("a red heart", "", 64, 64, 1, guided=True)
        without, under = diffusion.predict(torch.cat([x, x]), torch.tensor(400), condition).chunk(2)
        clean = diffusion.clean(x, without + 3 * (under - without), torch.tensor(400))
    alpha = denoiser.alphas_cumprod[400]
    assert torch.allclose(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, x, atol=1e-4)
    assert not torch.allclose(noise, denoiser.under("")(x, torch.tensor([400])), atol=1e-3)


def test_guide_runs_on_it_and_a_completing_model_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    denoiser = StableDenoiser(tiny_diffuse("1.5").diffusion)  # type: ignore[arg-type]
    guide = Guide(denoiser, tiny_clip(tokenizer), tiny_critic(tokenizer))
    settings = guide.prepare(GuideSettings(steps=2, cut_overview="1", cut_innercut="1"))
    assert settings.guidance == 7.5
    *_, result = run(guide, settings)
    assert isinstance(result, Result) and result.pictures[0].image.size == (64, 64)
    with pytest.raises(BadInput, match="only completes"):
        StableDenoiser(tiny_diffuse("inpainting").diffusion)  # type: ignore[arg-type]
