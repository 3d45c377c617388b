"""The losses of VQ-VAE and dVAE beside reference implementations and torch's own distributions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import dall_e
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from taming.modules.vqvae.quantize import VectorQuantizer2
from torch import distributions as D

from pipelines.models.vqgan.dvae import to_open
from pipelines.training.codes import RunningCodes, flat
from pipelines.training.dvae import (
    COLDEST,
    DvaeTrainer,
    annealed,
    from_uniform,
    gumbel_softmax,
    logit_laplace,
)
from pipelines.training.frozen import load_codec
from pipelines.training.loop import Budget, fit
from pipelines.training.vqvae import VqvaeTrainer
from tests.support.training import trainer_for


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pixels_are_mapped_as_by_openai() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(to_open(2 * images - 1), dall_e.map_pixels(images), atol=1e-6)


def test_logit_laplace_is_the_density_of_a_squashed_laplace_variable() -> None:
    medians, scales = noise(2, 3, 5, 5), 0.7 * noise(2, 3, 5, 5, seed=1)
    pixels = to_open(noise(2, 3, 5, 5, seed=2).tanh())
    laplace = D.Laplace(medians, scales.exp())
    expected = D.TransformedDistribution(laplace, [D.SigmoidTransform()]).log_prob(pixels)
    assert torch.allclose(logit_laplace(pixels, medians, scales), expected, atol=1e-4)
    grid = torch.linspace(1e-5, 1 - 1e-5, 200_001)
    density = logit_laplace(grid, torch.tensor(0.3), torch.tensor(-0.5)).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-3)


def test_the_divergence_is_that_of_categorical_distributions() -> None:
    logits = noise(2, 7, 3, 3)
    drawn = D.Categorical(logits=logits.permute(0, 2, 3, 1))
    uniform = D.Categorical(logits=torch.zeros(2, 3, 3, 7))
    assert torch.allclose(from_uniform(logits), D.kl_divergence(drawn, uniform), atol=1e-6)


def test_gumbel_softmax_is_torchs_on_the_same_noise() -> None:
    logits = noise(2, 7, 3, 3)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = F.gumbel_softmax(logits, tau=0.5, dim=1)
        torch.manual_seed(5)
        exponential = torch.empty_like(logits).exponential_()
    assert torch.allclose(gumbel_softmax(logits, torch.exp(-exponential), 0.5), expected, atol=1e-4)


def test_temperature_falls_to_a_sixteenth_and_the_weight_of_the_divergence_rises() -> None:
    temperatures = [annealed(share, 1.0, COLDEST) for share in (0.0, 0.25, 0.5, 1.0, 2.0)]
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[0] == 1.0 and temperatures[-1] == temperatures[-2] == pytest.approx(1 / 16)
    assert annealed(0.5, 0.0, 6.6) == pytest.approx(3.3)


def test_commitment_and_tokens_are_those_of_taming_transformers(
    data_file: Path, pack: Path, tmp_path: Path
) -> None:
    trainer = cast(VqvaeTrainer, trainer_for("vqvae", data_file, pack, tmp_path))
    reference = VectorQuantizer2(32, 4, beta=0.25, legacy=False)
    reference.embedding.weight.data.copy_(trainer.vqgan.codes)
    z = noise(2, 4, 3, 3).requires_grad_()
    _, loss, (_, _, tokens) = reference(z)
    own = trainer.vqgan.quantize(z)
    assert torch.equal(own.flatten(), tokens.flatten())
    commitment = trainer.commitment_loss(z, own)
    theirs = torch.autograd.grad(loss, z)[0]  # the codes' own term has no gradient here
    assert torch.allclose(torch.autograd.grad(commitment, z)[0], theirs, atol=1e-7)


def test_running_codes_follow_the_equations_of_the_paper() -> None:
    """Appendix A.1, equations 6 to 8, code by code."""
    codes = noise(5, 3)
    running, gamma = RunningCodes(codes.clone(), Accelerator(cpu=True), 0.9), 0.9
    counts, sums = torch.ones(5), codes.clone()
    for step in range(4):
        z, tokens = (
            noise(2, 3, 2, 2, seed=step),
            torch.randint(0, 4, (2, 2, 2), generator=torch.Generator().manual_seed(step)),
        )
        running.follow(tokens, z, step, patience=100, revive=True)
        for k in range(5):
            chosen = flat(z)[tokens.flatten() == k]
            counts[k] = gamma * counts[k] + (1 - gamma) * len(chosen)
            sums[k] = gamma * sums[k] + (1 - gamma) * chosen.sum(0)
        assert torch.allclose(running.codes, sums / counts[:, None], atol=1e-5)


def test_codes_that_nothing_chooses_are_revived_on_encodings() -> None:
    running = RunningCodes(noise(6, 3), Accelerator(cpu=True), 0.9)
    z, tokens = 5 + noise(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    shares = [running.follow(tokens, z, step, patience=2, revive=True).item() for step in range(3)]
    assert shares[0] == 1.0
    distance = torch.cdist(running.codes[1:], flat(z)).min(1).values
    assert distance.max() < 1e-5
    running.follow(tokens, z, 9, patience=-1, revive=False)
    assert torch.cdist(running.codes[1:], flat(z)).min(1).values.max() < 1e-5


@pytest.mark.parametrize("name", ["vqvae", "dvae"])
def test_training_lowers_the_error_and_the_file_is_a_codec(
    name: str, data_file: Path, pack: Path, tmp_path: Path
) -> None:
    trainer = trainer_for(name, data_file, pack, tmp_path, rate=3e-3)
    before = trainer.evaluate()["PSNR"]
    for _ in fit(trainer, tmp_path, Budget(steps=40)):
        pass
    pictures = cast(VqvaeTrainer | DvaeTrainer, trainer).validation()
    after = trainer.evaluate()["PSNR"]
    assert after > before + 1
    trainer.export(tmp_path / f"{name}.safetensors", {})
    codec = load_codec(tmp_path / f"{name}.safetensors", torch.device("cpu"))
    assert codec.codes.std().item() == pytest.approx(1.2, rel=0.01)
    tokens = codec.encode_tokens(pictures)
    assert tokens.shape[1:] == (4, 4) and codec.decode_tokens(tokens).shape == pictures.shape
    assert torch.equal(codec.quantize(codec.encode(pictures)), tokens)


def test_the_divergence_has_its_weight_by_the_numbers_of_a_token(
    data_file: Path, pack: Path, tmp_path: Path
) -> None:
    """Beta / 192 at 8 pixels a token, as the paper says; and none of it at first."""
    trainer = cast(DvaeTrainer, trainer_for("dvae", data_file, pack, tmp_path, patch=4))
    assert 3 * trainer.dvae.config.factor**2 == 192
    metrics = trainer.update(trainer.batch(0), progress=0.0)
    assert 0 <= metrics["divergence"] <= math.log(32) and 1 <= metrics["code perplexity"] <= 32
