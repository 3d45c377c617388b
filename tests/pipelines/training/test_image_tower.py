"""More training for the image tower of CLIP alone."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from pipelines.models.checkpoint import read_header
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.image import ImageTrainer
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.loop import Budget, fit


def test_more_training_for_pictures_keeps_every_text(data_file: Path, trained: Path, tmp_path: Path) -> None:
    emoji, book = Dataset(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")
    texts, pictures = ["red circle", "红色"], on_background(emoji.rgba[emoji.train])

    def trainer_of(pack: Path) -> ImageTrainer:
        return ImageTrainer(Accelerator(cpu=True), emoji, book, tmp_path, pack=pack, batch_size=8)

    trainer = trainer_of(trained)
    before = encode_pictures(trainer.clip, pictures), trainer.clip.encode_text(texts)
    steps = [step.metrics["contrast"] for step in fit(trainer, tmp_path, Budget(steps=40))]
    assert sum(steps[-10:]) < 0.9 * sum(steps[:10])
    trainer.clip.forget_texts()
    assert torch.equal(before[1], trainer.clip.encode_text(texts))
    assert not torch.allclose(before[0], encode_pictures(trainer.clip, pictures), atol=1e-3)
    trainer.export(tmp_path / "clip.safetensors", {"figures": {"R@1": 0.5}, "steps": 40})
    for folder, rounds in ((tmp_path, 1), (tmp_path / "new", 2)):  # goes on with this training, then another
        folder.mkdir(exist_ok=True)
        trainer = trainer_of(tmp_path)
        assert len(list(fit(trainer, folder, Budget(steps=42)))) == (2 if rounds == 1 else 42)
        trainer.export(tmp_path / "clip.safetensors", {"figures": {"R@1": 0.6}, "steps": 42})
        _, facts = read_header(tmp_path / "clip.safetensors")
        assert facts["figures"] == {"R@1": 0.6} and facts["image"]["steps"] == 42
        earlier = facts["image"]["before"]
        assert (earlier is None) if rounds == 1 else (earlier["steps"] == 42 and earlier["before"] is None)
