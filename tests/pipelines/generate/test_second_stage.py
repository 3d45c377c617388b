"""Drawing without a prompt by a pack's second stage, and drawing over each kind of codec."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Pipeline, Result
from pipelines.core.record import read_record, write_pictures
from pipelines.core.replay import replay
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.io.images import picture_to_uri
from pipelines.models.checkpoint import codes_hash, read_codes, save_checkpoint
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.models.pack_card import PackCard
from pipelines.models.transformer.network import Transformer, TransformerConfig
from pipelines.models.vqgan.dvae import Dvae, DvaeConfig
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.studio import PIPELINES, Studio
from pipelines.weights.checkpoint import PROJECT
from pipelines.weights.codecs import second_stage
from tests.support.tiny import (
    tiny_generate,
    tiny_refining_generate,
    tiny_tokenizer,
    tiny_transformer,
    tiny_transformer_generate,
)

CODECS: dict[str, type[Any]] = {"vqgan": VqganConfig, "vqvae": VqganConfig, "dvae": DvaeConfig}
UNPROMPTED: dict[str, Any] = {"prompt": "", "prior": True, "candidates": 3, "keep": 3, "seed": 5}


def drawn(pipeline: Pipeline[Any], **settings: Any) -> list[Picture]:
    *_, result = run(pipeline, GenerateSettings(**settings))
    assert isinstance(result, Result)
    return result.pictures


def tokens(pictures: list[Picture]) -> list[list[int]]:
    return [picture.facts["tokens"] for picture in pictures]


# -------------------------------------------------------------------------------------------------- without a prompt


def test_without_a_prompt_candidates_keep_their_order_and_redraw_alone() -> None:
    pictures = drawn(tiny_transformer_generate(), **UNPROMPTED)
    assert [picture.facts["candidate"] for picture in pictures] == [0, 1, 2]
    assert len({picture.image.tobytes() for picture in pictures}) == 3
    assert all(picture.score is None and "noise" not in picture.facts for picture in pictures)
    last = pictures[-1]
    (alone,) = drawn(tiny_transformer_generate(), **UNPROMPTED | {"candidates": 1, "seed": last.seed})
    assert alone.image.tobytes() == last.image.tobytes()


def test_a_network_that_reads_nothing_draws_alike_under_any_prompt() -> None:
    under = (
        drawn(tiny_transformer_generate(), prompt=text, candidates=2, keep=2) for text in ("a cat", "a | b")
    )
    one, other = ({picture.seed: picture.facts["tokens"] for picture in pictures} for pictures in under)
    assert one == other


def test_guidance_needs_something_that_is_told() -> None:
    pipeline, book = tiny_transformer_generate(), tiny_tokenizer()
    pipeline = replace(pipeline, dalle=tiny_transformer("text", book), tokenizer=book)
    plain, guided = (drawn(pipeline, **UNPROMPTED, guidance=scale) for scale in (1.0, 9.0))
    assert tokens(plain) == tokens(guided)
    told = {"prompt": "a red heart", "prior": True, "temperature": 2.0, "candidates": 3, "keep": 3}
    plain, guided = (sorted(tokens(drawn(pipeline, **told, guidance=scale))) for scale in (1.0, 9.0))
    assert plain != guided


def test_a_half_picture_is_completed_on_a_wide_canvas() -> None:
    pipeline, half = tiny_transformer_generate(), Image.new("RGB", (64, 32), (200, 30, 40))
    given = {"image": picture_to_uri(half), "keep_rows": 2, "likeness": 0.0, "temperature": 2.0}
    pictures = drawn(pipeline, **UNPROMPTED, canvas="64x32", **given)
    assert all(picture.image.size == (64, 32) for picture in pictures)
    assert len({tuple(row[:16]) for row in tokens(pictures)}) == 1
    assert len({tuple(row[16:]) for row in tokens(pictures)}) == 3


def test_what_is_drawn_without_a_prompt_is_refined_only_when_asked() -> None:
    pipeline = replace(tiny_refining_generate(), dalle=tiny_transformer())
    assert pipeline.prepare(GenerateSettings(**UNPROMPTED)).finish == "drawn"
    plain, refined = (drawn(pipeline, **UNPROMPTED, finish=finish) for finish in ("drawn", "refined"))
    assert tokens(plain) == tokens(refined)
    assert plain[0].image.tobytes() != refined[0].image.tobytes()


def test_only_a_second_stage_does_without_a_prompt() -> None:
    with pytest.raises(BadInput, match="prompt is empty"):
        GenerateSettings(prompt="")
    with pytest.raises(BadInput, match="train transformer"):
        drawn(tiny_generate(), **UNPROMPTED)


# ----------------------------------------------------------------------------------------------- packs and their codecs


def save_codec(folder: Path, name: str) -> Path:
    """A codec of its own code book, 16 tokens of 64 kinds a side of 64 pixels."""
    torch.manual_seed(sorted(CODECS).index(name))
    config = CODECS[name](64, 4, (8,), 1, 64, 4)
    codec: nn.Module = (Dvae if name == "dvae" else Vqgan)(config)
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, codec, config.to_dict(), {}, "dvae" if name == "dvae" else "vqgan")
    return path


def save_drawer(path: Path, kind: str, codec: Path) -> None:
    """A DALL·E or a second stage that learned with a codec, as trainings note it."""
    torch.manual_seed(7)
    sizes: dict[str, Any] = {"grid": 16, "width": 16, "layer_count": 1, "head_count": 2}
    network: Any = Transformer(TransformerConfig(64, **sizes))
    if kind == "dalle":
        network = Dalle(DalleConfig(4096, 64, **sizes))
    codes = read_codes(codec)
    assert codes is not None
    facts = {"codec": {"file": codec.name, "codes": codes_hash(codes)}}
    save_checkpoint(path, network, network.config.to_dict(), facts, kind)


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's pack, mine, with a codec of each kind."""
    monkeypatch.setenv("ATELIER_PACKS", str(tmp_path / "packs"))
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path / "models"))
    folder, card = tmp_path / "packs" / "mine", PackCard("CC0-1.0", {})
    folder.mkdir(parents=True)
    (tmp_path / "models").mkdir()
    for name in CODECS:
        save_codec(folder, name)
        card = card.with_part(folder, name, "trained", {})
    card.write(folder)
    return folder


def add_drawer(pack: Path, name: str, codec: str) -> None:
    """Put a `dalle` or a `transformer` over a codec into the pack."""
    save_drawer(pack / f"{name}.safetensors", name, pack / f"{codec}.safetensors")
    note(pack, name, "trained")


def note(pack: Path, name: str, origin: str, over: str = "") -> None:
    card = PackCard.read(pack)
    assert card is not None
    card.with_part(pack, name, origin, {}, over=over).write(pack)


@pytest.mark.parametrize("codec", CODECS)
def test_a_dalle_draws_with_the_codec_that_it_learned(codec: str, pack: Path) -> None:
    save_drawer(pack / "dalle.safetensors", "dalle", pack / f"{codec}.safetensors")
    note(pack, "dalle", "trained", codec)
    *_, result = run(Studio("mine", "cpu").pipeline("generate"), GenerateSettings(candidates=1, batch=1))
    assert isinstance(result, Result)
    models = Studio("mine", "cpu").models("generate")
    assert [models[role]["name"] for role in ("dalle", "vqgan")] == ["mine-dalle", f"mine-{codec}"]


@pytest.mark.parametrize("codec", CODECS)
def test_a_second_stage_draws_with_the_codec_that_it_learned_with(
    codec: str, pack: Path, tmp_path: Path
) -> None:
    add_drawer(pack, "transformer", codec)
    studio = Studio("mine", "cpu")
    pipeline = studio.pipeline("generate")
    alone: dict[str, Any] = UNPROMPTED | {"candidates": 1, "batch": 1}
    *_, result = run(pipeline, GenerateSettings(**alone))
    assert isinstance(result, Result) and result.pictures[0].image.size == (64, 64)
    ((facts, record),) = write_pictures(tmp_path, "a", pipeline="generate", studio=studio, result=result)
    assert record.models["dalle"]["name"] == "mine-transformer"
    assert record.models["vqgan"]["name"] == f"mine-{codec}"
    again = replay(result.pictures[0].image, read_record(facts["path"], PIPELINES), studio)
    assert again.comparison.identical and again.record.models == record.models


@pytest.mark.parametrize("codec", CODECS)
def test_a_dalle_draws_with_its_own_codec_and_no_other(codec: str, pack: Path) -> None:
    add_drawer(pack, "dalle", codec)
    for given in CODECS:
        studio = Studio("tiny", "cpu", {"dalle": "mine-dalle", "vqgan": f"mine-{given}"})
        if given == codec:
            (picture,) = drawn(
                studio.pipeline("generate"), prompt="a cat", candidates=1, batch=1, finish="drawn"
            )
            assert picture.image.size == (64, 64)
        else:
            with pytest.raises(BadInput, match=f"--use vqgan=mine-{codec}"):
                studio.pipeline("generate")


def test_the_tiny_networks_and_their_copies_know_their_codecs(pack: Path) -> None:
    for use, words in (
        (
            {"vqgan": "mine-dvae"},
            "tiny-dalle learned with the codes of tiny-vqgan, not with those of mine-dvae",
        ),
        ({"codec": "mine-dvae"}, "tiny-prior draws latents of tiny-codec"),
    ):
        with pytest.raises(BadInput, match=words):
            Studio("tiny", "cpu", use).pipeline("generate")
    shutil.copy(PROJECT / "assets" / "tiny" / "dalle.safetensors", pack)
    note(pack, "dalle", "tiny")
    with pytest.raises(BadInput, match="mine-dalle learned with the codes of tiny-vqgan"):
        Studio("mine", "cpu").pipeline("generate")


def test_a_second_stage_whose_codec_learned_on_is_refused(pack: Path) -> None:
    add_drawer(pack, "transformer", "dvae")
    (pack / "dvae.safetensors").write_bytes((pack / "vqvae.safetensors").read_bytes())
    with pytest.raises(BadInput, match="no codec here has"):
        drawn(Studio("mine", "cpu").pipeline("generate"), **UNPROMPTED)


def test_a_second_stage_in_the_folder_of_models_serves_every_pack(pack: Path) -> None:
    assert second_stage("tiny") == second_stage("mine") == {}
    models = pack.parents[1] / "models"
    save_drawer(models / "transformer.safetensors", "transformer", save_codec(models, "vqvae"))
    assert second_stage("tiny") == {"dalle": "transformer", "vqgan": "vqvae"}
    add_drawer(pack, "transformer", "vqgan")
    assert second_stage("mine") == {"dalle": "mine-transformer", "vqgan": "mine-vqgan"}
