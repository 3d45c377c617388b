"""`models` from the listing to a converted file on disk, against a server on this machine; and what is written there."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from app.cli import models as models_cli
from app.cli.models import main
from pipelines.errors import BadInput, CannotSave
from pipelines.models.checkpoint import file_hash, load_weights, read_header
from pipelines.models.source import Converted, Original
from pipelines.weights import convert as store
from pipelines.weights import install
from pipelines.weights import open_weights as full_pack
from pipelines.weights.convert import FAMILIES, VOCABULARIES, convert_file, convert_originals, write_converted
from pipelines.weights.open_weights import FULL_PACK, Entry, File


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder."""
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The folder that the server offers."""
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(published: Path) -> Iterator[str]:
    """Its address."""
    one = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(published))
    )
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{one.server_port}"
    one.shutdown()
    thread.join()
    one.server_close()


def small_clip() -> dict[str, Tensor]:
    """A state dict in the layout and precision of OpenAI's: 32 px, patches of 16, width 64, one layer, 8-d vectors."""
    make = torch.Generator().manual_seed(3)

    def some(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=make)

    tensors = {
        "visual.class_embedding": some(64),
        "visual.positional_embedding": some(5, 64),
        "visual.conv1.weight": some(64, 3, 16, 16).half(),
        "visual.proj": some(64, 8).half(),
        "token_embedding.weight": some(49408, 64),
        "positional_embedding": some(77, 64),
        "text_projection": some(64, 8).half(),
        "logit_scale": some(),
    }
    norms = ["visual.ln_pre", "visual.ln_post", "ln_final"]
    for tower in ("visual.transformer", "transformer"):
        block = f"{tower}.resblocks.0"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        for name, rows, columns in (
            *(("attn.in_proj_", 192, 64), ("attn.out_proj.", 64, 64)),
            *(("mlp.c_fc.", 256, 64), ("mlp.c_proj.", 64, 256)),
        ):
            tensors[f"{block}.{name}weight"] = some(rows, columns).half()
            tensors[f"{block}.{name}bias"] = some(rows).half()
    for norm in norms:
        tensors |= {f"{norm}.weight": 1 + some(64), f"{norm}.bias": some(64)}
    return tensors


@pytest.fixture
def clip(server: str, published: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """An entry of the full pack whose file the server has."""
    torch.save(small_clip(), published / "clip.pt")
    entry = Entry(
        name="small-clip",
        role="clip",
        family="clip",
        files=(File(f"{server}/clip.pt", file_hash(published / "clip.pt")),),
        licence="the small licence",
        origin="a test",
        about="a CLIP of nothing",
        parameters=1000,
        working=10**6,
        megabytes=13,
    )
    return offer(monkeypatch, entry)


def offer(monkeypatch: pytest.MonkeyPatch, entry: Entry) -> Entry:
    monkeypatch.setitem(FULL_PACK, entry.name, entry)
    return entry


def unpinned(entry: Entry) -> Entry:
    return Entry(**{**vars(entry), "files": tuple(File(one.url) for one in entry.files)})


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Somebody at a terminal types this."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(text))


# -------------------------------------------------------------------------------------------------- the list


def test_the_registry_is_consistent() -> None:
    assert len(FULL_PACK) == len(full_pack.ENTRIES)
    known = {*FAMILIES, *VOCABULARIES, "diffusers"}
    for one in full_pack.ENTRIES:
        assert (
            install.NAME.fullmatch(one.name) and one.family in known and one.files and one.download_bytes
        ), one.name
        assert one.licence and one.origin and one.about
        assert one.role == "tokenizer" or one.memory_bytes > one.parameters > 10**7
        assert len({file.path for file in one.files}) == len(one.files)
        for file in one.files:
            assert urlsplit(file.url).scheme == "https"
            if "/clip/models/" in file.url:
                assert f"/{file.sha256}/" in file.url and len(file.sha256 or "") == 64
            if one.family == "diffusers":
                assert file.path.endswith(install.KEPT_FORMS)
    roles = {one.role for one in full_pack.ENTRIES}
    assert roles == {"clip", "dalle", "codec", "unet", "latent", "tokenizer"}


def test_the_list_tells_all_packs(models: Path, clip: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split()[:3] == ["pack", "name", "role"]
    row = next(line for line in lines if " small-clip " in line)
    assert "about 13 MB" in row and "the small licence" in row and "a test" in row and " no " in row
    assert any("tiny-clip" in line and " yes " in line for line in lines)
    assert "free memory: RAM" in err
    assert not models.exists()  # looking makes nothing


def test_the_list_as_json_tells_whether_a_model_runs_here(
    models: Path, clip: Entry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models_cli, "free_memory", lambda: {"RAM": clip.memory_bytes})
    assert main(["--json"]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)["models"]}
    assert told["small-clip"]["memory"] == 4 * 1000 + 10**6 and told["small-clip"]["runs"]
    assert not told["dalle-mega"]["runs"] and told["dalle-mega"]["memory"] > 10 * 10**9
    assert told["clip-vit-b-32"]["pinned"] and not told["dalle-mega"]["pinned"]
    assert told["tiny-clip"]["there"] and not told["small-clip"]["there"]


# ---------------------------------------------------------------------------------------------------- fetching


def test_a_fetched_model_is_converted_and_carries_its_origin(
    models: Path, clip: Entry, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "small-clip", "--yes", "--json"]) == 0
    out, err = capsys.readouterr()
    path = models / "small-clip.safetensors"
    assert json.loads(out) == {
        "name": "small-clip",
        "path": str(path),
        "bytes": path.stat().st_size,
        "unpinned": [],
    }
    for words in ("the small licence", "a test", "about 13 MB", f"{clip.files[0].url}", "converting 1/1"):
        assert words in err
    assert list(models.iterdir()) == [path]  # the download is gone
    config, facts = read_header(path)
    assert config["image_size"] == 32 and config["embedding_size"] == 8
    assert facts["licence"] == "the small licence" and facts["origin"] == "a test"
    assert facts["sources"] == {"clip.pt": file_hash(published / "clip.pt")}
    (published / "clip.pt").unlink()
    assert main(["fetch", "small-clip"]) == 0  # it is there: nobody is asked, nothing is downloaded


def test_no_licence_is_agreed_to_in_silence(
    models: Path, clip: Entry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # not a terminal
    with pytest.raises(BadInput, match="--yes"):
        main(["fetch", "small-clip"])
    assert "the small licence" in capsys.readouterr().err
    for text in ("\n", "n\n", "", "maybe\n"):
        answer(monkeypatch, text)
        with pytest.raises(BadInput, match="nothing was downloaded"):
            main(["fetch", "small-clip"])
    assert not models.exists()
    answer(monkeypatch, "Y\n")
    assert main(["fetch", "small-clip"]) == 0
    assert clip.present


def test_a_changed_file_is_refused_and_what_is_there_stays(
    models: Path, clip: Entry, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fetch", "small-clip", "--yes"]) == 0
    other = offer(monkeypatch, Entry(**{**vars(clip), "name": "other-clip"}))
    (published / "clip.pt").write_bytes(b"changed")
    with pytest.raises(BadInput, match=r"clip\.pt from 127\.0\.0\.1 has the SHA-256"):
        main(["fetch", "other-clip", "--yes"])
    assert clip.present and not other.present


def test_what_was_not_pinned_is_pinned_by_the_first_download(
    models: Path,
    clip: Entry,
    published: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    offer(monkeypatch, unpinned(clip))
    assert main(["fetch", "small-clip", "--yes"]) == 0
    err = capsys.readouterr().err
    assert "not pinned: the publisher tells none" in err and "clip.pt is not pinned" in err
    assert main(["remove", "small-clip"]) == 0
    assert main(["fetch", "small-clip", "--yes"]) == 0
    assert "clip.pt is not pinned" not in capsys.readouterr().err
    assert main(["remove", "small-clip"]) == 0
    torch.save(small_clip() | {"logit_scale": torch.tensor(9.0)}, published / "clip.pt")
    with pytest.raises(BadInput, match="has the SHA-256"):
        main(["fetch", "small-clip", "--yes"])


def test_ctrl_c_keeps_what_came(
    models: Path, clip: Entry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.cli.main import _ProgressLine

    def press(self: Any, step: Any) -> None:
        if step.stage == "converting":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_ProgressLine, "show", press)
        assert main(["fetch", "small-clip", "--yes"]) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert (models / ".downloads" / "small-clip" / "clip.pt").is_file() and not clip.present
    assert main(["fetch", "small-clip", "--yes"]) == 0
    assert clip.present


def test_a_model_of_two_files_is_merged(
    models: Path, server: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dvae(published)
    files = (File(f"{server}/encoder.pkl"), File(f"{server}/decoder.pkl"))
    entry = Entry("small-dvae", "codec", "dvae", files, "a licence", "a test", "codes", megabytes=1)
    offer(monkeypatch, entry)
    assert main(["fetch", "small-dvae", "--yes"]) == 0
    assert read_header(entry.path)[0]["code_count"] == 512
    assert set(read_header(entry.path)[1]["sources"]) == {"encoder.pkl", "decoder.pkl"}


def save_dvae(folder: Path) -> None:
    from dall_e import Decoder, Encoder

    torch.manual_seed(1)
    torch.save(Encoder(n_hid=64, n_blk_per_group=1, vocab_size=512), folder / "encoder.pkl")
    torch.save(Decoder(n_init=8, n_hid=64, n_blk_per_group=1, vocab_size=512), folder / "decoder.pkl")


def test_a_diffusers_folder_is_kept_as_it_is(
    models: Path, server: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (published / "unet").mkdir()
    (published / "model_index.json").write_text("{}")
    (published / "unet" / "x.safetensors").write_bytes(b"weights")
    names = ("model_index.json", "unet/x.safetensors")
    files = tuple(File(f"{server}/{name}", name=name) for name in names)
    entry = offer(
        monkeypatch, Entry("small-latent", "latent", "diffusers", files, "l", "o", "a", megabytes=1)
    )
    assert main(["fetch", "small-latent", "--yes"]) == 0
    found = {str(one.relative_to(entry.path)) for one in entry.path.rglob("*") if one.is_file()}
    assert found == set(names) and entry.path == models / "small-latent"
    bad = Entry(**{**vars(entry), "name": "bad-latent", "files": (*files, File(f"{server}/x.pkl"))})
    (published / "x.pkl").write_bytes(pickle.dumps(1))
    offer(monkeypatch, bad)
    with pytest.raises(BadInput, match="neither safetensors nor texts"):
        main(["fetch", "bad-latent", "--yes"])
    assert not bad.present


def test_vocabularies_are_read_before_they_are_kept(
    models: Path, server: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.models.dalle_mini.tokenizer import DalleMiniTokenizer

    names = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "\u0120", "ab"]
    (published / "vocab_mini.json").write_text(json.dumps({name: k for k, name in enumerate(names)}))
    (published / "merges_mini.txt").write_text("#version: 0.2\na b\n")
    files = tuple(File(f"{server}/{name}") for name in ("vocab_mini.json", "merges_mini.txt"))
    entry = Entry("small-words", "tokenizer", "dalle_mini_tokenizer", files, "l", "o", "a", megabytes=1)
    offer(monkeypatch, entry)
    assert main(["fetch", "small-words", "--yes"]) == 0
    assert DalleMiniTokenizer.load(entry.path).encode("ab") == [6, 7]
    assert main(["remove", "small-words"]) == 0
    with pytest.raises(BadInput, match=r"bpe\.model"):
        store.convert_vocabulary([published / "vocab_mini.json"], models / "x.model", "rudalle_tokenizer")
    assert not (models / "x.model").exists()


# ---------------------------------------------------------------------------------------- adding and removing


def test_a_users_own_file_is_added_listed_and_removed(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(small_clip(), tmp_path / "some.bin")
    assert main(["add", str(tmp_path / "some.bin"), "--name", "mine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "openai-clip" and told["path"] == str(models / "mine.safetensors")
    assert main(["--json"]) == 0
    rows = [one for one in json.loads(capsys.readouterr().out)["models"] if one["pack"] == "own"]
    assert [(one["name"], one["role"]) for one in rows] == [("mine", "openai-clip")]
    assert "the user's own file" in rows[0]["licence"]
    with pytest.raises(BadInput, match="mine is there already"):
        main(["add", str(tmp_path / "some.bin"), "--name", "mine"])
    assert main(["remove", "mine"]) == 0
    assert list(models.iterdir()) == [] and (tmp_path / "some.bin").is_file()
    with pytest.raises(BadInput, match="nothing was removed"):
        main(["remove", "mine"])


def test_a_name_of_the_pack_brings_its_licence(models: Path, clip: Entry, published: Path) -> None:
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
    for family in FAMILIES:
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
            convert_originals([Original("odd.pt", tensors, {"hparams": 3})])


# ------------------------------------------------------------------------------------------------ our file


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
    assert [one.name for one in (tmp_path / "deep").iterdir()] == ["out.safetensors"]
