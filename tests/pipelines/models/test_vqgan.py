"""The VQGAN: codes, shapes, and the figures that judge it."""

from __future__ import annotations

import torch

from pipelines.io.images import ssim
from pipelines.training.autoencoder import reconstruction
from tests.support.tiny import tiny_vqgan


def test_nearest_is_the_nearest() -> None:
    vqgan = tiny_vqgan()
    z = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    slowly = (z.permute(0, 2, 3, 1)[..., None, :] - vqgan.codes).norm(dim=-1).argmin(-1)
    assert torch.equal(vqgan.quantize(z), slowly)


def test_codes_are_their_own_nearest() -> None:
    vqgan = tiny_vqgan()
    tokens = torch.arange(32).view(1, 4, 8)
    assert torch.equal(vqgan.quantize(vqgan.embed(tokens)), tokens)


def test_any_multiple_of_the_factor_goes_through() -> None:
    vqgan = tiny_vqgan()
    assert (vqgan.config.factor, vqgan.config.grid) == (8, 4)
    tokens = vqgan.encode_tokens(torch.zeros(1, 3, 40, 64))
    assert tokens.shape == (1, 5, 8)
    assert vqgan.decode_tokens(tokens).shape == (1, 3, 40, 64)


def test_ssim_agrees_with_its_definition() -> None:
    a = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ssim(a, a), torch.ones(2), atol=1e-4)
    flat = torch.full((1, 1, 11, 11), 0.5)
    shifted = flat + 0.2  # no structure: only the luminance term is left
    expected = (2 * 0.5 * 0.7 + 1e-4) / (0.25 + 0.49 + 1e-4)
    assert abs(ssim(flat, shifted).item() - expected) < 1e-3
    assert ssim(a, a + 0.3 * torch.randn_like(a)).max() < 0.9


def test_reconstruction_reports_what_it_says() -> None:
    vqgan, pictures = tiny_vqgan(), torch.rand(3, 3, 32, 32) * 2 - 1
    figures = reconstruction(vqgan, pictures)
    tokens = vqgan.encode_tokens(pictures)
    error = ((pictures - vqgan.decode_tokens(tokens).clamp(-1, 1)) / 2).square().mean((1, 2, 3))
    assert abs(figures["PSNR"] - (-10 * error.log10()).mean().item()) < 0.01
    assert figures["codes used"] == round(len(tokens.unique()) / 32, 4)
