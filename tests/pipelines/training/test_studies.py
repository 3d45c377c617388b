"""The studies: they go on where they stopped, and compare like with like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from pipelines.models.clip.network import ClipConfig
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.data.dataset import Dataset
from pipelines.training.frozen import load_codec
from pipelines.training.loop import Budget, fit
from pipelines.training.studies import cli
from pipelines.training.studies.clip_efficiency import (
    VARIANTS,
    EfficiencyTrainer,
    study_efficiency,
    times_fewer,
)
from pipelines.training.studies.codecs import study_codecs
from pipelines.training.studies.plot import PAPER, plot_lines
from pipelines.training.studies.predicting import LanguageModel
from pipelines.training.studies.study import Study
from tests.support.training import SIZES


@pytest.fixture(scope="module")
def studied(data_file: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(
        tmp_path_factory.mktemp("codecs"), data_file, trained, 1.0, steps=3, sizes={**SIZES["vqgan"]}
    )
    study.write(study_codecs(study))
    return study


def test_three_codecs_of_as_many_tokens_are_measured_alike(studied: Study) -> None:
    figures = json.loads((studied.folder / "figures.json").read_text())
    assert list(figures) == ["original", "vqvae", "dvae", "vqgan"]
    for name in ("vqvae", "dvae", "vqgan"):
        assert {"PSNR", "SSIM", "codes used", "R@1"} <= set(figures[name])
        codec = load_codec(studied.folder / f"{name}.safetensors", torch.device("cpu"))
        assert codec.codes.shape == (32, 4) and codec.encode_tokens(torch.zeros(1, 3, 128, 128)).numel() == 16
    with Image.open(studied.folder / "sheet.png") as sheet:
        assert sheet.height == 4 * 130 and sheet.width > 4 * 130


def test_a_study_that_is_done_trains_no_more(studied: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_step(*_: object) -> None:
        raise AssertionError("it trains again")

    for trainer in ("vqvae.VqvaeTrainer", "dvae.DvaeTrainer", "vqgan.VqganTrainer"):
        monkeypatch.setattr(f"pipelines.training.{trainer}.update", no_step)
    before = json.loads((studied.folder / "figures.json").read_text())
    assert study_codecs(studied) == before


def test_the_command_tells_figures_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = {"codecs": lambda study: {"vqgan": {"PSNR": study.minutes}}}
    assert cli.main(["codecs", "--minutes", "7", "--out", str(tmp_path), "--json"], studies) == 0
    assert json.loads(capsys.readouterr().out) == {"vqgan": {"PSNR": 7.0}}
    assert json.loads((tmp_path / "codecs" / "figures.json").read_text()) == {"vqgan": {"PSNR": 7.0}}
    assert cli.main(["codecs", "--data", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "is not there" in capsys.readouterr().err


def test_a_plot_has_a_line_of_its_own_colour_for_each_name() -> None:
    lines = {"a": [(10.0, 0.1), (100.0, 0.5)], "b": [(10.0, 0.4), (1000.0, 0.9)]}
    colours = {colour for _, colour in plot_lines(lines, "pictures", "accuracy").getcolors(1 << 20) or ()}
    assert {(217, 67, 47), (46, 110, 214)} <= colours and PAPER == "#FAF8F4"


SMALL: dict[str, Any] = {"batch_size": 8, "widths": (8, 16), "block_counts": (1, 1), "text_width": 16}
SMALL |= {"text_layer_count": 1, "text_head_count": 2, "embedding_size": 16, "rate": 3e-3}


def test_four_ways_to_learn_from_texts_are_compared_at_equal_pictures(
    data_file: Path, pack: Path, tmp_path: Path
) -> None:
    study = Study(tmp_path, data_file, pack, 1.0, steps=4, sizes=SMALL)
    figures = study_efficiency(study)
    assert {figures[name]["pictures"] for name in VARIANTS} == {32}
    assert all(0 <= figures[name]["zero-shot"] <= 1 for name in VARIANTS)
    assert [values["in the paper"] for values in figures.values() if "in the paper" in values] == [3, 4]
    assert (tmp_path / "efficiency.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_way_learns_to_name_a_style_that_it_never_saw(
    variant: str, data_file: Path, pack: Path, tmp_path: Path
) -> None:
    book = Tokenizer.load(pack / "tokenizer.json")
    emoji = Dataset(data_file, size=64)
    trainer = EfficiencyTrainer(Accelerator(cpu=True), emoji, book, variant, **{**SMALL, "rate": 1e-2})
    for _ in fit(trainer, tmp_path, Budget(steps=30)):
        pass
    assert trainer.evaluate()["zero-shot"] >= 0.5  # by chance 0.25


def test_a_language_model_is_a_distribution_over_texts() -> None:
    """The likelihoods of all texts of at most one token, and that of a second one, make 1."""
    torch.manual_seed(0)
    sizes = {key: value for key, value in SMALL.items() if key not in ("batch_size", "rate")}
    config = ClipConfig(3, image_size=16, small_size=16, context_length=4, **sizes)
    model = LanguageModel(config)
    vector = torch.randn(1, 16)
    texts = torch.tensor([[0, 0], [1, 0], [2, 0]])
    ended = model.likelihoods(vector.expand(3, -1), texts).exp().sum()
    words, _ = model._words(vector.expand(9, -1), torch.cartesian_prod(torch.arange(3), torch.arange(3)))
    on = words.sum(1).exp()[[4, 5, 7, 8]].sum()
    assert (ended + on).item() == pytest.approx(1, abs=1e-5)


def test_how_many_times_fewer_pictures() -> None:
    slow = [(100.0, 0.1), (1000.0, 0.2), (10_000.0, 0.3)]
    fast = [(x / 4, y) for x, y in slow]
    assert times_fewer(fast, slow) == 4.0 and times_fewer(slow, slow) == 1.0
    assert times_fewer([(10.0, 0.0), (1000.0, 0.4)], [(1000.0, 0.2)]) == 10.0
