"""Schedules, keyframes, scenes, and how many steps there are."""

from __future__ import annotations

import pytest

from pipelines.errors import BadInput
from pipelines.guide.schedules import parse_keyframes, parse_schedule
from pipelines.guide.settings import GuideSettings


def test_schedules_follow_the_noise() -> None:
    schedule = parse_schedule("cut_overview", "[12]*400+[4]*600", 0, 64)
    assert [schedule.at(k / 1000) for k in (0, 399, 400, 999)] == [12, 12, 4, 4]
    assert parse_schedule("cut_ic_pow", " 1.5 ", 0, 100).at(0.7) == 1.5
    for text in ("", "[1]", "[1]*0", "12]*400", "[a]*4", "[1]*2+", "nan", "1e5", "[1]*2,[3]*4"):
        with pytest.raises(BadInput, match="cut_overview"):
            GuideSettings(cut_overview=text)
    assert GuideSettings.from_dict({"clip_guidance_scale": 5000.0, "angle": -3}).rotate == "-3"
    with pytest.raises(BadInput, match=r"cut_icgray_p has 1\.5; its numbers are from 0 to 1"):
        GuideSettings(cut_icgray_p="[0.2]*400+[1.5]*600")


def test_keyframes_are_linear_in_between() -> None:
    keys = parse_keyframes("zoom", "0: (1), 10: (1.05), 20: (1.0)", 0.5, 2)
    assert [round(keys.at(k), 4) for k in (0, 5, 10, 15, 20, 90)] == [1, 1.025, 1.05, 1.025, 1, 1]
    assert parse_keyframes("rotate", "5:(-3)", -180, 180).at(0) == -3
    assert parse_keyframes("rotate", "-3", -180, 180).at(7) == -3
    for text in ("0: 1", "(1)", "0: (1), 0: (2)", "5: (1), 2: (1)", "0: (x)", ""):
        with pytest.raises(BadInput, match="zoom"):
            GuideSettings(zoom=text)


def test_what_leaves_no_step_is_refused() -> None:
    with pytest.raises(BadInput, match="skip_steps 60 leaves no step of 60"):
        GuideSettings(steps=60, skip_steps=60)
    with pytest.raises(BadInput, match=r"transformation_percent .1\.5."):
        GuideSettings(transformation_percent="1.5")
    with pytest.raises(BadInput, match="frames_skip_steps 60 leaves no step of 60"):
        GuideSettings(steps=60, frames_skip_steps=60, max_frames=2)
    still = GuideSettings(steps=9, frames_skip_steps=150)  # of no frame
    assert still.length() == 9 and still.place(9) == (1, 8)
    assert GuideSettings(steps=1, image="x.png").length() == 1


def test_steps_and_frames_are_counted() -> None:
    settings = GuideSettings(steps=10, skip_steps=3, max_frames=3, frames_skip_steps=6, prompt="a ^ b ^ c @2")
    assert settings.length() == 7 + 2 * 4
    assert [settings.place(k) for k in (0, 6, 7, 10, 11, 14)] == [
        (0, 3),
        (0, 9),
        (1, 6),
        (1, 9),
        (2, 6),
        (2, 9),
    ]
    assert settings.story() == [(0, "a"), (7, "b"), (11, "c")]
