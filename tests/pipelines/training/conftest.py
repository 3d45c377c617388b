"""A data file, a pack, and networks that were trained for a few steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.training import own
from pipelines.training.clip import teacher
from pipelines.training.clip.trainer import ClipTrainer, CriticTrainer
from pipelines.training.dalle import DalleTrainer
from pipelines.training.loop import Budget, fit
from pipelines.training.prior import PriorTrainer
from pipelines.training.vqgan import CodecTrainer, VqganTrainer
from tests.support.training import (
    KINDS,
    PICTURES,
    SIZES,
    trainer_for,
    write_data,
    write_vocabulary,
)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "emoji.safetensors"
    write_data(path)
    return path


@pytest.fixture(scope="module")
def pack(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vocabulary, where trainings leave their weights."""
    folder = tmp_path_factory.mktemp("pack")
    write_vocabulary(data_file, folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def no_teacher_and_few_scenes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "teacher_available", lambda: False)
        patch.setattr("pipelines.training.dalle.SCENE_COUNT", 16)
        patch.setattr("pipelines.training.dalle.SHEET_PROMPTS", ["red circle"])
        patch.setattr("pipelines.training.token_bank.SCENE_COUNT", 16)
        patch.setattr("pipelines.training.token_bank.VIEWS", 8)
        patch.setattr("pipelines.training.dalle_semantic.SHEET_PROMPTS", ["red circle"])
        patch.setattr("pipelines.training.prior.SCENE_COUNT", 16)
        patch.setattr("pipelines.training.matting.BANK", 8)
        patch.setattr("pipelines.training.prior.SHEET_PROMPTS", ["red circle"])
        yield


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the trained pack lies for all files of this process."""
    return tmp_path_factory.mktemp("kept") / "pack"


@pytest.fixture(scope="module")
def trained(data_file: Path, pack: Path, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose networks were trained for a few steps and exported: a file's own copy of what the first one made."""
    if not kept.exists():
        making = tmp_path_factory.mktemp("making")
        write_vocabulary(data_file, making)
        for name in KINDS:
            train(name, data_file, making, tmp_path_factory.mktemp(name))
        making.rename(kept)
    shutil.copytree(kept, pack, dirs_exist_ok=True)
    torch.manual_seed(0)  # what follows does not depend on who trained
    return pack


def train(name: str, data_file: Path, pack: Path, folder: Path) -> None:
    """Train a network for a few steps and export it into the pack."""
    trainer = trainer_for(name, data_file, pack, folder)
    for _ in fit(trainer, folder, Budget(steps=3)):
        pass
    figures = trainer.evaluate()
    assert all(np.isfinite(value) for value in figures.values())
    trainer.export(pack / (trainer.file or f"{name}.safetensors"), {"figures": figures})
    for picture in ("curves.png",) if name == "judge" else ("curves.png", "sheet.png"):
        assert (folder / picture).read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of plain colours with a Chinese and an English caption, two of them cut out."""
    place = tmp_path_factory.mktemp("photographs") / "my house"
    place.mkdir()
    for k in range(PICTURES):
        picture = Image.new("RGBA" if k < 2 else "RGB", (150, 130), (20 * k, 255 - 20 * k, 90))
        if k < 2:
            picture.paste((0, 0, 0, 0), (0, 0, 60, 130))
        picture.save(place / f"{k}.png")
        (place / f"{k}.txt").write_text(f"the house number {k}\n第{k}座房子", "utf-8")
    return place


@pytest.fixture
def places(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packs and states, with a tiny pack of tiny sizes."""
    monkeypatch.setattr(own, "TINY", trained)
    monkeypatch.setenv("ATELIER_PACKS", str(tmp_path / "packs"))
    for kind in (ClipTrainer, CriticTrainer, VqganTrainer, CodecTrainer, PriorTrainer, DalleTrainer):
        sizes = {**kind.SIZES["tiny"], **SIZES[kind.name]}
        monkeypatch.setitem(kind.SIZES, "tiny", sizes | ({"imagenet": None} if "imagenet" in sizes else {}))
    return tmp_path
