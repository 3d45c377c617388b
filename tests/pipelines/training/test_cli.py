"""The command, the sizes, and the light packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.models.checkpoint import read_header
from pipelines.models.clip.network import Clip, ClipConfig
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.models.dalle_semantic.network import SemanticDalle, SemanticDalleConfig
from pipelines.models.judge.network import Judge, JudgeConfig
from pipelines.models.prior.network import Prior, PriorConfig
from pipelines.models.transformer.network import Transformer, TransformerConfig
from pipelines.models.unet.network import Unet, UnetConfig
from pipelines.models.vqgan.dvae import Dvae, DvaeConfig
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.training.cli import main
from pipelines.training.clip.trainer import ClipTrainer, CriticTrainer
from pipelines.training.dalle import DalleTrainer
from pipelines.training.dalle_semantic import SemanticDalleTrainer
from pipelines.training.dvae import DvaeTrainer
from pipelines.training.judge import JudgeTrainer
from pipelines.training.prior import PriorTrainer
from pipelines.training.transformer import TransformerTrainer
from pipelines.training.unet import UnetTrainer
from pipelines.training.vqgan import VqganTrainer
from tests.support.training import (
    SIZES,
    trainer_for,
)


def test_every_size_is_larger_than_the_one_before() -> None:
    networks = {
        ClipTrainer: lambda sizes: Clip(ClipConfig(4096, **sizes), None),  # type: ignore[arg-type]
        CriticTrainer: lambda sizes: Clip(ClipConfig(4096, **sizes), None),  # type: ignore[arg-type]
        VqganTrainer: lambda sizes: Vqgan(VqganConfig(**sizes)),
        DvaeTrainer: lambda sizes: Dvae(DvaeConfig(**sizes)),
        TransformerTrainer: lambda sizes: Transformer(TransformerConfig(1024, **sizes)),
        DalleTrainer: lambda sizes: Dalle(DalleConfig(4096, 2048, **sizes)),
        SemanticDalleTrainer: lambda sizes: SemanticDalle(SemanticDalleConfig(2048, **sizes), None),  # type: ignore[arg-type]
        UnetTrainer: lambda sizes: Unet(UnetConfig(**sizes)),
        PriorTrainer: lambda sizes: Prior(PriorConfig(**sizes)),
        JudgeTrainer: lambda sizes: Judge(JudgeConfig(("cat",) * 2_900, **sizes)),
    }
    recipe = {"batch_size", "rate", "begun_rate", "matrix_rate", "imagenet"}
    for kind, network in networks.items():
        assert list(kind.SIZES) == [
            "tiny",
            "small",
            "base",
            *(["large"] if issubclass(kind, DalleTrainer) else []),
        ]
        counts = []
        for sizes in kind.SIZES.values():
            with torch.device("meta"):
                made = network({key: value for key, value in sizes.items() if key not in recipe})
            counts.append(sum(p.numel() for p in made.parameters()))
        assert counts[0] < 12e6 and counts[0] * 1.8 < counts[1] < 0.6 * counts[2], (kind, counts)
        assert counts[2] <= counts[-1], (kind, counts)


def test_the_command_trains_and_tells_the_whole_story(
    data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(UnetTrainer.SIZES, "small", {**SIZES["unet"], "image_size": 32, "rate": 1e-3})
    monkeypatch.setattr(UnetTrainer, "sheet_steps", 2)
    monkeypatch.setattr(UnetTrainer, "trip_steps", 2)
    places = ["--data", str(data_file), "--state", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    arguments = ["unet", "--size", "small", "--steps", "2", "--batch", "3", "--precision", "no", *places]
    assert main(arguments) == 0
    assert "PSNR" in capsys.readouterr().err
    config, facts = read_header(tmp_path / "out" / "unet.safetensors")
    assert config["widths"] == [8, 16] and facts["size"] == "small"
    assert facts["steps"] == 2 and facts["samples"] == 6 and facts["parameters"] > 1000
    assert facts["precision"] == "no" and set(facts["figures"]) == {"loss", "round trip PSNR"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["unet", "--data", "nowhere.safetensors"], "nowhere.safetensors is not there"),
        (["unet", "--size", "huge"], "invalid choice: 'huge'"),
        (
            ["unet", "--start", "x.safetensors"],
            "--start is for clip, critic, vqgan, codec, dalle, prior and matting",
        ),
        (["dalle", "--steps", "1"], "the vocabulary"),
        (["unet", "--codec", "dvae"], "--codec is for dalle, transformer; unet has none"),
        (["dalle", "--chunk", "4"], "--chunk is for clip, critic; dalle has none"),
    ],
)
def test_wrong_words_are_one_sentence_and_exit_code_2(
    arguments: list[str], words: str, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--data" not in arguments:
        arguments = [*arguments, "--data", str(data_file)]
    places = ["--precision", "no", "--out", str(tmp_path / "out"), "--state", str(tmp_path)]
    assert main([*arguments, *places]) == 2
    said = capsys.readouterr().err
    assert said.startswith("atelier: ") and words in said and said.strip().count("\n") == 0


def test_nothing_but_the_light_packages_is_needed(data_file: Path, trained: Path, tmp_path: Path) -> None:
    trainer_for("dalle", data_file, trained, tmp_path / "dalle")  # keeps the tokens, which need the VQGAN
    code = f"""
import importlib, sys
for name in ("gradio", "diffusers", "transformers", "peft", "torchvision", "resvg_py"):
    sys.modules[name] = None
from pathlib import Path
for file in Path("pipelines/training").glob("*.py"):
    importlib.import_module(f"pipelines.training.{{file.stem}}")
from pipelines.training.loop import Budget, fit
from tests.support.training import trainer_for
for name in ("clip", "dalle"):
    folder = Path({str(tmp_path)!r}) / name
    trainer = trainer_for(name, Path({str(data_file)!r}), Path({str(trained)!r}), folder)
    steps = list(fit(trainer, folder, Budget(steps=1)))
    assert len(steps) == 1 and trainer.evaluate(), name
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "clip" / "sheet.png").exists()
