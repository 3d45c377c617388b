"""What published weights come as: 8-bit numbers, shards, and inside what trainers save beside them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.models.checkpoint import load_weights
from pipelines.weights.convert import convert_file, write_converted
from pipelines.weights.forms import EIGHT_BITS
from tests.support.models_command import small_clip


@pytest.fixture(scope="module")
def clip() -> dict[str, Tensor]:
    """As published, in float32."""
    return {name: tensor.float().contiguous() for name, tensor in small_clip().items()}


def converted(paths: list[Path], family: str | None = None) -> dict[str, Tensor]:
    out = paths[0].parent / "out" / "a.safetensors"
    assert convert_file(paths, out, family) == "openai-clip"
    return load_file(out)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("dtype", EIGHT_BITS, ids=str)
@pytest.mark.parametrize("pickled", [True, False])
def test_floats_of_eight_bits_are_read_exactly(
    dtype: torch.dtype, pickled: bool, clip: dict[str, Tensor], tmp_path: Path
) -> None:
    small = {name: tensor.to(dtype) for name, tensor in clip.items()}
    path = tmp_path / "a.bin"
    (torch.save if pickled else save_file)(small, path)
    found = converted([path])
    assert torch.equal(found["visual.proj"].float(), small["visual.proj"].float())


def test_numbers_with_scales_and_of_strange_types_are_refused(
    clip: dict[str, Tensor], tmp_path: Path
) -> None:
    small = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in clip.items()}
    save_file({**small, "visual.scale_weight": torch.ones(())}, tmp_path / "a.safetensors")
    with pytest.raises(BadInput, match=r"8 bits with scales beside them \(visual\.scale_weight\)"):
        converted([tmp_path / "a.safetensors"])
    from pipelines.models.source import Converted

    odd = Converted("openai-clip", {}, {"a": torch.zeros(2, dtype=torch.complex128)})
    with pytest.raises(BadInput, match="a has numbers of the type complex128"):
        write_converted(tmp_path / "b.safetensors", odd, {})
    assert not (tmp_path / "b.safetensors").exists()


def shards(folder: Path, tensors: dict[str, Tensor], index: bool) -> list[Path]:
    folder.mkdir(parents=True)
    names, files = list(tensors), [folder / f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)]
    table: dict[str, str] = {}
    for k, file in enumerate(files):
        part = {name: tensors[name] for name in names[k::3]}
        save_file(part, file)
        table |= dict.fromkeys(part, file.name)
    if index:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": table})
        )
    return files


@pytest.mark.parametrize("kind", ["I4", "F2", "NF4"])
def test_a_type_of_numbers_that_nobody_knows_yet_is_named(kind: str, tmp_path: Path) -> None:
    header = json.dumps({"visual.proj": {"dtype": kind, "shape": [2, 2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(
        BadInput, match=f"a.safetensors has numbers of the type {kind}, which are not kept; save"
    ):
        converted([path])


@pytest.mark.parametrize("index", [True, False])
def test_shards_are_one_model_however_they_are_named(
    index: bool, clip: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(clip, tmp_path / "whole.safetensors")
    whole = converted([tmp_path / "whole.safetensors"])
    files = shards(tmp_path / "parts", clip, index)
    named = [tmp_path / "parts" / "model.safetensors.index.json"] if index else files
    for paths in ([tmp_path / "parts"], files, files[1:2], named):
        assert same(converted(paths), whole)
    files[1].unlink()
    for paths in ([tmp_path / "parts"], files[:1]):
        with pytest.raises(
            BadInput, match=r"model-00002-of-00003\.safetensors is missing, one of the 3 files"
        ):
            converted(paths)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": {}}'],
)
def test_an_index_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        with pytest.raises(BadInput, match="is not an index of shards"):
            converted([path])


WRAPPED: dict[str, Any] = {
    "a loss beside it": lambda clip: {"state_dict": clip, "loss": torch.tensor(0.3), "epoch": 3},
    "model_state_dict": lambda clip: {"epoch": 1, "model_state_dict": clip, "optim": {0: {"step": torch.ones(())}}},
    "parallel": lambda clip: {"model": {f"module.{name}": tensor for name, tensor in clip.items()}},
    "compiled": lambda clip: {f"_orig_mod.{name}": tensor for name, tensor in clip.items()},
    "its own word": lambda clip: {"my_clip": clip, "best": 0.3},
    "deep": lambda clip: {"checkpoint": {"net": {"module": clip}}, "args": {"lr": 0.1}},
}  # fmt: skip


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("family", [None, "clip"])
def test_weights_are_found_inside_what_trainers_save(
    form: str, family: str | None, clip: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(WRAPPED[form](clip), tmp_path / "a.pt")
    save_file(clip, tmp_path / "plain.safetensors")
    plain = converted([tmp_path / "plain.safetensors"])
    assert same(converted([tmp_path / "a.pt"], family), plain)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_when_added_and_when_loaded(
    number: float, clip: dict[str, Tensor], tmp_path: Path
) -> None:
    broken = {**clip, "visual.proj": clip["visual.proj"].clone()}
    broken["visual.proj"][3, 2] = number
    save_file(broken, tmp_path / "a.safetensors")
    with pytest.raises(
        BadInput, match=r"a\.safetensors hold numbers that are none \(NaN or infinity, in visual"
    ):
        converted([tmp_path / "a.safetensors"])
    assert not (tmp_path / "out" / "a.safetensors").exists()
    network = torch.nn.Linear(2, 2)
    save_file({"weight": torch.full((2, 2), number), "bias": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(BadInput, match="in weight"):
        load_weights(tmp_path / "b.safetensors", network)


def test_a_named_family_that_cannot_take_the_file_says_so_in_a_sentence(tmp_path: Path) -> None:
    save_file(
        {"a": torch.zeros(()), "quantize.embedding.weight": torch.zeros(())}, tmp_path / "a.safetensors"
    )
    from pipelines.models.spec import families

    for family in families():
        with pytest.raises(BadInput):
            converted([tmp_path / "a.safetensors"], family)
