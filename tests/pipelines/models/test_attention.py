"""Controls of attention: against plain references, and that looking changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.models.attention import (
    MOST_PLACES,
    AttentionEdit,
    AttentionMaps,
    AttentionRecorder,
    AttentionStore,
    ControlledAttention,
    HasAttention,
    grid_of,
)
from pipelines.models.words import PromptTokens, align
from tests.support.tiny import tiny_diffuse, tiny_prior

HEADS, WIDTH, TEXT = 2, 8, 6


class Same:
    """Takes all weights and gives them back."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def wants(self, cross: bool, places: int) -> bool:
        return True

    def __call__(self, layer: str, cross: bool, weights: Tensor) -> Tensor:
        self.sums.append(weights.sum(-1))
        return weights


def prior_and_condition() -> tuple[Any, Any]:
    model = tiny_prior()
    return model, model.condition("two cats", "", 32, 32, 2, True)


def stable_and_condition() -> tuple[Any, Any]:
    model: Any = tiny_diffuse("1.5").diffusion
    return model, model.condition("two cats", "", 64, 64, 2, True)


@torch.no_grad()
@pytest.mark.parametrize(("make", "bits"), [(prior_and_condition, True), (stable_and_condition, False)])
def test_a_control_that_changes_nothing_changes_nothing(make: Callable[[], Any], bits: bool) -> None:
    model, condition = make()
    assert isinstance(model, HasAttention)
    side = 4 if bits else 8
    latents = torch.randn(4, 4, side, side, generator=torch.Generator().manual_seed(3))
    control, t = Same(), torch.tensor(500)
    plain = model.predict(latents, t, condition)
    watched = model.predict(latents, t, model.controlled(condition, control))
    assert torch.equal(plain, watched) if bits else torch.allclose(plain, watched, atol=1e-5)
    assert len(control.sums) > 4 and all(torch.allclose(one, torch.ones(1)) for one in control.sums)
    assert torch.equal(plain, model.predict(latents, t, condition))


def tiny_attention(cross: bool) -> Any:
    from diffusers.models.attention_processor import Attention, AttnProcessor

    torch.manual_seed(2)
    layer = Attention(WIDTH, TEXT if cross else None, heads=HEADS, dim_head=4)
    layer.set_processor(ControlledAttention("it", AttnProcessor()))  # type: ignore[arg-type]
    return layer


def plain_weights(layer: Any, x: Tensor, read: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """The weights (places, keys) and the values (keys, 4) of each row and head, one after the other."""
    weights: list[list[Tensor]] = []
    values: list[list[Tensor]] = []
    for row in range(len(x)):
        weights.append([])
        values.append([])
        for head in range(HEADS):
            part = slice(4 * head, 4 * head + 4)
            query, key = x[row] @ layer.to_q.weight[part].T, read[row] @ layer.to_k.weight[part].T
            weights[-1].append(torch.softmax(query @ key.T / 2, -1))  # the square root of 4
            values[-1].append(read[row] @ layer.to_v.weight[part].T)
    return weights, values


def put_together(layer: Any, weights: list[list[Tensor]], values: list[list[Tensor]]) -> Tensor:
    states = [
        torch.cat([w @ v for w, v in zip(ws, vs, strict=True)], -1)
        for ws, vs in zip(weights, values, strict=True)
    ]
    output: nn.Linear = layer.to_out[0]
    return torch.stack(states) @ output.weight.T + output.bias


@torch.no_grad()
def test_cross_attention_is_replaced_as_in_the_paper() -> None:
    """Hertz et al. 2022, equations for word swap, added phrases and attention re-weighting, row by row and key by key."""
    layer = tiny_attention(cross=True)
    generator = torch.Generator().manual_seed(4)
    x, other = (torch.randn(3, 5, WIDTH, generator=generator) for _ in range(2))
    source_text, target_text = (torch.randn(3, 6, TEXT, generator=generator) for _ in range(2))
    store = AttentionStore()
    layer(x, encoder_hidden_states=source_text, control=AttentionRecorder(store, 2))
    letters = [
        PromptTokens(text, tuple((k, k + 1) for k in (0, 2, 4) if k < len(text)), 1)
        for text in ("a b", "a x c")
    ]
    scale = torch.tensor([1, 1, 1, -2.0])
    edit = AttentionEdit(store, 2, align(*letters), scale)
    found = layer(other, encoder_hidden_states=target_text, control=edit)

    stored, _ = plain_weights(layer, x, source_text)
    own, values = plain_weights(layer, other, target_text)
    for row in (1, 2):  # the first is the row without the text
        for head in range(HEADS):
            new = own[row][head].clone()
            # a start, a, b, three after them -> a start, a, x (new), c (for b), two after them
            for key, old in ((0, 0), (1, 1), (3, 2), (4, 3), (5, 4)):
                new[:, key] = stored[row][head][:, old]
            new[:, 3] *= -2
            own[row][head] = new
    assert torch.allclose(found, put_together(layer, own, values), atol=1e-5)
    assert not store.weights["it"]  # taken


@torch.no_grad()
def test_self_attention_is_replaced_whole_and_only_while_it_is_kept() -> None:
    layer = tiny_attention(cross=False)
    x, other = (torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(k)) for k in (5, 6))
    store = AttentionStore()
    plain = layer(other)
    nothing = align(PromptTokens("", (), 1), PromptTokens("", (), 1))
    layer(x, control=AttentionRecorder(store, 1))
    found = layer(other, control=AttentionEdit(store, 1, nothing))
    (_, stored), (own, values) = plain_weights(layer, x, x)[0], plain_weights(layer, other, other)
    assert torch.allclose(found, put_together(layer, [own[0], stored], values), atol=1e-5)
    for done, kept, cross, within in (
        (0, 4, True, True),
        (2, 4, True, False),
        (4, 4, False, False),
        (0, 0, False, False),
    ):
        store.set_step(done, kept)
        assert (store.cross_attention, store.self_attention) == (cross, within)
    assert torch.equal(layer(other, control=AttentionEdit(store, 1, nothing)), plain)
    store.set_step(0, 4)
    assert store.wants(True, 4096) and store.wants(False, MOST_PLACES) and not store.wants(False, 4096)


@torch.no_grad()
@pytest.mark.parametrize("make", [prior_and_condition, stable_and_condition])
def test_maps_say_where_the_words_look_and_sum_to_one(make: Callable[[], Any]) -> None:
    model, condition = make()
    side = 4 if make is prior_and_condition else 8
    latents = torch.randn(4, 4, side, side, generator=torch.Generator().manual_seed(3))
    attention = AttentionMaps((side, side))
    for t in (900, 100):
        model.predict(latents, torch.tensor(t), model.controlled(condition, attention))
    maps = attention.maps()
    assert maps.shape[1:] == (side, side) and maps.min() >= 0
    assert torch.allclose(maps.sum(0), torch.ones(side, side), atol=1e-5)
    assert maps[list(model.prompt_tokens("two cats").words[1].keys)].std() > 0


def test_a_map_is_upright() -> None:
    """Weights of one place of a 2 x 4 layer are seen at that place of 4 x 8 latents, in the row under the text."""
    weights = torch.zeros(2, 1, 8, 3)
    weights[1, 0, 5, 2] = 1  # second row, second column
    attention = AttentionMaps((4, 8))
    assert attention.wants(True, 8) and not attention.wants(False, 8)
    assert attention("it", True, weights) is weights
    found = attention.maps()[2]
    assert found.argmax().item() in (2 * 8 + 2, 2 * 8 + 3, 3 * 8 + 2, 3 * 8 + 3) and found[:, 5:].max() == 0
    assert grid_of(6, (5, 9)) == (2, 3)
    with pytest.raises(ValueError, match="7 places"):
        grid_of(7, (4, 8))


def test_windows_are_seen_where_they_lie() -> None:
    """Three windows of 2 x 2 over 2 x 4 latents, two of them in one prediction; the last call has an idle one."""
    attention = AttentionMaps((2, 4), (2, 2), [(0, 0), (0, 1), (0, 2)], 2)
    for _ in range(2):
        for call in range(2):
            weights = torch.zeros(4, 1, 4, 3)
            weights[..., 0] = 1
            weights[2 if call else 3, 0] = torch.tensor(
                [0.0, 0.0, 1.0]
            )  # of the third window, and of the second
            attention("it", True, weights)
    maps = attention.maps()
    assert torch.allclose(maps.sum(0), torch.ones(2, 4))
    assert maps[2, 0].tolist() == [0, 0.5, 1, 1]
