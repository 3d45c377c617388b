"""Archives that torch 1.7.1 wrote, the PyTorch of 2021 (tests/archives/make.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.models.openai_clip.convert import convert as convert_clip
from pipelines.models.openai_dvae.convert import convert as convert_dvae
from pipelines.models.openai_dvae.convert import merge
from pipelines.weights.readers import read_original
from tests.archives.make import value

ARCHIVES = Path(__file__).parents[2] / "archives"


def assert_filled(tensors: dict[str, Tensor], prefix: str = "") -> None:
    """Every number is the one that was written."""
    assert tensors
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            expected = torch.from_numpy(value(name.removeprefix(prefix), tuple(tensor.shape)))
            assert torch.equal(tensor.float(), expected), name


def test_an_archive_of_torchscript_in_half_precision() -> None:
    original = read_original(ARCHIVES / "ViT.pt")
    sizes = {
        name: original.tensors[name].item() for name in ("input_resolution", "context_length", "vocab_size")
    }
    assert sizes == {"input_resolution": 32, "context_length": 13, "vocab_size": 40}
    assert {original.tensors[name].dtype for name in ("visual.conv1.weight", "visual.proj")} == {
        torch.float16
    }
    assert original.tensors["ln_final.weight"].dtype == torch.float32
    assert_filled(original.tensors)
    config = convert_clip(original).config
    assert (config["image_size"], config["embedding_size"], config["vocabulary_size"]) == (32, 16, 40)


def test_modules_that_were_pickled_whole() -> None:
    both = [read_original(ARCHIVES / f"{half}.pkl") for half in ("encoder", "decoder")]
    for original in both:
        assert_filled(original.tensors)
    config = convert_dvae(merge(*both)).config
    assert (config["code_count"], config["encoder_width"]) == (12, 4)


@pytest.mark.parametrize("name", ["last.ckpt", "last_before.ckpt"])
def test_checkpoints_of_trainings_give_their_weights_alone(name: str) -> None:
    original = read_original(ARCHIVES / name)
    assert set(original.tensors) == {f"state_dict.{k}.{kind}" for k in (0, 1) for kind in ("weight", "bias")}
    assert_filled(original.tensors, "state_dict.")
    assert original.metadata["hparams"]["ddconfig"] == {"resolution": 32, "ch_mult": [1, 2]}


def test_transposed_views_of_one_storage() -> None:
    original = read_original(ARCHIVES / "stacked.pt")
    for name, shape in (("fc0", (3, 4, 6)), ("fc2", (3, 6, 4))):
        for k, layer in enumerate(torch.from_numpy(value(name, shape))):
            found = original.tensors[f"layers.{k}.{name}.weight"]
            assert found.dtype == torch.float16 and torch.equal(found.float(), layer.T)
