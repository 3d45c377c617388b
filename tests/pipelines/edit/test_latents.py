"""Edit in the latents of a prior: adapters on its network, all modes, and the texts that condition it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.core.journal import Journal
from pipelines.edit.directions import AdaptedUnet, network_hash
from pipelines.edit.flow_edit import RETURN_STEP
from pipelines.edit.inputs import read_inputs
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import MODES, EditSettings
from pipelines.errors import BadInput
from pipelines.io.images import to_pil, to_tensor
from tests.support.edit import STRONG, finished, first, half, pixels, random_direction, smooth, speckled, uri
from tests.support.tiny import tiny_prior_edit, tiny_unet


@pytest.fixture(scope="module")
def edit() -> Edit:
    return tiny_prior_edit()


@torch.no_grad()
def test_adapters_sit_on_self_and_cross_attention_and_convolutions(edit: Edit) -> None:
    names = random_direction(edit.unet).tensors
    for layer in (
        "attn1.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "resnets.0.conv1", "resnets.0.conv2",
        "resnets.0.time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv",
    ):  # fmt: skip
        assert any(name.endswith(f"{layer}.lora_B.weight") for name in names), layer
    assert not any(word in name for name in names for word in ("direction0", "network", "codec", "clip"))


@torch.no_grad()
def test_each_picture_of_a_batch_has_its_own_strength(edit: Edit) -> None:
    unet = edit.unet.under("two cats")
    x = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([10, 400, 900])
    base, adapted_unet = unet(x, steps), AdaptedUnet(unet)
    adapted_unet.load_adapter(random_direction(edit.unet))
    adapted_unet.set_strengths([torch.tensor([0.0, 1.0, 0.0])])
    worn = adapted_unet.unet(x, steps)
    assert torch.equal(worn[[0, 2]], base[[0, 2]]) and (worn[1] - base[1]).abs().max() > 0.05
    assert torch.equal(unet(x, steps), base)


def test_a_copy_with_adapters_shares_the_weights(edit: Edit) -> None:
    adapted_unet = AdaptedUnet(edit.unet)
    adapted_unet.new_adapter(2)
    pointers = {tensor.data_ptr() for tensor in edit.unet.parameters()}
    copied = {tensor.data_ptr() for tensor in adapted_unet.unet.parameters() if not tensor.requires_grad}
    assert copied == pointers


def test_the_hash_is_that_of_the_weights_and_not_of_the_text(edit: Edit) -> None:
    assert network_hash(edit.unet) == network_hash(edit.unet.under("two cats", 3.0))
    with pytest.raises(BadInput, match="learned on another base model"):
        AdaptedUnet(edit.unet).load_adapter(random_direction(tiny_unet()))


@pytest.mark.parametrize("mode", MODES)
def test_strength_0_gives_the_picture_back_and_others_change_it(edit: Edit, mode: str) -> None:
    picture = speckled((41, 35), low=60, high=190)
    settings = EditSettings(
        mode=mode, image=uri(picture), crop="3,5,17x21", steps=3, strip=2, updates=2, step_size=0.03, source_count=5
    )  # fmt: skip
    result = finished(edit, settings)
    by_strength = {one.facts["strength"]: one for one in result.pictures}
    assert by_strength[0].image.tobytes() == picture.tobytes() and by_strength[0].facts["L1"] == 0
    assert by_strength[1].facts["L1"] > 0.0005


def test_a_saved_direction_does_what_its_learning_did(edit: Edit, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    texts = {"source": "two cats", "prompt": "a red heart"}
    settings = EditSettings(image=uri(speckled((32, 32))), **texts, **STRONG)
    learned = finished(edit, settings, journal)
    assert isinstance(learned.settings, EditSettings)
    direction = edit.direction(learned.settings, journal)
    direction.save(tmp_path / "a.safetensors")
    fields: dict[str, Any] = {
        "image": settings.image,
        "directions": str(tmp_path / "a.safetensors"),
        "steps": 3,
    }
    assert pixels(finished(edit, EditSettings(**fields, strip=1))) == pixels(
        learned
    )  # so under the same text
    shown = edit.image_at(learned.settings, journal, 3)
    assert shown.size == (32, 32) and shown.tobytes() != speckled((32, 32)).tobytes()


def test_the_source_text_conditions_the_inversion(edit: Edit, tmp_path: Path) -> None:
    drawn = []
    for source in ("two cats", "a red heart"):
        random_direction(edit.unet, source=source, target="green apple").save(tmp_path / "a.safetensors")
        fields: dict[str, Any] = {"directions": str(tmp_path / "a.safetensors"), "steps": 3, "strip": 1}
        drawn.append(first(finished(edit, EditSettings(image=uri(speckled((32, 32))), **fields))).tobytes())
    assert drawn[0] != drawn[1]


def test_purifying_and_masks_work_in_latents(edit: Edit, tmp_path: Path) -> None:
    random_direction(edit.unet).save(tmp_path / "a.safetensors")
    picture, mask = smooth((45, 37)), half((45, 37))
    settings = EditSettings(
        image=uri(picture), mask=uri(mask), directions=f"{tmp_path / 'a.safetensors'}:1.5", steps=3, strip=2, purify=1
    )  # fmt: skip
    inside = np.asarray(mask)[..., 0] > 0
    by_strength = {one.facts["strength"]: np.asarray(one.image) for one in finished(edit, settings).pictures}
    assert (by_strength[0] == np.asarray(picture)).all()
    assert (by_strength[1][~inside] == np.asarray(picture)[~inside]).all()
    assert (by_strength[1][inside] != np.asarray(picture)[inside]).mean() > 0.3


def test_the_packs_pictures_come_at_the_models_side(edit: Edit) -> None:
    settings = edit.prepare(EditSettings(mode="reusable", source_count=3))
    inputs = read_inputs(edit, settings)
    assert inputs.source_images.shape == (3, 3, 32, 32) and inputs.picture.size == (32, 32)
    small, large, same = (edit.pictures.tensor([2], side) for side in (8, 32, 16))
    assert torch.equal(same, edit.pictures.tensor([2]))
    assert small.shape[-1] == 8 and large.shape[-1] == 32
    assert torch.allclose(small.mean((2, 3)), same.mean((2, 3)), atol=1e-5)
    assert torch.allclose(large.mean((2, 3)), same.mean((2, 3)), atol=0.02)


def test_what_to_expect_is_told_before(edit: Edit) -> None:
    picture = uri(speckled((32, 32)))
    short, longer = (
        edit.estimate(EditSettings(mode="instant", image=picture, steps=steps, strip=1)) for steps in (4, 40)
    )
    assert longer.seconds > 4 * short.seconds > 0 and short.return_step == longer.return_step == RETURN_STEP
    quick = edit.estimate(EditSettings(mode="quick", image=picture))
    assert quick.seconds > 0 and quick.megabytes > 0 and 350 <= quick.return_step <= 600


@torch.no_grad()
def test_the_round_trip_is_one_of_pictures(edit: Edit) -> None:
    images = to_tensor(to_pil(edit.pictures.tensor([0, 1], 32)))
    settings = EditSettings(return_step=300, steps=10, inversion_iterations=3)
    again, once = edit.round_trip(settings, images), edit.unet.decode(edit.unet.encode(images)).clamp(-1, 1)
    assert again.shape == images.shape and (again - once).abs().max() < 0.02
