"""Data and captions, on a handful of icons drawn for the purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from pipelines.errors import BadInput
from pipelines.training.data.captions import caption
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import Icon, read_icon_sets, render
from pipelines.training.data.larger import SIDES, read_larger, write_larger
from pipelines.training.data.outside import OUTSIDE_EDITS, read_outside, write_outside
from pipelines.training.data.scenes import Scenes
from tests.support.training import (
    svg,
)


def test_rendering_gives_square_rgba_and_refuses_emptiness() -> None:
    assert render(svg("")) is None
    wide = render(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 16"><rect width="32" height="16"/></svg>'
    )
    assert wide is not None and wide[8:12] == b"WEBP"


def test_reading_the_file_keeps_styles_apart(data_file: Path) -> None:
    emoji = Dataset(data_file)
    assert emoji.rgba.shape == (16, 128, 128, 4)
    assert {emoji.icons[k].style for k in emoji.validation} == {"emojione"}
    assert len(emoji.train) == 12
    small = Dataset(data_file, size=32)
    assert small.rgba.shape == (16, 32, 32, 4)
    assert abs(on_background(small.rgba).mean() - on_background(emoji.rgba).mean()) < 1.5


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", save({"a": np.zeros(1)}, {"icons": "["})])
def test_a_file_of_something_else_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(data)
    with pytest.raises(BadInput, match=r"photo\.jpg is no data file; give one"):
        Dataset(tmp_path / "photo.jpg")


def test_icon_sets_lose_skin_tones_and_find_names(tmp_path: Path) -> None:
    def write(path: str, value: object) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(value))

    from pipelines.training.data.icons import ICON_SETS

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


def test_larger_drawings_come_back_at_every_size(tmp_path: Path) -> None:
    """An empty drawing has no row; another file is named."""
    square = svg('<rect x="4" y="4" width="8" height="8"/>')
    assert write_larger(tmp_path / "larger.safetensors", [square, svg(""), square]) == 2
    first, second = read_larger(tmp_path / "larger.safetensors")
    assert [first[side].size for side in SIDES] == [(side, side) for side in SIDES]
    covered = [np.asarray(second[side])[..., 3].mean() / 255 for side in SIDES]
    assert covered == pytest.approx([0.25] * len(SIDES))
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BadInput, match=r"photo\.jpg is no data file"):
        read_larger(tmp_path / "photo.jpg")


def test_pictures_of_another_style_come_back_by_name(tmp_path: Path) -> None:
    names = {source for source, _ in OUTSIDE_EDITS}
    drawings = {name.replace(" ", "-"): svg('<rect x="4" y="4" width="8" height="8"/>') for name in names}
    path = tmp_path / "outside.safetensors"
    assert write_outside(path, drawings) == len(names)
    pictures = read_outside(path)
    assert set(pictures) == names
    pixels = np.asarray(pictures["red apple"])
    assert (pixels[64, 64] == 0).all() and (pixels[0, 0] == 255).all()  # on white
    with pytest.raises(BadInput, match="--outside"):
        read_outside(tmp_path / "none.safetensors")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BadInput, match=r"photo\.jpg is no data file"):
        read_outside(tmp_path / "photo.jpg")


def test_scenes_show_what_their_words_say(data_file: Path) -> None:
    """Small things lie on the side that is told, beside a larger one; four are in one row or in two."""
    emoji = Dataset(data_file, size=64)
    scenes, seen = iter(Scenes(emoji, emoji.train, 3, plain=0.0, coloured=0.0)), set()
    for _ in range(400):
        picture, text, _ = next(scenes)
        if "background" in text or "背景" in text:
            continue
        paper = (picture == 255).all(-1)
        half = [~paper[:, :32], ~paper[:, 32:], ~paper[:32], ~paper[32:]]
        for word, smaller, larger in (
            ("left of", 0, 1),
            ("right of", 1, 0),
            ("above", 2, 3),
            ("under", 3, 2),
        ):
            if text.startswith("small") and word in text:
                seen.add(word)
                assert half[smaller].any() and half[larger].any()
        if text.startswith("four"):
            seen.add("rows" if (~paper[:8]).any() else "row")
    assert seen == {"left of", "right of", "above", "under", "rows", "row"}


def test_captions_speak_of_what_is_drawn() -> None:
    icon = Icon("fluent-emoji", "red heart", ("heart",), "红心", ("love",), ("爱",))
    rng = np.random.default_rng(0)
    english = {caption(icon, rng, "light blue", chinese=False) for _ in range(200)}
    assert all("light blue background" in text for text in english)
    assert any(text.startswith("a 3d") for text in english)
    assert all("浅蓝色" in caption(icon, rng, "light blue", chinese=True) for _ in range(20))
    assert any(caption(icon, rng) == "red heart" for _ in range(50))


def test_scenes_repeat_with_their_seed(data_file: Path) -> None:
    emoji = Dataset(data_file, size=64)
    rounds = []
    for _ in range(2):
        scenes = iter(Scenes(emoji, emoji.train, seed=4, plain=0.2, coloured=0.2))
        rounds.append([next(scenes) for _ in range(40)])
    for (picture, text, k), (same, words, index) in zip(*rounds, strict=True):
        assert text == words and k == index and np.array_equal(picture, same)
    texts = " | ".join(text for _, text, _ in rounds[0])
    assert " left of " in texts or " right of " in texts
    assert "two " in texts or "three " in texts or "four " in texts
