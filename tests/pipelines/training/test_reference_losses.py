"""Losses beside those of the field's packages, on the same tensors: values and gradients."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from pipelines.training.autoencoder import as_images
from pipelines.training.clip.loss import ContrastiveLoss, PairLoss, SigmoidLoss
from pipelines.training.dalle import DalleTrainer
from pipelines.training.dvae import from_uniform
from pipelines.training.vqgan import VqganTrainer
from tests.pipelines.models.test_dalle_pytorch import reference as dalle_pytorch  # noqa: F401, a fixture
from tests.support.openai_clip import load_alone
from tests.support.training import trainer_for

COUNT, WIDTH = 6, 8
ALONE = torch.full((COUNT,), -1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------------ CLIP


def open_clip(name: str) -> Callable[..., Tensor]:
    return getattr(load_alone("open_clip", "loss.py", "reference_open_clip_loss"), name)()


def transformers_clip(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    return image_text_contrastive_loss(scale * text @ image.T)


@pytest.mark.parametrize(
    ("own", "reference", "biased"),
    [
        (ContrastiveLoss, lambda: open_clip("ClipLoss"), False),
        (ContrastiveLoss, lambda: transformers_clip, False),
        (SigmoidLoss, lambda: open_clip("SigLipLoss"), True),
    ],
    ids=["open_clip", "transformers", "open_clip's SigLIP"],
)
def test_pairs_are_judged_as_elsewhere(
    own: type[PairLoss], reference: Callable[[], Callable[..., Tensor]], biased: bool
) -> None:
    image, text = (F.normalize(noise(COUNT, WIDTH, seed=seed), dim=1) for seed in (0, 1))
    knobs = [torch.tensor(7.0), *[torch.tensor(-3.0)] * biased]

    def learned(loss_of: Callable[..., Tensor], *between: Tensor) -> tuple[Tensor, list[Tensor]]:
        values = [value.clone().requires_grad_() for value in (image, text, *knobs)]
        loss = loss_of(*values[:2], *between, *values[2:])
        return loss.detach(), list(torch.autograd.grad(loss, values))

    loss, gradients = learned(own(Accelerator(cpu=True)), ALONE)
    expected, theirs = learned(reference())
    assert torch.allclose(loss, expected, atol=1e-5)
    for mine, other in zip(gradients, theirs, strict=True):
        assert other.abs().max() > 1e-4 and torch.allclose(mine, other, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- VQGAN


@pytest.fixture(scope="module")
def taming() -> Iterator[ModuleType]:
    """taming's losses, without the perceptual network, which asks for torchvision."""
    lpips: Any = types.ModuleType("taming.modules.losses.lpips")
    lpips.LPIPS = None
    package: Any = types.ModuleType("taming.modules.losses")
    with pytest.MonkeyPatch.context() as patch:
        for module in (package, lpips):
            patch.setitem(sys.modules, module.__name__, module)
        yield load_alone("taming", "modules/losses/vqperceptual.py", "reference_vqperceptual")


@pytest.fixture
def vqgan(data_file: Path, pack: Path, tmp_path: Path) -> VqganTrainer:
    return cast(VqganTrainer, trainer_for("vqgan", data_file, pack, tmp_path))


def balanced(taming: ModuleType, vqgan: VqganTrainer, loss: Tensor, fooled: Tensor) -> Tensor:
    """The adaptive weight by taming."""
    told = types.SimpleNamespace(discriminator_weight=vqgan.adversarial_weight)
    last = vqgan.vqgan.decoder.conv_out.weight
    return taming.VQLPIPSWithDiscriminator.calculate_adaptive_weight(told, loss, fooled, last_layer=last)


def test_the_adaptive_weight_is_that_of_taming_transformers(taming: ModuleType, vqgan: VqganTrainer) -> None:
    images = as_images(vqgan.batch(0)[0])
    again = vqgan.vqgan.decode(vqgan.vqgan.encode(images))
    loss, fooled = vqgan.pixel_loss(again, images), -3 * vqgan.networks["discriminator"](again).mean()
    expected = balanced(taming, vqgan, loss, fooled)
    assert 0 < expected < 10 * vqgan.adversarial_weight, "else the next line would compare a bound"
    assert vqgan._adaptive_weight(loss, fooled).item() == pytest.approx(expected.item(), rel=1e-4)
    weak = 1e-3 * fooled  # where taming's bound is 10,000
    assert balanced(taming, vqgan, loss, weak) > 10 * vqgan.adversarial_weight
    assert vqgan._adaptive_weight(loss, weak).item() == pytest.approx(10 * vqgan.adversarial_weight)


def test_the_discriminator_learns_twice_the_hinge_loss_of_taming_transformers(
    taming: ModuleType, vqgan: VqganTrainer
) -> None:
    """Its mean over real and drawn pictures is a sum here; Adam's steps do not depend on the factor."""
    batch = vqgan.batch(0)
    critic, images = vqgan.networks["discriminator"], as_images(batch[0])
    with torch.no_grad():
        _, _, again = vqgan.through_codes(images, batch[1])
        real, fake = critic(images), critic(again)
    metrics = vqgan.update(batch, progress=0.9)
    assert metrics["discriminator"].item() == pytest.approx(
        2 * taming.hinge_d_loss(real, fake).item(), rel=1e-4
    )
    assert metrics["adversarial"].item() == pytest.approx(-fake.mean().item(), abs=1e-5)


# --------------------------------------------------------------------------------------------------- dVAE and DALL·E


def test_the_divergence_is_that_of_dalle_pytorch(
    dalle_pytorch: ModuleType,  # noqa: F811
) -> None:
    """Summed over all tokens, as "batchmean" does there."""
    torch.manual_seed(0)
    vae = dalle_pytorch.DiscreteVAE(image_size=16, num_tokens=7, codebook_dim=4, num_layers=1, hidden_dim=8)
    images = noise(2, 3, 16, 16)

    def loss_with(weight: float) -> Tensor:
        vae.kl_div_loss_weight = weight
        torch.manual_seed(1)
        return vae(images, return_loss=True)

    expected = loss_with(1.0) - loss_with(0.0)
    assert expected > 1e-3
    logits = vae(images, return_logits=True)
    assert torch.allclose(from_uniform(logits).sum(), expected, rtol=1e-3, atol=1e-5)


def test_an_image_token_costs_its_cross_entropy_where_no_other_is_near(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = cast(DalleTrainer, trainer_for("dalle", data_file, trained, tmp_path))
    near, share = trainer.targets
    trainer.targets = near, torch.zeros_like(share).index_fill_(1, torch.tensor(0), 1.0)
    logits, image = noise(2, 5, len(near)), torch.randint(len(near), (2, 5))
    expected = F.cross_entropy(logits.flatten(0, 1), image.flatten())
    assert torch.allclose(trainer.image_loss(logits, image), expected, atol=1e-5)
