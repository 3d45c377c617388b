"""How the VQGAN learns, and what DALL·E takes from its codes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.training.codes import k_means, spread
from pipelines.training.dalle import DalleTrainer
from pipelines.training.data.dataset import Dataset
from pipelines.training.loop import Budget, fit
from pipelines.training.vqgan import DecoderTrainer, VqganTrainer
from tests.support.training import (
    SIZES,
    trainer_for,
)


def test_more_training_for_the_decoder_keeps_every_token(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = DecoderTrainer(Accelerator(cpu=True), Dataset(data_file), trained, batch_size=4)
    pictures = trainer.validation()
    before = trainer.vqgan.encode_tokens(pictures)
    losses = [step.metrics["pixel"] for step in fit(trainer, tmp_path, Budget(steps=12))]
    assert losses[-1] < losses[0]
    trainer.export(tmp_path / "vqgan.safetensors", {"figures": {"PSNR": 1.0}, "steps": 12})
    config, facts = read_header(tmp_path / "vqgan.safetensors")
    again = Vqgan(VqganConfig.from_dict(config))
    load_weights(tmp_path / "vqgan.safetensors", again)
    assert torch.equal(before, again.encode_tokens(pictures))
    assert facts["decoder"]["steps"] == 12


def test_a_decoder_learns_from_noisy_latents_in_half_of_its_steps(data_file: Path, trained: Path) -> None:
    trainer = DecoderTrainer(Accelerator(cpu=True), Dataset(data_file), trained, batch_size=4)
    noises = [trainer._noise(seed) for seed in range(60)]
    assert noises[0].shape == trainer.vqgan.encode(trainer.validation())[0].shape
    assert torch.equal(noises[3], trainer._noise(3))
    levels = torch.stack([noise.std() for noise in noises]) / trainer.vqgan.codes.std()
    assert 20 <= (levels == 0).sum() <= 40
    assert 0.3 < levels.max() < 0.5 and (levels[levels > 0] < 0.2).any()


def test_codes_become_the_means_of_what_chose_them(data_file: Path, pack: Path) -> None:
    trainer = cast(VqganTrainer, trainer_for("vqgan", data_file, pack, pack, code_count=3, code_size=2))
    z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]]).T[None, :, :, None]  # three places of one picture
    tokens = torch.tensor([[[0], [0], [1]]])
    for _ in range(400):
        used = trainer._follow_codes(tokens, z, 0, progress=0.9)  # late, when unused codes are left alone
    assert torch.allclose(trainer.vqgan.codes[:2], torch.tensor([[1.0, 0.0], [5.0, 5.0]]), atol=0.01)
    assert used == pytest.approx(2 / 3)


def test_a_vqgan_that_goes_on_lays_its_codes_on_its_own_encodings(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    start = trained / "vqgan.safetensors"
    trainer = VqganTrainer(Accelerator(cpu=True), Dataset(data_file), trained, start=start, **SIZES["vqgan"])
    before = load_file(start)["encoder.conv_in.weight"].float()
    assert torch.equal(trainer.vqgan.encoder.conv_in.weight, before) and "k-means" in trainer.start
    z = trainer._encodings(2_048)
    to_codes = torch.cdist(z, trainer.vqgan.codes).min(1).values.square().mean()
    earlier = torch.cdist(z, load_file(start)["codes"].float()).min(1).values.square().mean()
    assert to_codes < earlier


def test_spreading_the_codes_changes_neither_tokens_nor_pictures(
    data_file: Path, pack: Path, tmp_path: Path
) -> None:
    trainer = cast(VqganTrainer, trainer_for("vqgan", data_file, pack, tmp_path))
    trainer.vqgan.codes.data.mul_(3)
    pictures = trainer.validation()
    with torch.no_grad():
        tokens = trainer.vqgan.encode_tokens(pictures)
        before = trainer.vqgan.decode_tokens(tokens)
        spread(trainer.vqgan)
        assert trainer.vqgan.codes.std() == pytest.approx(1.2)
        assert torch.equal(tokens, trainer.vqgan.encode_tokens(pictures))
        assert torch.allclose(before, trainer.vqgan.decode_tokens(tokens), atol=1e-4)


def test_k_means_finds_clusters_far_apart() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat(40, 1) + torch.randn(120, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    found = k_means(points, 3, seed=2)
    assert torch.cdist(centres, found).min(1).values.max() < 0.1


def test_a_token_is_asked_for_together_with_its_nearest(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = cast(DalleTrainer, trainer_for("dalle", data_file, trained, tmp_path))
    assert torch.equal(trainer.near[:, 0], torch.arange(32))
    assert torch.allclose(trainer.share.sum(1), torch.ones(32))
    assert (trainer.share[:, :-1] >= trainer.share[:, 1:]).all()
    _, image, read = trainer.batch(0)
    assert (trainer.near[image] == read[:, :, None]).any(2).all() and not torch.equal(image, read)
    codes = load_file(trained / "vqgan.safetensors")["codes"].float()
    embedded = torch.cdist(trainer.dalle.image_token.weight, trainer.dalle.image_token.weight)
    assert torch.corrcoef(torch.stack([embedded.flatten(), torch.cdist(codes, codes).flatten()]))[0, 1] > 0.7
