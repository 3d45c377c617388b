"""Data, captions, the fit loop: on a handful of icons drawn for the purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.numpy import save_file

from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.clip import Clip, ClipConfig
from pipelines.models.dalle import Dalle, DalleConfig
from pipelines.training import clip as clip_training
from pipelines.training.clip import ClipTrainer, caption_words, retrieval, train_tokenizer
from pipelines.training.dalle import DalleTrainer
from pipelines.training.data import Emoji, Icon, Scenes, caption, on_background, read_icon_sets, render
from pipelines.training.fit import Budget, Trainer, fit, learning_rate
from pipelines.training.vqgan import VqganTrainer

SHAPES = {
    "red circle": ("红圆", '<circle cx="8" cy="8" r="7" fill="#d22"/>'),
    "blue square": ("蓝方块", '<rect x="2" y="2" width="12" height="12" fill="#22d"/>'),
    "green triangle": ("绿三角", '<path d="M8 1 15 15H1z" fill="#2a2"/>'),
    "yellow bar": ("黄条", '<rect x="1" y="6" width="14" height="4" fill="#dd2"/>'),
}
STYLES = ("noto", "twemoji", "fluent-emoji", "emojione")


def svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>'


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shapes in four styles, written as `build` writes them."""
    blobs, records = [], []
    for k, style in enumerate(STYLES):
        for name, (chinese, body) in SHAPES.items():
            blob = render(svg(f'<g transform="translate({k / 4} 0)">{body}</g>'))
            assert blob is not None
            blobs.append(blob)
            records.append([style, name, [name + " shape"], chinese, name.split(), [chinese[:1]]])
    path = tmp_path_factory.mktemp("data") / "emoji.safetensors"
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }
    save_file(tensors, path, {"icons": json.dumps(records), "phrases": "a round thing\na flat thing\ncorner"})
    return path


@pytest.fixture(scope="module")
def pack(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vocabulary, where trainings leave their weights."""
    folder = tmp_path_factory.mktemp("pack")
    emoji = Emoji(data_file, size=64)
    (folder / "tokenizer.json").write_text(train_tokenizer(emoji).book.to_str(), "utf-8")
    (folder / "words.txt").write_text("\n".join(caption_words(emoji)), "utf-8")
    return folder


def test_rendering_gives_square_rgba_and_refuses_emptiness() -> None:
    assert render(svg("")) is None
    wide = render(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 16"><rect width="32" height="16"/></svg>'
    )
    assert wide is not None and wide[8:12] == b"WEBP"


def test_reading_the_file_keeps_styles_apart(data_file: Path) -> None:
    emoji = Emoji(data_file)
    assert emoji.rgba.shape == (16, 128, 128, 4)
    assert {emoji.icons[k].style for k in emoji.validation} == {"emojione"}
    assert len(emoji.train) == 12
    small = Emoji(data_file, size=32)
    assert small.rgba.shape == (16, 32, 32, 4)
    assert abs(on_background(small.rgba).mean() - on_background(emoji.rgba).mean()) < 1.5


def test_icon_sets_lose_skin_tones_and_find_names(tmp_path: Path) -> None:
    def write(path: str, value: object) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(value))

    from pipelines.training.data import ICON_SETS

    entry = {"hexcode": "1F44B", "label": "waving hand", "tags": ["hello"]}
    write("emojibase-data/en/data.json", [entry])
    write("emojibase-data/zh/data.json", [{"hexcode": "1F44B", "label": "挥手", "tags": ["手"]}])
    for book in ("joypixels", "iamcal", "emojibase"):
        write(f"emojibase-data/en/shortcodes/{book}.json", {"1F44B": ["wavinghand"]})
    icons = {
        "waving-hand": {"body": ""},
        "waving-hand-light-skin-tone": {"body": ""},
        "waving-hand-medium-dark": {"body": ""},
        "waving-hand-light": {"body": ""},
        "police-car-light": {"body": ""},
    }
    for name in ICON_SETS:
        write(f"@iconify-json/{name}/icons.json", {"width": 16, "height": 16, "icons": icons})
    found, drawings = read_icon_sets(tmp_path)
    assert [icon.name for icon in found[:2]] == ["waving hand", "police car light"]
    assert len(found) == len(drawings) == 2 * len(ICON_SETS)
    assert found[0].chinese == "挥手" and found[0].keywords == ("hello",)


def test_captions_speak_of_what_is_drawn() -> None:
    icon = Icon("fluent-emoji", "red heart", ("heart",), "红心", ("love",), ("爱",))
    rng = np.random.default_rng(0)
    english = {caption(icon, rng, "light blue", chinese=False) for _ in range(200)}
    assert all("light blue background" in text for text in english)
    assert any(text.startswith("a 3d") for text in english)
    assert all("浅蓝色" in caption(icon, rng, "light blue", chinese=True) for _ in range(20))
    assert any(caption(icon, rng) == "red heart" for _ in range(50))


def test_scenes_repeat_with_their_seed(data_file: Path) -> None:
    emoji = Emoji(data_file, size=64)
    rounds = []
    for _ in range(2):
        scenes = iter(Scenes(emoji, emoji.train, seed=4, plain=0.2, coloured=0.2))
        rounds.append([next(scenes) for _ in range(40)])
    for (picture, text, k), (same, words, index) in zip(*rounds, strict=True):
        assert text == words and k == index and np.array_equal(picture, same)
    texts = " | ".join(text for _, text, _ in rounds[0])
    assert " left of " in texts or " right of " in texts
    assert "two " in texts or "three " in texts or "four " in texts


def trainer_for(name: str, data_file: Path, pack: Path, folder: Path) -> Trainer:
    """A fresh trainer of each kind, small enough for a test."""
    accelerator = Accelerator(cpu=True)
    if name == "clip":
        from pipelines.models.tokenizer import Tokenizer

        book = Tokenizer.load(pack / "tokenizer.json")
        sizes = {"widths": (8, 16), "block_counts": (1, 1), "text_width": 16, "text_layer_count": 1}
        emoji = Emoji(data_file, size=64)
        return ClipTrainer(accelerator, emoji, book, folder, batch_size=8, **sizes, embedding_size=16)
    emoji = Emoji(data_file)
    if name == "vqgan":
        return VqganTrainer(
            accelerator, emoji, pack, batch_size=4, widths=(8, 16), code_count=32, code_size=4
        )
    return DalleTrainer(accelerator, emoji, pack, folder, batch_size=4, width=16, layer_count=2, head_count=2)


@pytest.fixture(scope="module")
def trained(data_file: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose three networks were trained for a few steps and exported."""
    patch = pytest.MonkeyPatch()
    patch.setattr(clip_training, "teacher_available", lambda: False)
    patch.setattr("pipelines.training.dalle.SCENE_COUNT", 64)
    for name in ("clip", "vqgan", "dalle"):
        folder = tmp_path_factory.mktemp(name)
        trainer = trainer_for(name, data_file, pack, folder)
        for _ in fit(trainer, folder, Budget(steps=3)):
            pass
        figures = trainer.evaluate()
        assert all(np.isfinite(value) for value in figures.values())
        trainer.export(pack / f"{name}.safetensors", {"figures": figures})
        for picture in ("curves.png", "sheet.png"):
            assert (folder / picture).read_bytes()[:4] == b"\x89PNG"
    patch.undo()
    return pack


def test_more_training_for_the_decoder_keeps_every_token(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    from pipelines.models.vqgan import Vqgan, VqganConfig
    from pipelines.training.vqgan import DecoderTrainer

    trainer = DecoderTrainer(Accelerator(cpu=True), Emoji(data_file), trained, batch_size=4)
    pictures = trainer._validation()
    before = trainer.networks["vqgan"].tokens_of(pictures)
    losses = [step.metrics["pixel"] for step in fit(trainer, tmp_path, Budget(steps=12))]
    assert losses[-1] < losses[0]
    trainer.export(tmp_path / "vqgan.safetensors", {"figures": {"PSNR": 1.0}, "steps": 12})
    config, facts = read_header(tmp_path / "vqgan.safetensors")
    again = Vqgan(VqganConfig.from_dict(config))
    load_weights(tmp_path / "vqgan.safetensors", again)
    assert torch.equal(before, again.tokens_of(pictures))
    assert facts["decoder"]["steps"] == 12


def test_what_was_trained_can_be_loaded(trained: Path) -> None:
    from pipelines.models.tokenizer import Tokenizer

    book = Tokenizer.load(trained / "tokenizer.json")
    config, facts = read_header(trained / "clip.safetensors")
    load_weights(trained / "clip.safetensors", Clip(ClipConfig.from_dict(config), book))
    config, _ = read_header(trained / "dalle.safetensors")
    load_weights(trained / "dalle.safetensors", Dalle(DalleConfig.from_dict(config)))
    assert set(facts["figures"]) == {"R@1", "R@5", "R@1_chinese", "R@5_chinese"}


@pytest.mark.parametrize("name", ["clip", "vqgan", "dalle"])
def test_a_resumed_training_repeats_the_uninterrupted_one(
    name: str, data_file: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_training, "teacher_available", lambda: False)
    monkeypatch.setattr("pipelines.training.dalle.SCENE_COUNT", 64)
    weights = []
    for stop_after in (None, 2):
        folder = tmp_path / str(stop_after)
        trainer = trainer_for(name, data_file, trained, folder)
        training = fit(trainer, folder, Budget(steps=4), save_every=-1.0)
        for _ in range(stop_after or 0):
            next(training)
        if (
            stop_after
        ):  # the state of the second step was saved when the third was asked for, and the process dies
            next(training)
            trainer = trainer_for(name, data_file, trained, folder)
            training = fit(trainer, folder, Budget(steps=4))
        for _ in training:
            pass
        weights.append(trainer.networks[name].state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


def test_training_teaches(
    data_file: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty steps are enough to tell four shapes apart in a style that was never shown."""
    monkeypatch.setattr(clip_training, "teacher_available", lambda: False)
    trainer = trainer_for("clip", data_file, pack, tmp_path)
    for group in trainer.optimizers["all"].param_groups:
        group["lr"] = 5e-3
    losses = [step.metrics["contrast"] for step in fit(trainer, tmp_path, Budget(steps=30))]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert retrieval(trainer.networks["clip"], Emoji(data_file, size=64))["R@1"] >= 0.5


def test_learning_rate_rises_then_falls() -> None:
    assert learning_rate(0.0) < 0.1
    assert learning_rate(0.02) == pytest.approx(1.0)
    assert learning_rate(0.5) < learning_rate(0.2)
    assert learning_rate(1.0) == pytest.approx(0.02)
