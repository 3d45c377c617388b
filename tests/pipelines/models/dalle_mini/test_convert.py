"""DALL·E mini from files of both published forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import torch

from pipelines.errors import BadInput
from pipelines.models.dalle_mini.convert import convert, merge
from pipelines.models.dalle_mini.network import DalleMini, DalleMiniConfig
from pipelines.models.source import SourceCheckpoint
from pipelines.weights.readers import read_original
from tests.support.dalle_mini import HEADS, flax_tree, network_of, small_shapes


def test_the_flax_form_holds_the_same_network(
    network: DalleMini, halves: tuple[SourceCheckpoint, SourceCheckpoint], tmp_path: Path
) -> None:
    content = msgpack.packb(flax_tree(halves))
    assert content is not None
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    original = replace(read_original(tmp_path / "flax_model.msgpack"), metadata=HEADS)
    assert "model.decoder.layers.FlaxBartDecoderLayers.GLU_0.Dense_2.kernel" in original.tensors
    ours = network_of(original)
    assert ours.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_norms_that_keep_a_scale_use_it(halves: tuple[SourceCheckpoint, SourceCheckpoint]) -> None:
    encoder, decoder = halves
    scale = torch.linspace(0.5, 2, 40)
    scaled = replace(decoder, tensors={**decoder.tensors, "layers.1.glu.ln1.weight": scale})
    found = convert(merge(encoder, scaled)).tensors
    assert torch.equal(found["decoder.1.feed_forward.norm_inner.weight"], scale)
    assert torch.equal(found["decoder.0.feed_forward.norm_inner.weight"], torch.ones(40))


def test_heads_are_64_wide_when_nothing_tells() -> None:
    one = {name: torch.zeros(shape) for name, shape in small_shapes(width=128).items()}
    assert convert(SourceCheckpoint("x.pt", one, {})).config["head_count"] == 2
    narrow = {name: torch.zeros(shape) for name, shape in small_shapes(width=24).items()}
    assert (
        convert(SourceCheckpoint("x.pt", narrow, {"encoder_attention_heads": "3"})).config["head_count"] == 3
    )
    for numbers in ({}, {"encoder_attention_heads": 5}, {"encoder_attention_heads": 0}):
        with pytest.raises(BadInput, match=r"x\.pt is 24 wide.*encoder_attention_heads"):
            convert(SourceCheckpoint("x.pt", narrow, numbers))


def test_the_start_token_is_that_of_the_config() -> None:
    """A table may be padded: rows after the start token are never read."""
    generator = torch.Generator().manual_seed(4)
    tensors = {
        name: torch.randn(shape, generator=generator) for name, shape in small_shapes(width=128).items()
    }
    text, drawn = torch.tensor([[0, 5, 2, 1, 1, 1]]), torch.tensor([[3, 7, 1, 11]])

    def logits(start: int | None, changed: int) -> torch.Tensor:
        table = tensors["decoder.embed_tokens.weight"].clone()
        table[changed] *= -1
        numbers = {} if start is None else {"decoder_start_token_id": start}
        changed_table = {**tensors, "decoder.embed_tokens.weight": table}
        network = network_of(SourceCheckpoint("x.pt", changed_table, numbers))
        assert network.config.start_token == network.config.image_vocabulary == (start or 14)
        assert network.config.table_size == 15
        return network(text, drawn)[0, 0]

    assert not torch.allclose(logits(12, 12), logits(12, 13)) and torch.equal(logits(12, 13), logits(12, 14))
    assert not torch.allclose(logits(None, 14), logits(None, 13))
    for start in (0, 15, -1, "12", True):
        with pytest.raises(BadInput, match=r"x\.pt names the start token"):
            convert(SourceCheckpoint("x.pt", tensors, {"decoder_start_token_id": start}))


def test_a_mega_of_an_earlier_version_is_refused() -> None:
    """Its config gave the last row of the table as the start token, and no number of rows."""
    before = {"text_vocabulary": 50272, "image_vocabulary": 16384, "width": 2048, "head_count": 32}
    with pytest.raises(BadInput, match=r"with token 16415 where 16384 .*models remove dalle-mega"):
        DalleMiniConfig.from_dict({**before, "start_token": 16415})
    assert DalleMiniConfig.from_dict({**before, "start_token": 16384}).table_size == 16385  # a mini's
    assert DalleMiniConfig.from_dict({**before, "token_rows": 16416}).table_size == 16416


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder.layers.0.self_attn_layer_norm.weight": None}, "self_attn_layer_norm.weight should be"),
        ({"decoder.layernorm_embedding.weight": None}, "layernorm_embedding.weight should be"),
        ({"encoder.layers.0.glu.ln0.bias": None}, "ln0.bias should be .* absent"),
        ({"encoder.layers.0.self_attn.q_proj.weight": (128, 64)}, "q_proj.weight should be .*128, 64"),
        ({"decoder.extra": (3,)}, r"decoder.extra should be absent and is \(3,\)"),
        ({"decoder.layers.7.glu.ln0.bias": (128,)}, "layers.1"),
        ({"decoder.embed_positions.weight": (5, 128)}, "5 image positions"),
        ({"decoder.layers.0.glu.fc0.weight": (8,)}, "no matrix decoder.layers.0.glu.fc0.weight"),
        ({"decoder.lm_head.weight": None}, "other names"),
    ],
)
def test_wrong_weights_are_refused(change: dict[str, tuple[int, ...] | None], words: str) -> None:
    shapes = small_shapes(width=128)
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = torch.zeros(shape)
    with pytest.raises(BadInput, match=rf"half\.pt.*{words}"):
        convert(SourceCheckpoint("half.pt", tensors, {}))


def test_halves_alone_or_swapped_are_refused(halves: tuple[SourceCheckpoint, SourceCheckpoint]) -> None:
    encoder, decoder = halves
    with pytest.raises(BadInput, match=r"encoder\.pt .* holds only min-dalle's encoder"):
        convert(encoder)
    with pytest.raises(BadInput, match=r"decoder\.pt .* holds only min-dalle's decoder"):
        convert(decoder)
    with pytest.raises(BadInput, match=r"decoder\.pt should hold min-dalle's encoder and holds decoder"):
        merge(decoder, encoder)
    with pytest.raises(BadInput, match=r"x\.pt should hold min-dalle's decoder and holds other names"):
        merge(encoder, SourceCheckpoint("x.pt", {"weight": torch.zeros(2)}, {}))
