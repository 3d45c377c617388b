"""The files of a shipped pack are as they were sealed, or are named before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines.errors import BadInput
from pipelines.weights.manifest import MANIFEST, check_pack, entries, seal


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A sealed folder of two networks and a vocabulary."""
    for name in ("clip", "dalle"):
        save_file({"weight": torch.arange(100.0), "other": torch.ones(3)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "README.md").write_text("a card, which may change")
    assert seal(tmp_path, lambda: None) == 3
    return tmp_path


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_pack_as_it_was_sealed_is_read_once(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pack / "README.md").write_text("changed")
    check_pack([pack / "clip.safetensors"])
    monkeypatch.setattr("pipelines.weights.manifest.file_hash", lambda _: pytest.fail("it was read again"))
    check_pack([pack / "clip.safetensors"])


@pytest.mark.parametrize("file", ["clip.safetensors", "dalle.safetensors", "tokenizer.json"])
def test_one_flipped_byte_of_any_file_is_noticed_whatever_is_asked_for(file: str, pack: Path) -> None:
    check_pack([pack / "clip.safetensors"])
    for place in (-1, 1) if file == "tokenizer.json" else (-1, -300):
        flipped(pack / file, place)
        with pytest.raises(BadInput, match=f"{file} is not the file that this version came with"):
            check_pack([pack / "clip.safetensors"])
        flipped(pack / file, place)
        check_pack([pack / "clip.safetensors"])


def test_damage_is_named_for_what_it_is(pack: Path) -> None:
    path = pack / "dalle.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(BadInput, match=r"dalle\.safetensors are damaged"):
        check_pack([pack / "clip.safetensors"])
    save_file({"weight": torch.full((100,), torch.nan), "other": torch.ones(3)}, path)
    for sealed in (True, False):
        with pytest.raises(BadInput, match=r"dalle\.safetensors hold numbers that are none"):
            check_pack([path])
        if sealed:
            (pack / MANIFEST).unlink()
    path.unlink()
    with pytest.raises(BadInput, match=r"dalle\.safetensors are missing"):
        check_pack([path])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {"a": 3}}', "[" * 100_000])
def test_a_damaged_manifest_is_said(text: str, pack: Path) -> None:
    (pack / MANIFEST).write_text(text)
    with pytest.raises(BadInput, match=r"manifest\.json are damaged"):
        check_pack([pack / "clip.safetensors"])


def test_what_cannot_be_loaded_is_not_sealed(pack: Path) -> None:
    before = entries(pack)
    save_file({"weight": torch.ones(2)}, pack / "clip.safetensors")

    def fails() -> Iterator[None]:
        raise BadInput("models.weights_without_config", file="clip.safetensors")

    with pytest.raises(BadInput, match="carry no config"):
        seal(pack, fails)  # type: ignore[arg-type]
    assert entries(pack) == before
    save_file({"weight": torch.full((2,), torch.inf)}, pack / "clip.safetensors")
    with pytest.raises(BadInput, match="numbers that are none"):
        seal(pack, lambda: None)
    assert (
        entries(pack) == before and json.loads((pack / MANIFEST).read_text())["files"].keys() == before.keys()
    )
