"""Schedules, keyframes, scenes, and settings of published Disco notebooks."""

from __future__ import annotations

import pytest

from pipelines.errors import BadInput
from pipelines.guide.schedules import parse_keyframes, parse_schedule
from pipelines.guide.settings import GuideSettings

# the values that the settings file of a Disco Diffusion 5.7 notebook has, as far as they have a counterpart or a trap
NOTEBOOK = {
    "batch_name": "TimeToDisco",
    "text_prompts": {
        "0": ["A lighthouse by Greg Rutkowski:2", "yellow color scheme"],
        "100": ["This set of prompts start at frame 100"],
    },
    "image_prompts": {},
    "clip_guidance_scale": 5000,
    "tv_scale": 0,
    "range_scale": 150,
    "sat_scale": 0,
    "cutn_batches": 4,
    "max_frames": 10000,
    "interp_spline": "Linear",
    "init_image": None,
    "init_scale": 1000,
    "skip_steps": 10,
    "frames_scale": 1500,
    "frames_skip_steps": "60%",
    "perlin_init": False,
    "perlin_mode": "mixed",
    "skip_augs": False,
    "randomize_class": True,
    "clip_denoised": False,
    "clamp_grad": True,
    "clamp_max": 0.05,
    "set_seed": "random_seed",
    "eta": 0.8,
    "width_height": [1280, 768],
    "use_secondary_model": True,
    "steps": 250,
    "diffusion_model": "512x512_diffusion_uncond_finetune_008100",
    "ViTB32": True,
    "cut_overview": "[12]*400+[4]*600",
    "cut_innercut": "[4]*400+[12]*600",
    "cut_ic_pow": 1,
    "cut_icgray_p": "[0.2]*400+[0]*600",
    "animation_mode": "None",
    "angle": "0:(0)",
    "zoom": "0: (1), 10: (1.05)",
    "translation_x": "0: (0)",
    "use_vertical_symmetry": True,
    "use_horizontal_symmetry": False,
    "transformation_percent": [0.09],
}


def test_a_notebooks_settings_are_understood() -> None:
    settings = GuideSettings.from_dict(NOTEBOOK)
    assert settings.prompt == (
        "A lighthouse by Greg Rutkowski:2 | yellow color scheme ^ This set of prompts start at frame 100 @100"
    )
    assert settings.size == "1280x768" and settings.steps == 250 and settings.image == ""
    assert (
        settings.max_frames == 1
        and settings.frames_skip_steps is None
        and settings.frame_skip == 150
        and settings.skip_steps == 10
    )
    assert settings.clip_guidance_scale == "5000" and settings.cut_ic_pow == "1"
    assert settings.symmetry == "vertical" and settings.transformation_percent == "0.09"
    assert settings.perlin_init == "off" and settings.seed == 0 and settings.rotate == "0:(0)"
    other = GuideSettings.from_dict(
        {"clamp_grad": False, "perlin_init": True, "perlin_mode": "gray", "set_seed": "1234", "use_horizontal_symmetry": 1}
    )  # fmt: skip
    assert (other.clamp_max, other.perlin_init, other.seed) == (0, "gray", 1234)
    assert other.symmetry == "horizontal"
    moving = GuideSettings.from_dict(NOTEBOOK | {"animation_mode": "2D", "max_frames": 200})
    assert moving.max_frames == 200 and moving.story()[1][0] == 240 + 99 * 100
    assert GuideSettings.from_dict(settings.to_dict()) == settings


def test_schedules_follow_the_noise() -> None:
    schedule = parse_schedule("cut_overview", "[12]*400+[4]*600", 0, 64)
    assert [schedule.at(k / 1000) for k in (0, 399, 400, 999)] == [12, 12, 4, 4]
    assert parse_schedule("cut_ic_pow", " 1.5 ", 0, 100).at(0.7) == 1.5
    for text in ("", "[1]", "[1]*0", "12]*400", "[a]*4", "[1]*2+", "nan", "1e5", "[1]*2,[3]*4"):
        with pytest.raises(BadInput, match="cut_overview"):
            GuideSettings(cut_overview=text)
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
