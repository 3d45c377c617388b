"""`models add` and `models remove`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from app.cli.models import main
from pipelines.errors import BadInput, CannotSave
from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.source import Converted, Joined, SourceCheckpoint
from pipelines.models.spec import families
from pipelines.weights import convert as store
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.convert import convert_file, convert_originals, write_converted
from tests.support.models_command import save_dvae, small_clip


def test_a_users_own_file_is_added_listed_and_removed(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(small_clip(), tmp_path / "some.bin")
    assert main(["add", str(tmp_path / "some.bin"), "--name", "mine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "openai-clip" and told["path"] == str(models / "mine.safetensors")
    assert main(["--json"]) == 0
    rows = [one for one in json.loads(capsys.readouterr().out)["models"] if one["pack"] == "own"]
    assert [(row["name"], row["role"]) for row in rows] == [("mine", "openai-clip")]
    assert "the user's own file" in rows[0]["licence"]
    with pytest.raises(BadInput, match="mine is there already"):
        main(["add", str(tmp_path / "some.bin"), "--name", "mine"])
    assert main(["remove", "mine"]) == 0
    assert list(models.iterdir()) == [] and (tmp_path / "some.bin").is_file()
    with pytest.raises(BadInput, match="nothing was removed"):
        main(["remove", "mine"])


def test_a_name_of_the_pack_brings_its_licence(models: Path, clip: Checkpoint, published: Path) -> None:
    assert main(["add", str(published / "clip.pt"), "--name", "small-clip"]) == 0
    facts = read_header(clip.path)[1]
    assert facts["licence"] == "the small licence" and facts["origin"] == "a test, given by path"


def test_two_files_may_come_in_any_order(models: Path, tmp_path: Path) -> None:
    save_dvae(tmp_path)
    paths = [str(tmp_path / "decoder.pkl"), str(tmp_path / "encoder.pkl")]
    assert main(["add", *paths, "--name", "one"]) == 0
    assert main(["add", *reversed(paths), "--name", "two", "--family", "dvae"]) == 0
    with (
        safe_open(models / "one.safetensors", "pt") as one,
        safe_open(models / "two.safetensors", "pt") as two,
    ):
        assert one.metadata()["kind"] == two.metadata()["kind"] == "openai-dvae"
        assert one.keys() == two.keys()
        assert all(torch.equal(one.get_tensor(name), two.get_tensor(name)) for name in one.keys())  # noqa: SIM118
    with pytest.raises(BadInput, match=r"decoder\.pkl and encoder\.pkl are two"):
        main(["add", *paths, "--name", "three", "--family", "ddpm"])


def test_a_folder_gives_its_weights_and_its_config(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(small_clip(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"quick_gelu": True, "heads": 4}))
    assert main(["add", str(folder), "--name", "four-heads"]) == 0
    config = read_header(models / "four-heads.safetensors")[0]
    assert 4 in config.values()  # the config's word, where shapes say 1
    torch.save({}, folder / "other.bin")
    with pytest.raises(BadInput, match=r"several files of weights \(other\.bin, pytorch_model\.bin\)"):
        main(["add", str(folder), "--name", "x"])
    (folder / "config.json").write_text("[")
    with pytest.raises(BadInput, match=r"config\.json is no JSON"):
        main(["add", str(folder / "config.json"), str(folder / "pytorch_model.bin"), "--name", "x"])


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "Ä", "x" * 65, "CON"])
def test_strange_names_are_refused(name: str, models: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").touch()
    for arguments in (["add", "x.pt", "--name", name], ["remove", name], ["fetch", name]):
        with pytest.raises(BadInput):
            main(arguments)
    assert (tmp_path / "x.safetensors").exists()


def test_files_of_no_family_are_described(models: Path, tmp_path: Path) -> None:
    torch.save(
        {"a.weight": torch.zeros(3, 4), "b": torch.zeros(()), "c": torch.zeros(2)}, tmp_path / "odd.pt"
    )
    words = (
        r"odd\.pt fits none of the families .* found 3 tensors, a\.weight \(3x4\), b \(one number\), c \(2\)"
    )
    with pytest.raises(BadInput, match=words):
        main(["add", str(tmp_path / "odd.pt"), "--name", "odd"])
    for family in families():
        with pytest.raises(BadInput, match=r"odd\.pt"):
            main(["add", str(tmp_path / "odd.pt"), "--name", "odd", "--family", family])
    with pytest.raises(BadInput, match="family 'dream' is not known"):
        main(["add", str(tmp_path / "odd.pt"), "--name", "odd", "--family", "dream"])
    with pytest.raises(BadInput, match=r"none\.pt cannot be opened"):
        main(["add", str(tmp_path / "none.pt"), "--name", "odd"])
    assert list(models.iterdir()) == []


def test_a_stranger_that_breaks_a_converter_is_refused_like_any_other() -> None:
    """Names of all families with shapes of none."""
    names = ["token_embedding.weight", "visual.proj", "visual.conv1.weight", "quantize.embedding.weight"]
    names += ["encoder.blocks.input.w", "text_embeddings", "down.0.block.0.conv1.weight", "image_emb.weight"]
    for shape in ((), (0,), (1, 1), (2, 0, 3)):
        tensors = {name: torch.zeros(shape) for name in names}
        with pytest.raises(BadInput, match="fits none of the families"):
            convert_originals([SourceCheckpoint("odd.pt", tensors, {"hparams": 3})])


def test_our_file_keeps_dtypes_and_is_the_same_every_time(tmp_path: Path) -> None:
    tensors = {
        "z": torch.randn(3, generator=torch.Generator().manual_seed(1)).half(),
        "a": torch.tensor([1.5]).bfloat16(),
        "m": torch.arange(6.0).reshape(2, 3).t(),
        "flag": torch.tensor([True, False, True]),
        "count": torch.tensor(7),
        "empty": torch.empty(0, 2),
    }
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    write_converted(one, Converted("kind", {"width": 3}, tensors), {"licence": "红"})
    write_converted(two, Converted("kind", {"width": 3}, dict(reversed(tensors.items()))), {"licence": "红"})
    assert one.read_bytes() == two.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"one.safetensors", "two.safetensors"}
    assert read_header(one) == ({"width": 3}, {"licence": "红"})
    with safe_open(one, "pt") as file:
        assert file.metadata()["kind"] == "kind"
        for name, value in tensors.items():
            assert file.get_tensor(name).dtype == value.dtype and torch.equal(file.get_tensor(name), value)
    net = nn.Linear(2, 3)
    write_converted(one, Converted("linear", {}, dict(net.half().state_dict())), {})
    other = nn.Linear(2, 3)
    load_weights(one, other)
    assert torch.equal(other.weight, net.weight.float())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write_converted(path, Converted("k", {}, {"w": torch.ones(2)}), {})
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(CannotSave, match=r"a\.safetensors was not saved: the disk is full"):
        write_converted(path, Converted("k", {}, {"w": torch.zeros(9)}), {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_convert_file_tells_the_hashes_of_its_sources(tmp_path: Path) -> None:
    torch.save(small_clip(), tmp_path / "a.pt")
    kind = convert_file([tmp_path / "a.pt"], tmp_path / "deep" / "out.safetensors", facts={"origin": "here"})
    assert kind == "openai-clip"
    facts = read_header(tmp_path / "deep" / "out.safetensors")[1]
    digest = hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    assert facts == {"origin": "here", "sources": {"a.pt": digest}}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.safetensors"]


def test_memory_that_is_short_is_told_before_converting(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(small_clip(), tmp_path / "some.pt")  # its largest array has 49408 x 64 numbers
    monkeypatch.setattr(store, "free_memory", lambda **_: {"RAM": 120_000_000})
    with pytest.raises(
        BadInput, match=r"converting some\.pt takes about 0\.1 GB of memory and 0\.1 GB are free"
    ):
        main(["add", str(tmp_path / "some.pt"), "--name", "mine"])
    assert list(models.iterdir()) == []
    monkeypatch.setattr(store, "free_memory", lambda **_: {"RAM": 130_000_000})
    assert main(["add", str(tmp_path / "some.pt"), "--name", "mine"]) == 0


def test_parts_are_joined_in_the_file(tmp_path: Path) -> None:
    parts = {"a": [torch.ones(2, 3), torch.zeros(1, 3)], "b": [torch.arange(6.0).reshape(2, 3).t()]}
    joined = Joined(parts)
    assert joined["a"].shape == (3, 3) and list(joined) == ["a", "b"] and len(joined) == 2
    told: list[int] = []
    write_converted(tmp_path / "x.safetensors", Converted("k", {}, joined), {}, [lambda: told.append(1)])
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert all(torch.equal(file.get_tensor(name), joined[name]) for name in joined)
    assert len(told) == 3  # what was read may leave memory after each part
