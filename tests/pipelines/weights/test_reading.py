"""What the readers of published files read."""

from __future__ import annotations

import collections
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.errors import BadInput
from pipelines.weights.readers import read_original
from tests.support.forms import (
    Saver,
    each_pickled_form,
    flax_array,
    flax_file,
    save_script,
)


def some_tensors() -> dict[str, Tensor]:
    """All dtypes of checkpoints; views, a scalar, an empty one, one number told six times, a shared storage."""
    make = torch.Generator().manual_seed(1)
    whole = torch.randn(4, 6, generator=make)
    return {
        "float32": torch.randn(3, 5, generator=make),
        "float16": torch.randn(7, generator=make).half(),
        "bfloat16": torch.randn(5, generator=make).bfloat16(),
        "float64": torch.randn(2, generator=make).double(),
        "int8": torch.tensor([-128, 0, 127], dtype=torch.int8),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "int64": torch.tensor([[2**40, -1]]),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(3, 2),
        "whole": whole,
        "turned": whole.t()[1:3],
        "tail": whole[2:, 1:4],
    }


def same(found: dict[str, Tensor], expected: dict[str, Tensor], prefix: str = "") -> None:
    """Names, dtypes, shapes and bits are equal, and every tensor has memory of its own, in order."""
    assert set(found) == {prefix + name for name in expected}
    for name, value in expected.items():
        other = found[prefix + name]
        assert other.dtype == value.dtype and other.shape == value.shape, name
        assert torch.equal(other, value) and other.is_contiguous(), name
    places = [one.data_ptr() for one in found.values() if one.numel()]
    assert len(set(places)) == len(places)


@each_pickled_form
def test_a_pickled_state_dict_comes_back_bit_for_bit(save: Saver, tmp_path: Path) -> None:
    save(some_tensors(), tmp_path / "weights.bin")  # the suffix means nothing
    original = read_original(tmp_path / "weights.bin")
    assert original.file == "weights.bin"
    same(original.tensors, some_tensors())


@each_pickled_form
def test_nested_dicts_give_joined_names_and_plain_values(save: Saver, tmp_path: Path) -> None:
    hparams = {
        "dim": 64,
        "rate": 0.5,
        "types": ("full", "axial_row"),
        "clip": None,
        "stable": True,
        "none": [],
    }
    value = {
        "weights": {"a": {"b": torch.ones(2)}, "list": [torch.zeros(1), torch.ones(1)]},
        "hparams": hparams
        | {"size": torch.Size([1, 2]), "dtype": torch.float16, "device": torch.device("cpu")},
        "seen": {"b"},
        "loss": np.float32(2.5),
        "table": np.arange(6.0).reshape(2, 3).T,
    }
    save(value, tmp_path / "dalle.pt")
    original = read_original(tmp_path / "dalle.pt")
    table = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).T
    expected = {
        "weights.a.b": torch.ones(2),
        "weights.list.0": torch.zeros(1),
        "weights.list.1": torch.ones(1),
    }
    same(original.tensors, expected | {"table": table})
    assert original.metadata == {
        "hparams": hparams
        | {"types": ["full", "axial_row"], "size": [1, 2], "dtype": "float16", "device": "cpu"},
        "loss": 2.5,
    }


@each_pickled_form
def test_a_whole_pickled_network_gives_the_tensors_of_its_state_dict(save: Saver, tmp_path: Path) -> None:
    from dall_e import Encoder

    torch.manual_seed(2)
    encoder = Encoder(n_hid=64, n_blk_per_group=1, vocab_size=512)
    encoder.register_buffer("passing", torch.ones(3), persistent=False)
    save(encoder, tmp_path / "encoder.pkl")
    original = read_original(tmp_path / "encoder.pkl")
    same(original.tensors, dict(encoder.state_dict()))
    assert "blocks.group_1.block_1.res_path.conv_1.w" in original.tensors
    assert original.metadata["vocab_size"] == 512


def test_classes_that_are_not_installed_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Lightning checkpoint: the net under state_dict, strange objects around it, the optimizer's tensors left out."""
    module = ModuleType("pytorch_lightning_of_old")

    class Config(dict[str, Any]):
        pass

    class Checkpoint:
        def __init__(self) -> None:
            self.best, self.where = torch.ones(3), Path("/nowhere")

    for one in (Config, Checkpoint):
        one.__module__, one.__qualname__ = module.__name__, one.__name__
        setattr(module, one.__name__, one)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    net = nn.Linear(2, 3)
    value = {
        "state_dict": net.state_dict(),
        "hyper_parameters": Config(ddconfig={"ch": 128, "attn_resolutions": [16]}),
        "callbacks": {Checkpoint: Checkpoint()},
        "monitor": Checkpoint(),
        "counts": collections.defaultdict(int, {"a": 1}),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(9)}}, "param_groups": []}],
        "epoch": 3,
    }
    torch.save(value, tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)
    original = read_original(tmp_path / "last.ckpt")
    expected = {f"state_dict.{name}": one for name, one in net.state_dict().items()}
    same(original.tensors, expected | {"monitor.best": torch.ones(3)})
    assert original.metadata["hyper_parameters"] == {"ddconfig": {"ch": 128, "attn_resolutions": [16]}}
    assert original.metadata["epoch"] == 3 and original.metadata["counts"] == {"a": 1}


def test_a_torchscript_archive_gives_the_tensors_of_its_state_dict(tmp_path: Path) -> None:
    net = save_script(tmp_path / "ViT-B-32.pt")
    same(read_original(tmp_path / "ViT-B-32.pt").tensors, dict(net.state_dict()))


def test_safetensors_come_back_with_their_metadata(tmp_path: Path) -> None:
    tensors = {name: one.clone().contiguous() for name, one in some_tensors().items()}
    save_file(tensors, tmp_path / "model.pt", {"format": "pt"})
    original = read_original(tmp_path / "model.pt")
    same(original.tensors, tensors)
    assert original.metadata == {"format": "pt"}


def test_flax_trees_come_back(tmp_path: Path) -> None:
    (tmp_path / "flax_model.msgpack").write_bytes(flax_file())
    original = read_original(tmp_path / "flax_model.msgpack")
    values = torch.arange(300.0).reshape(20, 15)
    expected = {
        "params.kernel": values,
        "params.half": torch.tensor([1.5, -2.0, 0.125]).bfloat16(),
        "params.empty": torch.empty(0, 2, dtype=torch.float16),
        "params.large": values,
    }
    same(original.tensors, expected)
    numbers = [1, -1, 200, -200, 70000, -70000, 2**40, 0.5]
    assert original.metadata == {
        "step": 7,
        "turn": 1 - 2j,
        "words": {"name": "mini", "long": "x" * 300, "numbers": numbers},
        "flags": {"yes": True, "no": False, "none": None},
    }


@pytest.mark.parametrize(
    "content",
    [
        msgpack.packb({"a": flax_array((2, 2), "float32", bytes(15))}),
        msgpack.packb({"a": flax_array((-1, -4), "float32", bytes(16))}),
        msgpack.packb({"a": flax_array((1,), "object", bytes(8))}),
        msgpack.packb({"a": msgpack.ExtType(9, b"\x01")}),
        msgpack.packb({"a": 1}),
        msgpack.packb({"a": 1}) + b"more",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # four billion values in no bytes
        b"\x81\xa1a" + b"\x91" * 100_000,
        b"\x81\xa1a\xc1",
        b"\x82\xa1a\x01\xa1a\x01",
    ],
)
def test_flax_files_that_lie_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.msgpack").write_bytes(content)
    with pytest.raises(BadInput, match=r"^x\.msgpack .*; expected"):
        read_original(tmp_path / "x.msgpack")
