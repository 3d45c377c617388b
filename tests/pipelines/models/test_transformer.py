"""The second stage over codes: its window, its cache, its conditions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipelines.benchmarks.transformer import in_the_window, window_logits
from pipelines.errors import BadInput
from pipelines.models.transformer.network import Transformer, TransformerConfig, local_places, plan_of
from tests.support.tiny import tiny_transformer


def tokens(rows: int, count: int) -> Tensor:
    return torch.randint(32, (rows, count), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("canvas", [None, (4, 9), (7, 4), (6, 6)])
@pytest.mark.parametrize("condition", ["none", "class", "text"])
def test_cached_logits_are_those_of_the_whole_sequence(
    canvas: tuple[int, int] | None, condition: str
) -> None:
    network = tiny_transformer(condition)
    image = tokens(4, (canvas or (4, 4))[0] * (canvas or (4, 4))[1])
    known = {"none": [], "class": [5, 6], "text": [3, 4, 5]}[condition]
    text = torch.stack([network.text_tokens(known), network.text_tokens([])])
    expected = network.image_logits(text.repeat_interleave(2, 0), image, canvas)
    cache, logits = network.prefill(text, 4, canvas)
    for position in range(image.shape[1]):
        assert torch.allclose(logits, expected[:, position], atol=1e-5), position
        logits = network.decode_step(cache, image[:, position], position)


def test_a_token_sees_what_is_before_it_in_the_window_only() -> None:
    grid, (height, width) = 3, (5, 7)
    mask = plan_of((height, width), grid, 1).mask[1:, 1:]
    for here in range(height * width):
        for there in range(height * width):
            (i, j), (k, m) = divmod(here, width), divmod(there, width)
            assert bool(mask[here, there]) == (there <= here and i - k < grid and abs(j - m) < grid)
    assert plan_of((grid, grid), grid, 1).mask[1:, 1:].equal(torch.ones(9, 9, dtype=torch.bool).tril())


def test_places_of_a_large_canvas_are_those_of_taming_transformers() -> None:
    """Of each token the place in the window that their sampling loop cuts around it."""
    for count in (8, 9, 12, 16, 30):
        expected = []
        for i in range(count):
            if i <= 4:
                expected.append(i)
            elif count - i < 4:
                expected.append(8 - (count - i))
            else:
                expected.append(4)
        assert local_places(count, 8).tolist() == expected
    assert local_places(8, 8).tolist() == list(range(8))


def test_what_is_far_away_does_not_matter_and_what_is_near_does() -> None:
    network, canvas = tiny_transformer("none"), (4, 16)
    text, image = torch.zeros(1, 1, dtype=torch.long), tokens(1, 64)
    before = network.image_logits(text, image, canvas)
    image[0, 0] = (image[0, 0] + 1) % 32
    changed = (network.image_logits(text, image, canvas) - before).abs().amax(2)[0].view(4, 16) > 1e-7
    assert changed[0, 1:4].all() and changed[1, 1:3].all()
    reach = (
        3 * network.config.layer_count
    )  # each layer looks three columns aside, and logits are of the next token
    assert changed[:, 1 : 2 + reach].any() and not changed[:, 2 + reach :].any()


def test_the_window_anew_for_each_token_is_the_same_network_on_a_training_picture() -> None:
    network = tiny_transformer("none")
    text, image = torch.zeros(2, 1, dtype=torch.long), tokens(2, 16)
    expected = network.image_logits(text, image)
    for position in range(16):
        assert torch.allclose(
            window_logits(network, text, image, (4, 4), position), expected[:, position], atol=1e-5
        )
    assert in_the_window(9, 12, 4) == (7, 2) and in_the_window(0, 12, 4) == (0, 0)


def test_conditions() -> None:
    assert tiny_transformer("none").text_tokens([3, 4]).tolist() == [0]
    network = tiny_transformer("class")
    assert network.text_tokens([]).tolist() == [0] and network.text_tokens([5, 6]).tolist() == [1]
    with pytest.raises(BadInput, match=r"the 2 things .* such as red circle, blue square"):
        network.text_tokens([5])
    assert tiny_transformer("text").text_tokens([3, 4, 5, 6, 7, 8]).tolist() == [3, 4, 5, 6]
    with pytest.raises(ValueError, match="condition"):
        TransformerConfig(32, condition="music")
    config = TransformerConfig.from_dict(tiny_transformer("class").config.to_dict())
    assert Transformer(config).text_tokens([7]).tolist() == [2]
