"""Directions as files: byte for byte, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from pipelines.edit.directions import Direction, read_direction
from pipelines.edit.pipeline import Edit
from pipelines.errors import BadInput
from pipelines.io.files import bytes_to_uri
from tests.support.edit import (
    random_direction,
)


def test_a_direction_comes_back_byte_for_byte(edit: Edit, tmp_path: Path) -> None:
    direction = random_direction(edit.unet, source="a 3d 脸", target='红心 “quoted” "x"')
    direction.save(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    assert {direction.to_bytes() for _ in range(10)} == {data}
    for source in (tmp_path / "a.safetensors", str(tmp_path / "a.safetensors"), direction.to_uri()):
        again = read_direction(source)
        assert again.to_bytes() == data and again.facts == direction.facts
        assert all(torch.equal(one, again.tensors[name]) for name, one in direction.tensors.items())
    assert (again.rank, again.return_step) == (4, 400)
    assert "a 3d 脸 → 红心" in again.words
    assert len(data) < 60_000
    shuffled = Direction(dict(reversed(direction.tensors.items())), dict(reversed(direction.facts.items())))
    assert shuffled.to_bytes() == data


def test_other_tools_find_the_adapters_rank(edit: Edit, tmp_path: Path) -> None:
    from safetensors import safe_open

    random_direction(edit.unet, rank=3).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        told = json.loads((file.metadata() or {})["lora_adapter_metadata"])
    assert told["r"] == told["lora_alpha"] == 3 and "to_q" in told["target_modules"]


def with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A safetensors file with its header changed."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def with_facts(data: bytes, **facts: Any) -> bytes:
    def change(header: dict[str, Any]) -> None:
        header["__metadata__"]["facts"] = json.dumps(json.loads(header["__metadata__"]["facts"]) | facts)

    return with_header(data, change)


def tensors_and_facts(direction: Direction, **changes: Any) -> bytes:
    tensors = {name: one.contiguous() for name, one in direction.tensors.items()}
    return save({**tensors, **changes}, {"facts": json.dumps(direction.facts)})


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a picture": (lambda _: b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "no safetensors file"),
    "empty": (lambda _: b"", "no safetensors file"),
    "text": (lambda _: b"hello", "no safetensors file"),
    "cut in the tensors": (lambda data: data[:-7], "damaged"),
    "cut in the header": (lambda data: data[:200], "no safetensors file"),
    "an absurd header length": (lambda data: (2**62).to_bytes(8, "little") + data[8:], "no safetensors file"),
    "header length -1": (lambda data: b"\xff" * 8 + data[8:], "no safetensors file"),
    "a header that is no object": (lambda _: (2).to_bytes(8, "little") + b"[]", "no safetensors file"),
    "a deep header": (
        lambda _: (100_000).to_bytes(8, "little") + b"[" * 100_000,
        "no safetensors file",
    ),
    "no facts": (lambda data: with_header(data, lambda head: head.pop("__metadata__")), "carries no facts"),
    "facts that are a list": (
        lambda data: with_header(data, lambda head: head.update(__metadata__={"facts": "[]"})),
        "not an object",
    ),
    "facts that are no JSON": (
        lambda data: with_header(data, lambda head: head.update(__metadata__={"facts": "{"})),
        "carries no facts",
    ),
    "no source": (lambda data: with_facts(data, source=None), "its source is not text"),
    "a long target": (lambda data: with_facts(data, target="x" * 2001), "its target is not text"),
    "rank 0": (lambda data: with_facts(data, rank=0), "its rank is not a number"),
    "rank 65": (lambda data: with_facts(data, rank=65), "its rank is not a number"),
    "rank true": (lambda data: with_facts(data, rank=True), "its rank is not a number"),
    "rank 4.0": (lambda data: with_facts(data, rank=4.0), "its rank is not a number"),
    "return step 1000": (lambda data: with_facts(data, return_step=1000), "its return_step is not a number"),
    "offsets beyond the file": (
        lambda data: with_header(
            data, lambda head: next(v for k, v in head.items() if "lora" in k).update(data_offsets=[0, 10**9])
        ),
        "damaged",
    ),
    "a shape that does not fit": (
        lambda data: with_header(
            data, lambda head: next(v for k, v in head.items() if "lora" in k).update(shape=[10**9, 10**9])
        ),
        "damaged",
    ),
    "a tensor that is none": (
        lambda data: with_header(data, lambda head: head.update(more=5)),
        "not float16",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_directions_are_refused_in_one_sentence(
    edit: Edit, damage: Callable[[bytes], bytes], words: str, tmp_path: Path
) -> None:
    data = damage(random_direction(edit.unet).to_bytes())
    (tmp_path / "a.safetensors").write_bytes(data)
    for source in (tmp_path / "a.safetensors", bytes_to_uri(data)):
        with pytest.raises(BadInput, match=words) as refused:
            read_direction(source)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 250


def test_strange_tensors_are_refused(edit: Edit, tmp_path: Path) -> None:
    direction = random_direction(edit.unet)
    name, one = next(iter(direction.tensors.items()))
    broken, endless = one.clone(), one.clone()
    broken.view(-1)[3], endless.view(-1)[0] = math.nan, math.inf
    for tensor, words in (
        (broken, "not finite"),
        (endless, "not finite"),
        (one.float(), "is not float16"),
        (one.to(torch.bfloat16), "is not float16"),
    ):
        (tmp_path / "a.safetensors").write_bytes(tensors_and_facts(direction, **{name: tensor}))
        with pytest.raises(BadInput, match=words):
            read_direction(tmp_path / "a.safetensors")


def test_names_of_directions_are_checked(edit: Edit, tmp_path: Path) -> None:
    direction = random_direction(edit.unet)
    with pytest.raises(BadInput, match=r"must end in \.safetensors"):
        direction.save(tmp_path / "angry.txt")
    assert not list(tmp_path.iterdir())
    for source in (
        tmp_path / "nowhere.safetensors",
        tmp_path,
        "",
        "a\0b",
        "x" * 5000,
        "~nobody-here/a.safetensors",
    ):
        with pytest.raises(BadInput) as refused:
            read_direction(source)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 250
    for source in ("data:application/octet-stream;base64,@@@", "data:", "data:,"):
        with pytest.raises(BadInput):
            read_direction(source)
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.truncate(40_000_000)
    with pytest.raises(BadInput, match="more than 32 MB"):
        read_direction(tmp_path / "huge.safetensors")


def test_facts_of_a_stranger_can_be_written_again(edit: Edit, tmp_path: Path) -> None:
    """Half a character pair is JSON, yet no text: it is refused or cleaned, not carried on to fail elsewhere."""
    data = with_facts(random_direction(edit.unet).to_bytes(), source="half \ud800 a pair")
    (tmp_path / "a.safetensors").write_bytes(data)
    try:
        direction = read_direction(tmp_path / "a.safetensors")
    except BadInput:
        return
    assert read_direction(direction.to_uri()).facts == direction.facts
