"""Canvases larger than a training picture, by the second stage whose window slides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Result, Step
from pipelines.errors import BadInput
from pipelines.generate.pipeline import Generate
from pipelines.generate.settings import GenerateSettings
from pipelines.io.images import picture_to_uri
from pipelines.models.checkpoint import save_checkpoint
from pipelines.models.transformer.network import Transformer, TransformerConfig
from pipelines.models.vqgan.dvae import Dvae, DvaeConfig
from pipelines.optimize.pipeline import Optimize
from pipelines.studio import Studio
from tests.support.tiny import tiny_generate, tiny_refining_generate, tiny_transformer_generate


def drawn(pipeline: Generate, **settings: Any) -> tuple[list[Step], list[Picture]]:
    asked = GenerateSettings(prompt="a red heart", **{"candidates": 3, "keep": 3, "seed": 5, **settings})
    *steps, result = run(pipeline, asked)
    assert isinstance(result, Result)
    return [step for step in steps if isinstance(step, Step)], result.pictures


def test_a_canvas_is_drawn_row_by_row_and_a_candidate_alone_is_the_same() -> None:
    pipeline = tiny_transformer_generate()
    steps, pictures = drawn(pipeline, canvas="64x40")
    assert all(picture.image.size == (64, 40) for picture in pictures)
    assert [step.total for step in steps if step.stage == "draw"] == [5] * 5
    assert len({picture.image.tobytes() for picture in pictures}) == 3
    last = pictures[-1]
    _, alone = drawn(pipeline, canvas="64x40", candidates=1, seed=last.seed)
    assert alone[0].image.tobytes() == last.image.tobytes()


def test_its_own_size_as_a_canvas_changes_no_pixel() -> None:
    for pipeline in (tiny_transformer_generate(), tiny_generate()):
        own, named = (drawn(pipeline, canvas=canvas)[1] for canvas in ("", "32x32"))
        assert [picture.image.tobytes() for picture in own] == [picture.image.tobytes() for picture in named]


def test_the_upper_half_of_a_picture_is_completed() -> None:
    pipeline, colours = tiny_transformer_generate(), Image.new("RGB", (64, 32), (200, 30, 40))
    _, pictures = drawn(
        pipeline, canvas="64x32", image=picture_to_uri(colours), keep_rows=2, likeness=0.0, temperature=2.0
    )
    kept = pipeline.vqgan.encode_tokens(
        torch.tensor([200, 30, 40]).view(1, 3, 1, 1).expand(1, 3, 32, 64) / 127.5 - 1
    )
    rows = [torch.tensor(picture.facts["tokens"]).view(4, 8) for picture in pictures]
    assert all(torch.equal(row[:2], kept[0, :2]) for row in rows)
    assert len({tuple(row[2:].flatten().tolist()) for row in rows}) == 3


@pytest.mark.parametrize(
    ("make", "canvas", "words"),
    [
        (tiny_generate, "64x32", "32 x 32 only"),
        (tiny_transformer_generate, "64x16", "smaller than a picture"),
        (tiny_transformer_generate, "64x33", "33"),
    ],
)
def test_a_canvas_that_cannot_be_is_refused(make: Any, canvas: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        drawn(make(), canvas=canvas)
    with pytest.raises(BadInput):
        GenerateSettings(prompt="a red heart", canvas="wide")


def test_a_canvas_is_not_refined_unless_it_is_asked_for() -> None:
    pipeline = tiny_refining_generate()
    assert pipeline.prepare(GenerateSettings(prompt="a red heart")).finish == "refined"
    assert pipeline.prepare(GenerateSettings(prompt="a red heart", canvas="32x32")).finish == "drawn"


def test_a_second_stage_of_ones_own_is_a_part_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path))
    torch.manual_seed(0)
    network = Transformer(TransformerConfig(1024, width=32, layer_count=1, head_count=2))
    save_checkpoint(tmp_path / "mine.safetensors", network, network.config.to_dict(), {}, "transformer")
    pipeline = Studio("tiny", "cpu", {"dalle": "mine"}).pipeline("generate")
    assert isinstance(pipeline, Generate)
    _, pictures = drawn(pipeline, candidates=1, keep=1, canvas="256x128", batch=1)
    assert pictures[0].image.size == (256, 128)


def test_a_codec_of_ones_own_is_a_part_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path))
    torch.manual_seed(0)
    codec = Dvae(DvaeConfig(128, 4, (8, 16, 16), 1, 1024, 4))
    save_checkpoint(tmp_path / "mine.safetensors", codec, codec.config.to_dict(), {}, "dvae")
    studio = Studio("tiny", "cpu", {"vqgan": "mine"})
    optimize = studio.pipeline("optimize")
    assert isinstance(optimize, Optimize) and isinstance(optimize.vqgan, Dvae)
