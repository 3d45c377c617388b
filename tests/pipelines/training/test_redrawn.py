"""Icons that a prior drew again, and CLIP's training on them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator

from pipelines.training.clip import redrawn as redrawn_module
from pipelines.training.clip.redrawn import RedrawnIcons
from pipelines.training.clip.trainer import ClipTrainer
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import concept
from tests.support.training import trainer_for


@pytest.fixture
def icons(data_file: Path, trained: Path, tmp_path: Path) -> RedrawnIcons:
    return RedrawnIcons.of(trained, Dataset(data_file), tmp_path, Accelerator(cpu=True).device)


def test_every_training_icon_is_drawn_again_once_and_kept(
    icons: RedrawnIcons, data_file: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emoji = Dataset(data_file)
    pictures = icons.decode(icons.latents)
    assert pictures.shape == (len(emoji.train), 3, 128, 128) and pictures.isfinite().all()
    assert pictures.abs().max() <= 1
    monkeypatch.setattr(redrawn_module, "_drawn_again", lambda *_: pytest.fail("they were drawn twice"))
    again = RedrawnIcons.of(trained, emoji, tmp_path, torch.device("cpu"))
    assert torch.equal(again.latents, icons.latents)


def test_some_pictures_of_a_batch_are_redrawn_and_say_what_they_show(
    icons: RedrawnIcons, data_file: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.training.clip.trainer.REDRAWN_SHARE", 0.5)
    trainer = cast(ClipTrainer, trainer_for("clip", data_file, trained, tmp_path, redrawn=icons))
    batch = trainer.batch(3)
    rows = batch["redrawn rows"].tolist()
    assert 0 < len(rows) < trainer.batch_size
    names = {concept(icon): icon for icon in trainer.emoji.icons}
    for row in rows:
        shown = next(name for name, k in trainer.index.items() if k == batch["concepts"][row])
        words = {*names[shown].name.split(), *names[shown].keywords, *names[shown].chinese}
        assert any(word in batch["captions"][row] for word in words)
    assert torch.equal(batch["redrawn latents"], trainer.batch(3)["redrawn latents"])
    assert all(value.isfinite() for value in trainer.update(batch, 0.5).values())
