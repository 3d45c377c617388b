"""A pack of a user's own that was stopped, killed, or called as another one, and begun again."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from pipelines.models.checkpoint import read_header
from pipelines.models.pack_card import PACK_NAME, TAKEN, PackCard
from pipelines.training import own
from pipelines.training.cli import main
from pipelines.training.control import Control
from pipelines.training.data.folder import check
from pipelines.training.transformer import TransformerTrainer
from pipelines.weights import catalog
from tests.support.training import SIZES, flags


def test_what_was_stopped_early_is_not_done(folder: Path, places: Path) -> None:
    control = Control(places / "control")
    control.ask("stop")
    assert main(["vqgan", *flags(places, folder, "--minutes", "50", "--control", str(control.folder))]) == 0
    out = places / "packs" / "mine"
    card = PackCard.read(out)
    assert control.ended() == {"how": "kept"} and card is not None
    assert 0 < card.parts["vqgan"].facts["minutes"] < 10
    assert own.is_done(out, "vqgan", 0.0, card.data["hash"])
    assert not own.is_done(out, "vqgan", 50.0, card.data["hash"])


def test_what_a_kill_left_half_written_is_deleted(folder: Path, places: Path) -> None:
    assert main(["vqgan", *flags(places, folder, "--steps", "1")]) == 0
    (state,) = (places / "runs" / "own").glob("mine-*/vqgan")
    (state / ".state.safetensors-ab12cd34.part").touch()
    assert main(["vqgan", *flags(places, folder, "--steps", "1")]) == 0
    assert not list(state.glob(".*.part"))


def test_names_of_packs_that_are_taken_are_those_of_the_catalog() -> None:
    assert set(TAKEN) == {name for name in catalog.PACKS if PACK_NAME.fullmatch(name)}


def test_packs_are_named_by_their_folders(places: Path) -> None:
    def named(folder: str) -> str:
        return own.pack_of(argparse.Namespace(out=None), Path("/pictures") / folder).name

    names = [named(folder) for folder in ("My cats.2020", "church", "猫", "狗", "x" * 200)]
    assert names[:2] == ["my-cats", "church-mine"] and all(PACK_NAME.fullmatch(name) for name in names)
    assert names[2] != names[3] and all(name.startswith("mine-") for name in names[2:4])


def test_a_pack_whose_beginning_was_cut_off_has_no_trained_parts(folder: Path, places: Path) -> None:
    out = places / "packs" / "mine"
    out.mkdir(parents=True)
    shutil.copy(own.TINY / "clip.safetensors", out)
    shutil.copy(own.TINY / "judge.safetensors", out / "codec.safetensors")
    own.begin_pack(out, check(folder, places / "cache"))
    card = PackCard.read(out)
    assert (
        card is not None and card.parts["clip"].origin == "tiny" and card.parts["codec"].origin == "trained"
    )


def test_each_codec_has_a_second_stage_of_its_own_to_go_on_with(
    folder: Path, places: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {**TransformerTrainer.SIZES["tiny"], **SIZES["transformer"]}
    monkeypatch.setitem(TransformerTrainer.SIZES, "tiny", sizes)
    out = places / "packs" / "mine"
    for number, choice in enumerate([[], ["--codec", "vqvae"], ["--condition", "class"]], 1):
        if choice[:1] == ["--codec"]:
            shutil.copy(trained / "vqvae.safetensors", out)
        assert main(["transformer", *flags(places, folder, "--steps", "1"), *choice]) == 0
        assert len(list((places / "runs" / "own").glob("mine-*/transformer*/state.safetensors"))) == number
        config, facts = read_header(out / "transformer.safetensors")
        assert facts["codec"]["file"] == ("vqvae" if number == 2 else "vqgan") + ".safetensors", config
