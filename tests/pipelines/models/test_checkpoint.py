"""Weights on disk: carried config, damage, strangers; and the studio that loads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.errors import BadInput
from pipelines.models.checkpoint import file_hash, load_weights, read_header, save_checkpoint
from pipelines.models.prior.diffusion import PriorDiffusion
from pipelines.studio import Studio
from pipelines.weights import catalog
from tests.support.tiny import tiny_refining_generate


def test_a_checkpoint_comes_back_with_its_story(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    save_checkpoint(tmp_path / "a.safetensors", network, {"width": 3}, {"steps": 7, "words": "红心"})
    config, facts = read_header(tmp_path / "a.safetensors")
    assert config == {"width": 3}
    assert facts == {"steps": 7, "words": "红心"}
    other = nn.Linear(3, 2)
    load_weights(tmp_path / "a.safetensors", other)
    assert torch.equal(other.weight, network.weight.half().float())
    assert list(tmp_path.iterdir()) == [tmp_path / "a.safetensors"]  # nothing half-written is left


def test_damaged_missing_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    with pytest.raises(BadInput, match=r"clip\.safetensors are missing"):
        read_header(path)
    save_checkpoint(path, nn.Linear(3, 2), {}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(BadInput, match=r"clip\.safetensors are damaged"):
        load_weights(path, nn.Linear(3, 2))
    path.write_bytes(b"\x80\x04pickle" * 9)
    with pytest.raises(BadInput, match="damaged"):
        read_header(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(BadInput, match="damaged"):
        read_header(path)


def test_weights_of_another_shape_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", nn.Linear(3, 2), {}, {})
    network = nn.Linear(4, 2)
    before = network.weight.clone()
    with pytest.raises(BadInput, match=r"weight should be \(2, 4\) and is \(2, 3\)"):
        load_weights(tmp_path / "a.safetensors", network)
    assert torch.equal(before, network.weight)


@pytest.fixture
def tiny_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalog's files replaced by those of the tiny test pipeline."""
    generate = tiny_refining_generate()
    diffusion = generate.diffusion
    assert isinstance(diffusion, PriorDiffusion)
    for role, network in (("prior", diffusion.prior), ("codec", diffusion.codec)):
        save_checkpoint(tmp_path / f"{role}.safetensors", network, network.config.to_dict(), {})
    (tmp_path / "tokenizer.json").write_text(generate.tokenizer.vocabulary.to_str(), "utf-8")
    for role in ("clip", "vqgan", "dalle"):
        network = getattr(generate, role)
        save_checkpoint(tmp_path / f"{role}.safetensors", network, network.config.to_dict(), {})
    for name, one in catalog.CHECKPOINTS.items():
        file = str(tmp_path / Path(one.file).name)
        monkeypatch.setitem(catalog.CHECKPOINTS, name, replace(one, file=file))
    return tmp_path


def test_the_studio_loads_each_model_once_and_freezes_it(tiny_pack: Path) -> None:
    studio = Studio("tiny", "cpu")
    one, other = studio.pipeline("generate"), studio.pipeline("generate")
    assert one.clip is other.clip is studio.clip()
    assert not any(p.requires_grad for p in one.dalle.parameters())
    assert not one.dalle.training
    models = studio.models("generate")
    assert set(models) == {"tokenizer", "clip", "vqgan", "dalle", "prior", "codec"}
    assert models["clip"] == {"name": "tiny-clip", "sha256": file_hash(tiny_pack / "clip.safetensors")}


def test_a_damaged_model_is_named_and_the_others_stay(tiny_pack: Path) -> None:
    whole = (tiny_pack / "vqgan.safetensors").read_bytes()
    (tiny_pack / "vqgan.safetensors").write_bytes(whole[:1000])
    studio = Studio("tiny", "cpu")
    with pytest.raises(BadInput, match=r"vqgan\.safetensors are damaged"):
        studio.pipeline("generate")
    (tiny_pack / "vqgan.safetensors").write_bytes(whole)
    assert studio.pipeline("generate") is not None  # mended without a restart


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="try tiny"):
        Studio("huge")
    with pytest.raises(BadInput, match="try cpu"):
        Studio("tiny", "abacus")
    with pytest.raises(BadInput, match="it has generate"):
        Studio("tiny", "cpu").pipeline("dream")
