"""The DALL·E with semantic tokens: its bank of views, what it reads and is asked for, and its dropout."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.models.dalle_semantic.network import draw_dropout, semantic_tokens
from pipelines.training import token_bank
from pipelines.training.dalle_semantic import SemanticDalleTrainer
from pipelines.training.data.captions import COLOURS
from pipelines.training.data.compositing import composed
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import SIZE, Icon, names_a_side
from pipelines.training.loop import Budget, fit
from pipelines.training.token_bank import plan_views, residual_k_means, view_shares
from tests.support.training import trainer_for

WORDS = list(COLOURS)


@pytest.fixture(scope="module")
def untrained(data_file: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with a CLIP and a VQGAN of random weights."""
    for name in ("clip", "vqgan"):
        trainer = trainer_for(name, data_file, pack, tmp_path_factory.mktemp(name))
        trainer.export(pack / f"{name}.safetensors", {})
    return pack


def semantic_trainer(data_file: Path, pack: Path, folder: Path, **options: object) -> SemanticDalleTrainer:
    return cast(SemanticDalleTrainer, trainer_for("dalle-semantic", data_file, pack, folder, **options))


@pytest.mark.parametrize(
    "name", ["left facing fist", "person running facing right", "flag japan", "keycap 3"]
)
def test_what_a_mirror_makes_untrue_is_never_mirrored(name: str) -> None:
    views = plan_views([Icon("noto", name), Icon("noto", "cat face")], np.random.default_rng(0))
    count = token_bank.VIEWS
    assert not views.mirrored[:count].any() and views.mirrored[count + 1]
    assert views.movement[1].any() and not views.movement[count + 1].any()  # moved in place of mirrored


def test_names_with_a_side() -> None:
    assert names_a_side(Icon("noto", "hand", ("backhand index pointing right",)))
    assert names_a_side(Icon("noto", "fist", chinese="朝左的拳头"))
    assert not names_a_side(Icon("noto", "bright button")) and not names_a_side(Icon("noto", "upright piano"))


def test_the_first_view_is_the_icon_and_colours_are_what_is_seen(data_file: Path) -> None:
    emoji = Dataset(data_file)
    icons = [emoji.icons[k] for k in emoji.train]
    views = plan_views(icons, np.random.default_rng(1))
    count = token_bank.VIEWS
    assert not views.movement[::count].any() and not views.mirrored[::count].any()
    assert (views.colours.reshape(-1, count) > 0).sum(1).tolist() == [count // 4] * len(icons)
    table = np.array([colour for _, colour in COLOURS.values()])
    rgba = np.repeat(emoji.rgba[emoji.train], count, 0)
    pictures = composed(rgba, table[views.colours], views.movement)
    corners = pictures[:, :, 0, -1].add(1).mul(127.5).round().numpy()
    empty = rgba[:, :24, -24:, 3].max((1, 2)) == 0  # where no drawing can come by its movement
    assert empty.sum() > 40 and np.abs(corners - table[views.colours])[empty].max() <= 1
    shift, scale = np.abs(views.movement[:, 2:]) * SIZE / 2, np.exp(-views.movement[:, 1])
    assert shift.max() <= 8 and 0.8 <= scale.min() < 0.9 and scale.max() <= 1
    assert np.isclose(view_shares(count).sum(), 1) and np.isclose(view_shares(16).sum(), 1)


def test_captions_say_the_ground_that_a_view_has(data_file: Path, untrained: Path, tmp_path: Path) -> None:
    trainer = semantic_trainer(data_file, untrained, tmp_path, batch_size=64)
    bank, shown = trainer.bank, 0
    plain = {tuple(row) for row in bank.icons.image.tolist()}
    for step in range(3):
        batch = trainer.batch(step)
        for text, tokens, style in zip(
            batch["texts"], batch["image"].tolist(), batch["styles"].tolist(), strict=True
        ):
            places = [k for k, row in enumerate(bank.icons.image.tolist()) if row == tokens]
            if not places or tuple(tokens) not in plain:
                continue
            colours = {WORDS[k] for k in bank.colours[places].tolist()}
            told = [
                word for word in WORDS if f"on a {word} background" in text or COLOURS[word][0] + "背" in text
            ]
            assert (set(told) <= colours) if told else "white" in colours, (text, colours)
            styles = {trainer.emoji.icons[trainer.emoji.train[k // bank.views]].style for k in places}
            assert style == 0 or trainer.emoji.styles[style - 1] in styles
            shown += bool(told) and told != ["white"]
    assert shown > 3


def test_codes_of_the_second_level_refine_the_first() -> None:
    vectors = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    codes = residual_k_means(vectors, 2, 16, 3)
    assert codes.shape == (2, 16, 6) and torch.equal(codes, residual_k_means(vectors, 2, 16, 3))
    tokens = semantic_tokens(codes, vectors)
    left = [vectors, vectors - codes[0][tokens[:, 0]]]
    left.append(left[1] - codes[1][tokens[:, 1]])
    sizes = [float(one.square().sum(1).mean()) for one in left]
    assert sizes[2] < 0.8 * sizes[1] < 0.8**2 * sizes[0]


def test_some_tokens_are_read_as_near_ones_or_hidden(
    data_file: Path, untrained: Path, tmp_path: Path
) -> None:
    trainer = semantic_trainer(data_file, untrained, tmp_path, batch_size=64)
    batch = trainer.batch(0)
    image, read = batch["image"], batch["read_image"]
    hidden = read == trainer.dalle.config.image_vocabulary
    exchanged = (read != image) & ~hidden
    assert 0.03 < hidden.float().mean() < 0.07 and 0.03 < exchanged.float().mean() < 0.07
    near = trainer.near[image[exchanged]]
    assert (near == read[exchanged][:, None]).any(1).all()
    assert 0.05 < (batch["read_semantic"] != batch["semantic"]).float().mean() < 0.3


def test_the_bank_is_made_once_and_belongs_to_its_seed(
    data_file: Path, untrained: Path, tmp_path: Path
) -> None:
    first = semantic_trainer(data_file, untrained, tmp_path)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = semantic_trainer(data_file, untrained, tmp_path)
    assert file.stat().st_mtime_ns == stamp and torch.equal(first.bank.icons.image, again.bank.icons.image)
    assert torch.equal(first.dalle.semantic_codes, again.bank.semantic_codes)
    semantic_trainer(data_file, untrained, tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    def drawn(seed: int) -> torch.Tensor:
        dropout = draw_dropout((2, 2, 8, 9, 32), 0.1, torch.Generator().manual_seed(seed))
        return dropout(torch.ones(8, 5, 32), 1, 0)

    one = drawn(0)
    assert one.shape == (8, 5, 32) and abs(float(one.mean()) - 1) < 0.03
    assert 0.07 < float((one == 0).float().mean()) < 0.13
    assert torch.equal(one, drawn(0)) and not torch.equal(one, drawn(1))


def test_a_resumed_training_drops_what_the_uninterrupted_one_drops(
    data_file: Path, untrained: Path, tmp_path: Path
) -> None:
    for folder in (tmp_path / "whole", tmp_path / "resumed"):
        trainer = semantic_trainer(data_file, untrained, tmp_path / "bank", dropout=0.3)
        training = fit(trainer, folder, Budget(steps=3), save_every=-1.0)
        if folder.name == "resumed":
            for _ in range(3):
                next(training)
            torch.manual_seed(99)
            trainer = semantic_trainer(data_file, untrained, tmp_path / "bank", dropout=0.3)
            training = fit(trainer, folder, Budget(steps=3))
        for _ in training:
            pass
    whole, resumed = (load_file(tmp_path / one / "state.safetensors") for one in ("whole", "resumed"))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    dry = semantic_trainer(data_file, untrained, tmp_path / "bank")
    for _ in fit(dry, tmp_path / "dry", Budget(steps=3)):
        pass
    others = load_file(tmp_path / "dry" / "state.safetensors")
    assert not torch.equal(whole["network/dalle/row"], others["network/dalle/row"])


def test_near_codes_are_asked_for_until_the_end(data_file: Path, untrained: Path, tmp_path: Path) -> None:
    losses = []
    for progress in (0.0, 0.7, 0.85, 1.0):
        trainer = semantic_trainer(data_file, untrained, tmp_path)
        losses.append(float(trainer.update(trainer.batch(0), progress)["image"].detach()))
    assert losses[0] == losses[1] and len(set(losses[1:])) == 3
    trainer = semantic_trainer(data_file, untrained, tmp_path)
    batch = trainer.batch(0)
    with torch.no_grad():
        states = trainer.dalle(trainer._prefix(batch), batch["read_semantic"], batch["read_image"])
        logits = trainer.dalle.logits(states)[1]
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["image"].flatten())
    assert losses[3] == pytest.approx(float(plain), rel=1e-4)


def test_what_was_encoded_before_a_stop_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_bank, "KEPT_AT_ONCE", 2)
    batches = [torch.full((size, 3, 2, 2), float(size)) for size in (3, 1, 4, 2, 5)]
    seen: list[int] = []

    def encode(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(len(pictures))
        return pictures[:, 0, 0].long(), pictures[:, 0, 0] / 3

    first = token_bank.Encoding(encode, tmp_path / "parts")
    expected = [first(lambda batch=batch: batch) for batch in batches]
    with pytest.raises(KeyboardInterrupt):
        first(lambda: batches[0])
    seen.clear()
    second = token_bank.Encoding(encode, tmp_path / "parts")
    for batch, wanted in zip(batches, expected, strict=True):
        for one, other in zip(second(lambda batch=batch: batch), wanted, strict=True):
            assert torch.equal(one, other)
    assert seen == [5]  # of five batches two whole files were kept
    second.forget()
    assert not (tmp_path / "parts").exists()
