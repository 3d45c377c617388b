"""Trainings on a user's own folder: photographs and drawings in place of icons, and the pack that comes of them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipelines.core.execute import result_of
from pipelines.edit.source_images import SourceImages
from pipelines.errors import BadInput, CannotSave
from pipelines.models.checkpoint import codes_hash, read_codes, read_header
from pipelines.models.pack_card import PackCard
from pipelines.studio import Studio
from pipelines.training import own
from pipelines.training.batches import to_device
from pipelines.training.cli import main
from pipelines.training.control import Control
from pipelines.training.data.captions import COLOURS, caption
from pipelines.training.data.compositing import composed, kept_inside
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.folder import check
from pipelines.training.data.icons import Icon, may_be_mirrored
from pipelines.training.data.scenes import Scenes
from pipelines.training.holding import HOLDER
from pipelines.training.pretrained import begin_with
from pipelines.training.prior import PriorTrainer
from pipelines.weights import catalog, own_packs
from tests.support.training import PICTURES, flags, trainer_for


@pytest.fixture(scope="module")
def data_of_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return check(folder, tmp_path_factory.mktemp("cache")).file


@pytest.mark.parametrize(
    "name",
    [
        *("clip", "critic", "vqgan", "codec", "decoder", "vqvae", "dvae"),
        *("dalle", "transformer", "dalle-semantic", "prior", "unet"),
    ],
)
def test_every_network_learns_photographs(
    name: str, data_of_folder: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = trainer_for(name, data_of_folder, trained, tmp_path)
    batch = to_device(trainer.batch(0), trainer.accelerator.device)
    assert all(np.isfinite(value.item()) for value in trainer.update(batch, 0.9).values())
    assert all(np.isfinite(value) for value in trainer.evaluate().values())
    assert trainer.sample_grid() is not None
    texts = [] if not isinstance(batch, dict) else batch.get("texts", []) or batch.get("captions", [])
    assert all("house number" in text or "座房子" in text for text in texts)


def test_captions_stay_as_they_were_given() -> None:
    rng = np.random.default_rng(0)
    icon = Icon("", "Anna at the lake", ("安娜",))
    assert {caption(icon, rng) for _ in range(60)} == {"Anna at the lake", "安娜"}
    coloured = {caption(icon, rng, "red") for _ in range(60)}
    assert coloured == {"Anna at the lake on a red background", "红色背景上的安娜"}


def test_views_of_photographs_show_no_edge(data_of_folder: Path) -> None:
    data = Dataset(data_of_folder)
    rows = np.flatnonzero(data.opaque)
    rng = np.random.default_rng(0)
    movement = rng.uniform(-0.3, 0.3, (len(rows), 4))
    pictures = composed(data.rgba[rows], np.zeros((len(rows), 3)), movement, data.opaque[rows])
    spread = pictures.amax((2, 3)) - pictures.amin((2, 3))
    assert spread.max() < 0.02, "a plain photograph stays plain"
    apart = composed(data.rgba[rows], np.zeros((len(rows), 3)), movement)
    assert (apart.amax((2, 3)) - apart.amin((2, 3))).max() > 0.5, "which the movements alone would not do"
    assert np.array_equal(kept_inside(movement, np.zeros(len(rows), bool)), movement)
    scenes = Scenes(data, rows, rng, plain=0.0, coloured=0.0)
    for picture, text, k in (scenes.scene(int(k)) for k in rows):
        assert np.ptp(picture.reshape(-1, 3), 0).max() <= 1 and text in (
            data.icons[k].name,
            *data.icons[k].also,
        )


def test_drawings_stand_on_colours(data_of_folder: Path) -> None:
    data = Dataset(data_of_folder, 32)
    row = int(np.flatnonzero(~data.opaque)[0])
    scenes = Scenes(data, np.array([row]), 0, plain=0.0, coloured=0.0)
    seen = [scenes.scene(row) for _ in range(20)]
    for picture, text, k in seen:
        name = next(
            name
            for name, (chinese, _) in COLOURS.items()
            if f"on a {name} " in text or chinese + "背" in text
        )
        assert tuple(picture[16, 0]) == COLOURS[name][1] and k == row


def test_what_tells_a_side_is_not_mirrored() -> None:
    assert may_be_mirrored(Icon("", "a cat on a chair"))
    assert not may_be_mirrored(Icon("", "a cat", ("A cat Left of a dog",)))
    assert not may_be_mirrored(Icon("", "A SIGN at the road"))


def test_a_prior_of_many_styles_begins_one_of_none(
    data_of_folder: Path, trained: Path, tmp_path: Path
) -> None:
    started = trainer_for("prior", data_of_folder, trained, tmp_path, start=trained / "prior.safetensors")
    assert isinstance(started, PriorTrainer) and started.prior.config.styles == ()
    other = trainer_for("prior", data_of_folder, trained, tmp_path, seed=1)
    assert isinstance(other, PriorTrainer)
    taken = begin_with(other.prior, trained / "prior.safetensors", first_rows="style.weight")
    assert taken == set(other.prior.state_dict())
    assert torch.equal(started.prior.style.weight.cpu(), other.prior.style.weight.cpu())


def test_a_dalle_goes_on_because_its_tokens_keep_their_meaning(
    data_of_folder: Path, trained: Path, tmp_path: Path
) -> None:
    for name, keeps in (("vqgan", True), ("codec", False)):
        start = trained / f"{name}.safetensors"
        codec = trainer_for(name, data_of_folder, trained, tmp_path, start=start)
        same = torch.equal(codec.networks["vqgan"].codes.cpu(), load_file(start)["codes"].float())
        assert same == keeps and ("laid anew" in codec.start) != keeps
    start = trained / "dalle.safetensors"
    dalle = trainer_for("dalle", data_of_folder, trained, tmp_path, start=start)
    begun = load_file(start)
    assert all(
        torch.equal(value.cpu(), begun[key].float())
        for key, value in dalle.networks["dalle"].state_dict().items()
    )


@pytest.mark.parametrize("name", ["dalle", "transformer", "dalle-semantic", "prior"])
def test_a_network_notes_the_code_book_that_it_learned_with(name: str, trained: Path) -> None:
    told = read_header(trained / f"{name}.safetensors")[1]["codec"]
    codes = read_codes(trained / told["file"])
    assert codes is not None and told["codes"] == codes_hash(codes)
    assert told["file"] == ("codec.safetensors" if name == "prior" else "vqgan.safetensors")


# ----------------------------------------------------------------------------------------------------------- the pack


def test_a_part_is_trained_and_goes_on(
    folder: Path, places: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["vqgan", *flags(places, folder, "--steps", "2", "--licence", "CC0-1.0", "--json")]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["check"]["pictures"] == PICTURES and set(told["figures"]) == {"vqgan"}
    assert "12 pictures" in said.err and "python launch.py ui --pack mine" in said.err
    card = PackCard.read(places / "packs" / "mine")
    assert card is not None and card.licence == "CC0-1.0" and card.data["hash"] == told["check"]["hash"]
    _, facts = read_header(places / "packs" / "mine" / "vqgan.safetensors")
    assert facts["licence"] == "CC0-1.0" and facts["data"] == card.data["hash"] and facts["steps"] == 2
    assert facts["start"].endswith("tensors of vqgan.safetensors")
    assert main(["vqgan", *flags(places, folder, "--steps", "3")]) == 0
    _, facts = read_header(places / "packs" / "mine" / "vqgan.safetensors")
    assert facts["steps"] == 3 and "no licence is given" not in capsys.readouterr().err
    card = PackCard.read(places / "packs" / "mine")
    assert card is not None and card.licence == facts["licence"] == "CC0-1.0", "as the beginning said"


def test_a_licence_is_of_the_pictures_that_it_was_said_of(
    folder: Path, places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert main(["vqgan", *flags(places, folder, "--steps", "1", "--licence", "CC0-1.0")]) == 0
    (other / "0.png").unlink()
    assert main(["vqgan", *flags(places, other, "--steps", "1")]) == 0
    card = PackCard.read(places / "packs" / "mine")
    assert card is not None and card.licence.startswith("not stated")
    said = capsys.readouterr().err
    assert "no licence is given" in said and said.count("mine was begun on other pictures") == 1


def test_the_data_file_of_a_folder_is_known_as_such(
    data_of_folder: Path, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vqgan", *flags(places, data_of_folder, "--steps", "1")]) == 0
    card = PackCard.read(places / "packs" / "mine")
    assert (
        card is not None
        and card.parts["vqgan"].origin == "trained"
        and "12 pictures" in capsys.readouterr().err
    )
    assert (places / "runs" / "vqgan" / "state.safetensors").exists(), "its state is where it was said"


def test_only_a_check(
    folder: Path, places: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "MEASURED_SECONDS", 0.05)
    assert main(["vqgan", *flags(places, folder, "--check", "--json", "--minutes", "5")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pace"]["vqgan"]["pictures_a_minute"] > 0 and "figures" not in told
    assert Path(told["check"]["sheet"]).is_file() and not list((places / "runs").rglob("state.safetensors"))
    assert not (places / "packs").exists(), "a check makes no pack"


def test_a_pack_is_trained_part_by_part_and_goes_on_after_a_kill(
    folder: Path, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[str, float]] = []

    def train(options: argparse.Namespace) -> dict[str, float]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append((options.name, options.minutes))
        facts = {"data": options.folder.hash, "minutes": options.minutes}
        own.note_part(options.out, options.name, f"{options.name}.safetensors", facts)
        return {}

    monkeypatch.setattr("pipelines.training.cli.train", train)
    command = ["pack", *flags(places, folder, "--minutes", "60")]
    assert main(command) == 130
    assert "goes on" in capsys.readouterr().err
    monkeypatch.setattr(
        "pipelines.training.cli.train", lambda options: done.append((options.name, options.minutes)) or {}
    )
    assert main(command) == 0
    assert [name for name, _ in done] == list(own.SHARES) and 50 < sum(minutes for _, minutes in done) < 60
    said = capsys.readouterr().err
    assert "clip is done" in said and "prior is done" not in said


def test_a_whole_pack_is_trained_from_the_page_and_used_by_every_tool(folder: Path, places: Path) -> None:
    control = Control(places / "control")
    command = ["pack", *flags(places, folder, "--minutes", "0.01", "--control", str(control.folder))]
    control.ask("pause")
    assert main(command) == 0 and control.ended() == {"how": "paused"}
    control.clear()
    assert main(command) == 0 and control.ended() == {"how": "done"}
    lines = [json.loads(line) for line in control.progress.read_text().splitlines()]
    trained = [line["facts"]["network"] for line in lines if "facts" in line]
    assert trained == [trained[0], *own.SHARES] and trained[0] == "clip"
    card = PackCard.read(places / "packs" / "mine")
    assert card is not None and all(card.fits(name) for name in own.PARTS)
    assert {card.parts[name].origin for name in own.PARTS} == {"trained"}

    studio = Studio("mine", "cpu")
    small: dict[str, dict[str, Any]] = {
        "generate": {"candidates": 2, "keep": 1},
        "optimize": {"steps": 2},
        "diffuse": {"candidates": 1, "steps": 2},
        "guide": {"steps": 2},
    }
    for name, settings in small.items():
        pipeline = studio.pipeline(name)
        made = result_of(pipeline, pipeline.Settings(prompt="the house number 3", **settings))
        assert made.pictures, name
    assert studio.clip().tokenizer.unknown_words("the house number 座 zebra") == ["zebra"]


def test_two_trainings_of_one_thing_are_not_run_at_once(
    folder: Path, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = psutil.Process(os.getppid())  # some process that lives
    holder = json.dumps([other.pid, other.create_time()])
    for name, place in (("pack", places / "packs" / "mine"), ("vqgan", places / "runs" / "own")):
        if name == "vqgan":
            place /= f"mine-{check(folder, places / 'runs' / 'data').hash[:8]}/vqgan"
        place.mkdir(parents=True)
        (place / HOLDER).write_text(holder)
        assert main([name, *flags(places, folder, "--steps", "1")]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert f"a training already runs in {place} (process {other.pid})" in last


def test_a_full_disk_ends_with_a_sentence_and_the_same_command_goes_on(
    folder: Path, places: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise CannotSave("io.disk_full", file=path.name)

    command = ["vqgan", *flags(places, folder, "--steps", "2")]
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.training.state.write_atomically", full)
        assert main(command) == 1
    assert "disk is full" in capsys.readouterr().err.splitlines()[-1]
    assert main(command) == 0
    (places / "a file").touch()
    assert main([*command, "--out", str(places / "a file" / "mine")]) == 2
    assert "a file" in (last := capsys.readouterr().err.splitlines()[-1]) and last.startswith("atelier: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text"], "learns from the project's icons only"),
        (["pack", "--start", "a.safetensors"], "without --start"),
        (["dalle", "--codec", "dvae"], "train that first: python launch.py train dvae"),
        (["transformer", "--codec", "dvae"], "train that first: python launch.py train dvae"),
        (["vqgan", "--out", "packs/My Pack"], "is no name for a pack"),
        (["vqgan", "--out", "packs/church"], "is the name of a pack that there is already"),
        (["vqgan", "--data", "nowhere.tar"], "there is no folder"),
    ],
)
def test_wrong_words_of_folders(
    arguments: list[str], words: str, folder: Path, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([arguments[0], *flags(places, folder, "--json"), *arguments[1:]]) == 2
    said = capsys.readouterr()
    assert words in said.err.splitlines()[-1] and words in json.loads(said.out)["error"]["text"]


def test_data_files_are_not_checked(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vqgan", "--data", str(data_file), "--check"]) == 2
    assert main(["pack", "--data", str(data_file)]) == 2
    assert capsys.readouterr().err.count("is for a folder of pictures") == 2


@pytest.fixture
def own_pack(folder: Path, places: Path) -> Path:
    """A user's pack as it begins."""
    own.begin_pack(places / "packs" / "mine", check(folder, places / "cache"))
    return places / "packs" / "mine"


def test_a_pack_begins_as_the_tiny_one_with_its_own_pictures(
    own_pack: Path, folder: Path, places: Path
) -> None:
    card = PackCard.read(own_pack)
    assert card is not None and all(card.fits(name) for name in own.PARTS)
    assert len(SourceImages.load(own_pack / "pictures.safetensors")) < PICTURES
    assert (
        catalog.pack_names()[-1] == "mine"
        and catalog.pipelines_of("mine")["diffuse"]["prior"] == "mine-prior"
    )
    assert {one.name for one in catalog.needed("mine")} >= {f"mine-{name}" for name in own.PARTS}
    assert (
        catalog.checkpoint_of("mine-critic").kind == "clip"
        and catalog.checkpoint_of("mine-codec").role == "vqgan"
    )
    assert catalog.reader_of("mine", "edit") == "mine-clip" and catalog.is_known("mine-vqgan")
    catalog.check_use("mine", {"clip": "tiny-clip"})
    with pytest.raises(BadInput, match="mine"):
        catalog.pipelines_of("other")


def test_what_no_longer_fits_comes_from_the_tiny_pack(own_pack: Path, trained: Path) -> None:
    shutil.copy(trained / "judge.safetensors", own_pack / "codec.safetensors")
    own.note_part(own_pack, "codec", "codec.safetensors", {"figures": {"PSNR": 20.0}})
    models = catalog.pipelines_of("mine")
    assert models["diffuse"] == {"prior": "tiny-prior", "codec": "tiny-codec", "clip": "mine-clip"}
    assert models["optimize"]["vqgan"] == "mine-codec" and models["generate"]["dalle"] == "mine-dalle"
    assert catalog.reader_of("mine", "diffuse") == "tiny-clip"
    assert "PSNR 20" in catalog.checkpoint_of("mine-codec").about
    own.note_part(own_pack, "prior", "prior.safetensors", {})
    assert catalog.pipelines_of("mine")["diffuse"]["prior"] == "mine-prior"
    shutil.copy(trained / "unet.safetensors", own_pack / "codec.safetensors")
    own.note_part(own_pack, "decoder", "codec.safetensors", {})
    assert catalog.pipelines_of("mine")["diffuse"]["prior"] == "mine-prior", (
        "a decoder's training keeps the latents"
    )
    shutil.copy(trained / "judge.safetensors", own_pack / "vqgan.safetensors")
    own.note_part(own_pack, "vqgan", "vqgan.safetensors", {})
    assert catalog.pipelines_of("mine")["generate"]["vqgan"] == "tiny-vqgan"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"licence": "", "data": {}, "parts": {"clip": {"file": "../a", "sha256": "", "origin": ""}}}',
    ],
)
def test_a_damaged_card_hides_the_pack(own_pack: Path, text: str) -> None:
    (own_pack / "pack.json").write_text(text)
    assert own_packs.own_packs() == [] and own_packs.part_named("mine-clip") is None
    with pytest.raises(BadInput, match=r"pack\.json"):
        PackCard.read(own_pack)
