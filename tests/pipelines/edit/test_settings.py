"""Edit's settings, strips and automatic masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipelines.edit.results import automatic_mask, faded, overshot
from pipelines.edit.settings import MODES, EditSettings, Use
from pipelines.edit.strip import strip
from pipelines.errors import BadInput
from pipelines.io.files import FILE_URI_HEAD


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("a.safetensors", [Use("a.safetensors")]),
        ("a.safetensors:0.5", [Use("a.safetensors", 0.5)]),
        (" a b.safetensors : -.5 @ 900 - 300 ", [Use("a b.safetensors", -0.5, (900, 300))]),
        ("a@1000-0", [Use("a")]),
        ("a:1 | b:-1@500-0 |", [Use("a"), Use("b", -1.0, (500, 0))]),
        ("C:\\dirs\\a.safetensors:1.5", [Use("C:\\dirs\\a.safetensors", 1.5)]),
        ("me@home/a:0.25", [Use("me@home/a", 0.25)]),
        (f"{FILE_URI_HEAD}AAAA:0.5@900-300", [Use(f"{FILE_URI_HEAD}AAAA", 0.5, (900, 300))]),
        ("a:0.00001", [Use("a", 0.00001)]),
    ],
)
def test_directions_in_use_are_read_from_the_right(text: str, uses: list[Use]) -> None:
    settings = EditSettings(directions=text)
    assert settings.uses() == uses
    assert settings.map_directions(lambda file: file).uses() == uses  # written down and read again


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"directions": "a:1.6"}, "not in -1 to 1.5"),
        ({"directions": "a:-1.01"}, "not in -1 to 1.5"),
        ({"directions": "a@300-900"}, "does not go down"),
        ({"directions": "a@1001-900"}, "does not go down"),
        ({"directions": "a@5-5"}, "does not go down"),
        ({"source": "A Face.", "prompt": "the face"}, "nowhere to go"),
        ({"source": "红心", "prompt": " 红心 "}, "nowhere to go"),
        ({"crop": "0,0,0x8"}, "is not X,Y,WIDTHxHEIGHT"),
        ({"crop": "-1,0,8x8"}, "is not X,Y,WIDTHxHEIGHT"),
        ({"crop": "8x8"}, "is not X,Y,WIDTHxHEIGHT"),
        ({"source": ""}, "empty"),
        ({"mode": "slow"}, "not one of instant, quick, reusable, paper"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        EditSettings(**settings)
    assert "\n" not in str(refused.value)


def test_settings_are_read() -> None:
    assert EditSettings(crop=" 3, 4 ,10X20 ").box() == (3, 4, 13, 24) and EditSettings().box() is None
    assert EditSettings(crop="0,0,10x100").box() == (0, 0, 10, 100)
    assert (
        EditSettings().update_count()
        == EditSettings(updates=7).update_count()
        == 0
        == EditSettings(directions="a").update_count()
    )
    assert EditSettings(mode="quick", updates=7).update_count() == 7
    assert all(EditSettings(mode=mode).update_count() > 0 for mode in MODES if mode != "instant")
    settings = EditSettings(image="i", mask="m", target_images="a | b", source_images="c|d")
    changed = settings.map_pictures(str.upper)
    assert (changed.image, changed.mask, changed.target_images, changed.source_images) == (
        "I",
        "M",
        "A | B",
        "C | D",
    )
    assert EditSettings().map_pictures(str.upper) == EditSettings()


@pytest.mark.parametrize("strength", [1.0, 0.0, -1.0, 1.5, 0.4, -0.3])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_strip_holds_the_chosen_strength(strength: float, count: int) -> None:
    values = strip(strength, count)
    assert len(values) == count == len(set(values)) and strength in values
    assert values == sorted(values, reverse=strength < 0)
    assert all(-1 <= value <= 1.5 for value in values)
    if count > 2:
        assert values[0] == 0 and values[-1] == (1.5 if strength >= 0 else -1.0)


def test_strips_by_hand() -> None:
    assert strip(1.0, 5) == [0, 0.375, 0.75, 1.0, 1.5]
    assert strip(-0.5, 3) == [0, -0.5, -1]
    assert strip(0.7, 1) == [0.7]


def test_overshooting_is_the_critic_falling_while_clip_rises() -> None:
    up, down = np.linspace(0.1, 0.6, 8), np.linspace(0.5, 0.2, 8)

    def curves(clip: Any, critic: Any) -> list[list[float]]:
        return [
            [5 * k, float(a), float(b)] for k, (a, b) in enumerate(zip(clip, critic, strict=True), start=1)
        ]

    hill = [0.1, 0.3, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert overshot(curves(up, hill)) == 20  # the update when the critic liked it best
    assert overshot(curves(up, up)) == overshot(curves(down, down)) == overshot(curves(up, hill)[:3]) == 0
    assert overshot(curves(up, np.full(8, 0.3))) == overshot([]) == 0


def test_the_automatic_mask_lies_where_the_change_is() -> None:
    change = torch.zeros(2, 3, 24, 24)
    change[:, :, 4:12, 4:12] = 0.4
    change += 0.01 * torch.randn(change.shape, generator=torch.Generator().manual_seed(0))
    mask = automatic_mask(change)
    assert mask.shape == (2, 1, 24, 24) and mask.min() >= 0 and mask.max() <= 1
    assert (mask[..., 5:11, 5:11] == 1).all() and (mask[..., 16:] == 0).all()
    for nothing in (torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 1e-9)):
        assert automatic_mask(nothing).isfinite().all()


def test_what_the_codec_loses_fades_where_much_changes() -> None:
    change = torch.zeros(2, 3, 32, 32)
    change[0, :, :, :16] = -0.6
    change[1, :, :, :16] = 0.05
    lost = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gone = faded(change, lost)
    assert torch.equal(gone[0, :, :, :12], lost[0, :, :, :12]) and not gone[0, :, :, 20:].any()
    assert not gone[1].any()  # a faint change takes nothing
    assert not faded(change, 0.05 * lost).any()  # nor does any take what is hardly lost


def test_records_of_before_keep_all_detail() -> None:
    assert EditSettings(source="a", prompt="b").fade_detail
    assert EditSettings.recorded({"source": "a", "prompt": "b"}, {})["fade_detail"] is False
