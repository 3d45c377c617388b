"""Files that Flax wrote: DALL·E mini by dalle-mini's own code, and a VQGAN by vqgan-jax's modules (tests/flax/NOTICE)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.dalle_mini.network import DalleMini, DalleMiniConfig
from pipelines.models.taming_vqgan.network import TamingVqgan, TamingVqganConfig
from pipelines.weights.convert import convert_file

FLAX = Path(__file__).parents[2] / "flax"


def outputs(folder: str) -> dict[str, Any]:
    """What the publisher's network gave."""
    return json.loads((FLAX / folder / "outputs.json").read_text("utf-8"))


def loaded(path: Path, config_type: Any, network_type: Any) -> Any:
    """Our network of a converted file."""
    network = network_type(config_type.from_dict(read_header(path)[0]))
    load_weights(path, network)
    return network.eval().requires_grad_(False)


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_dalle_mini_by_its_own_code_gives_the_same_logits(tmp_path: Path) -> None:
    """A table of 28 rows, of which 20 can be drawn; the start token is that of the config."""
    kind = convert_file([FLAX / "dalle-mini"], tmp_path / "mini.safetensors")
    assert kind == "dalle-mini"
    network = loaded(tmp_path / "mini.safetensors", DalleMiniConfig, DalleMini)
    config = network.config
    assert (config.start_token, config.image_vocabulary, config.table_size) == (20, 20, 28)
    assert (config.encoder_layer_count, config.decoder_layer_count, config.head_count) == (3, 2, 4)
    told = outputs("dalle-mini")
    logits = network(torch.tensor(told["text"]), torch.tensor(told["image"]))
    assert_near(logits, torch.tensor(told["logits"])[:, :, :20])


def test_a_vqgan_by_flax_decodes_and_encodes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(gzip.decompress((FLAX / "vqgan" / "flax_model.msgpack.gz").read_bytes()))
    assert convert_file([path], tmp_path / "vqgan.safetensors") == "taming-vqgan"
    network = loaded(tmp_path / "vqgan.safetensors", TamingVqganConfig, TamingVqgan)
    assert (network.config.code_count, network.config.code_size, network.config.unit_range) == (20, 6, True)
    told = outputs("vqgan")
    codes = torch.tensor(told["codes"]).long().unflatten(1, (8, 8))
    pictures = network.decode(network.embed(codes))
    assert_near((pictures + 1) / 2, torch.tensor(told["pictures"]).movedim(3, 1))
    x = torch.tensor(told["x"]).movedim(3, 1) * 2 - 1
    assert torch.equal(network.encode_tokens(x).flatten(1), torch.tensor(told["ids"]).long())
