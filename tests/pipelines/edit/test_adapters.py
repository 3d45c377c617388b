"""Adapters on a private UNet: strengths, several at once, and the base that they fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipelines.edit.directions import AdaptedUnet, Direction, network_hash
from pipelines.edit.pipeline import Edit
from pipelines.errors import BadInput
from pipelines.models.unet.network import Unet
from tests.support.edit import (
    random_direction,
)
from tests.support.tiny import tiny_unet


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([10, 400, 900])


def merged(unet: Unet, directions: list[Direction], strengths: list[float]) -> Unet:
    """A plain UNet with base weight + strength * B A in place of every adapter."""
    plain = Unet(unet.config)
    plain.load_state_dict(unet.state_dict())
    layers = dict(plain.network.named_modules())
    for direction, strength in zip(directions, strengths, strict=True):
        for name, down in direction.tensors.items():
            if not name.endswith("lora_A.weight"):
                continue
            up = direction.tensors[name.replace("lora_A", "lora_B")].float()
            layer = layers[name.removesuffix(".lora_A.weight")]
            change = up.flatten(1) @ down.float().flatten(1)
            layer.weight.data += strength * change.view_as(layer.weight)
    return plain.eval().requires_grad_(False)


@torch.no_grad()
def test_adapters_sit_on_attention_and_convolutions(edit: Edit) -> None:
    names = random_direction(edit.unet).tensors
    assert all(one.dtype == torch.float16 for one in names.values())
    for layer in (
        "attentions.0.to_q",
        "attentions.0.to_k",
        "attentions.0.to_v",
        "attentions.0.to_out.0",
        "resnets.0.conv1",
        "resnets.0.conv2",
        "resnets.0.conv_shortcut",
        "resnets.0.time_emb_proj",
        "downsamplers.0.conv",
        "upsamplers.0.conv",
    ):
        for part in ("lora_A", "lora_B"):
            assert any(name.endswith(f"{layer}.{part}.weight") for name in names), layer
    assert not any("direction0" in name for name in names)


@torch.no_grad()
def test_at_strength_0_a_worn_copy_is_the_unet_bit_for_bit(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    base, adapted_unet = edit.unet(*batch), AdaptedUnet(edit.unet)
    assert torch.equal(adapted_unet.unet(*batch), base)
    for seed in range(2):
        adapted_unet.load_adapter(random_direction(edit.unet, seed))
    adapted_unet.set_strengths([torch.zeros(3)] * 2)
    assert torch.equal(adapted_unet.unet(*batch), base)
    adapted_unet.set_strengths([torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3)])  # one picture among others
    worn = adapted_unet.unet(*batch)
    assert torch.equal(worn[[0, 2]], base[[0, 2]]) and (worn[1] - base[1]).abs().max() > 0.05


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    adapted_unet = AdaptedUnet(edit.unet)
    parameters = adapted_unet.new_adapter(4, seed=1)
    assert parameters and all(parameter.requires_grad for parameter in parameters)
    assert {id(parameter) for parameter in parameters} == {
        id(parameter) for parameter in adapted_unet.unet.parameters() if parameter.requires_grad
    }
    adapted_unet.set_strengths([torch.ones(3)])
    assert torch.equal(adapted_unet.unet(*batch), edit.unet(*batch))
    state = torch.get_rng_state()
    others = [AdaptedUnet(edit.unet), AdaptedUnet(edit.unet)]
    again, different = others[0].new_adapter(4, seed=1), others[1].new_adapter(4, seed=2)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert all(torch.equal(one, same) for one, same in zip(parameters, again, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(parameters, different, strict=True))


@pytest.mark.parametrize("strength", [-1.0, 1.5])
@torch.no_grad()
def test_a_worn_direction_is_one_merged_into_the_weights(
    edit: Edit, batch: tuple[Tensor, Tensor], strength: float
) -> None:
    direction, adapted_unet = random_direction(edit.unet), AdaptedUnet(edit.unet)
    adapted_unet.load_adapter(direction)
    adapted_unet.set_strengths([torch.full((3,), strength)])
    plain = merged(edit.unet, [direction], [strength])
    expected = plain(*batch)
    assert torch.allclose(adapted_unet.unet(*batch), expected, atol=2e-4, rtol=1e-3)
    assert (expected - edit.unet(*batch)).abs().max() > 0.1
    worn, found = dict(adapted_unet.unet.network.named_modules()), dict(plain.network.named_modules())
    kinds = set()
    for name, layer in found.items():
        if f"{name}.lora_A.weight" not in direction.tensors:
            continue
        kinds.add(type(layer))
        if isinstance(layer, nn.Conv2d):
            x = torch.randn(3, layer.in_channels, 6, 6, generator=torch.Generator().manual_seed(1))
        else:
            shape = (3, layer.in_features) if name.endswith("time_emb_proj") else (3, 5, layer.in_features)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(worn[name](x), layer(x), atol=1e-4), name
    assert kinds == {nn.Conv2d, nn.Linear}


@torch.no_grad()
def test_strengths_of_one_batch_are_those_of_separate_runs(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    (x, times), adapted_unet = batch, AdaptedUnet(edit.unet)
    adapted_unet.load_adapter(random_direction(edit.unet))
    strengths = torch.tensor([-1.0, 0.5, 1.5])
    adapted_unet.set_strengths([strengths])
    together = adapted_unet.unet(x, times)
    for k in range(3):
        adapted_unet.set_strengths([strengths[k : k + 1]])
        assert torch.allclose(
            adapted_unet.unet(x[k : k + 1], times[k : k + 1]), together[k : k + 1], atol=1e-5
        )


@torch.no_grad()
def test_two_directions_add_up(edit: Edit, batch: tuple[Tensor, Tensor]) -> None:
    directions = [random_direction(edit.unet, 0, rank=4), random_direction(edit.unet, 7, rank=2)]
    adapted_unet = AdaptedUnet(edit.unet)
    for direction in directions:
        adapted_unet.load_adapter(direction)
    adapted_unet.set_strengths([torch.full((3,), 0.8), torch.full((3,), -0.6)])
    expected = merged(edit.unet, directions, [0.8, -0.6])(*batch)
    assert torch.allclose(adapted_unet.unet(*batch), expected, atol=2e-4, rtol=1e-3)
    for wrong in ([0.8, 0.6], [0.8, 0.0], [-0.6, 0.8]):
        assert not torch.allclose(merged(edit.unet, directions, wrong)(*batch), expected, atol=1e-2)


def test_a_direction_of_another_base_is_refused(edit: Edit) -> None:
    other = tiny_unet()
    other.network.conv_in.weight.data += 0.01
    adapted_unet = AdaptedUnet(edit.unet)
    with pytest.raises(BadInput, match="learned on another base model") as refused:
        adapted_unet.load_adapter(random_direction(other))
    assert "\n" not in str(refused.value)
    good = random_direction(edit.unet)
    fewer = dict(list(good.tensors.items())[1:])
    odd = {name: (one[:1] if k == 0 else one) for k, (name, one) in enumerate(good.tensors.items())}
    for tensors in (fewer, odd, {}, {**good.tensors, "more": torch.zeros(1).half()}):
        with pytest.raises(BadInput, match="does not fit the base model") as refused:
            AdaptedUnet(edit.unet).load_adapter(Direction(tensors, good.facts))
        assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="does not fit the base model"):
        AdaptedUnet(edit.unet).load_adapter(Direction(good.tensors, good.facts | {"rank": 5}))


def test_equal_weights_have_equal_hashes(edit: Edit) -> None:
    assert network_hash(tiny_unet()) == network_hash(edit.unet) and len(network_hash(edit.unet)) == 64
    channels_last = tiny_unet()
    convert_conv2d_weight_memory_format(channels_last, torch.channels_last)  # as Studio loads it
    assert network_hash(channels_last) == network_hash(edit.unet)
    assert network_hash(edit.clip) != network_hash(edit.critic)
