"""Settings of published Disco notebooks, as files and as text that was copied."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.errors import BadInput
from pipelines.guide.disco import CLIPS
from pipelines.guide.notebook_text import is_notebook, values_in
from pipelines.guide.settings import GuideSettings
from pipelines.weights.catalog import is_known
from tests.support.notebooks import CELLS, DEEP, DISCOART, PROGROCK, PUBLISHED, STILL, STRONG

# names whose values go into settings, alone or together
CARRIED = {*GuideSettings.aliases, *(knob.name for knob in GuideSettings.knobs())} | {
    "width", "height", "perlin_mode", "clamp_grad", "use_vertical_symmetry", "use_horizontal_symmetry",
    "animation_mode",
}  # fmt: skip
OFF = (
    None,
    False,
    "None",
    "ddim",
    "bicubic",
    "Linear",
    0.0,
    {},
)  # what asks for nothing that is not done here


def read(text: str, **beside: Any) -> tuple[GuideSettings, str]:
    values, notes = GuideSettings.read_file(text, beside)
    return GuideSettings.from_dict({**values, **beside}), "\n".join(map(str, notes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_is_carried_over_or_told(name: str) -> None:
    _, told = read(PUBLISHED[name])
    for key, value in values_in(PUBLISHED[name]).items():
        told_by_value = (key == "diffusion_model" and value in told) or key == "clip_models"
        assert key in CARRIED or key in told or told_by_value or any(value == off for off in OFF), key


def test_a_still_of_version_5() -> None:
    settings, told = read(STILL)
    assert settings.prompt.endswith("Trending on artstation. | yellow color scheme")
    assert "left out are those from frame 100" in told  # a still never comes to them
    assert (settings.size, settings.seed, settings.max_frames) == ("1280x768", 2599079091, 1)
    assert (settings.steps, settings.skip_steps, settings.frame_skip) == (250, 10, 150)
    assert (settings.clip_guidance_scale, settings.cut_ic_pow) == ("5000", "1")
    assert (settings.clamp_max, settings.eta, settings.cutn_batches) == (0.05, 0.8, 4)
    assert settings.frames_skip_steps is None  # 60 % is usual here too
    assert "does not say whether it is an animation (max_frames 10000)" in told
    assert "512x512_diffusion_uncond_finetune_008100, use_secondary_model" in told
    assert "not ViTB32, ViTB16, RN50; another takes its part with clip=clip-vit-b-32" in told
    assert "RN101" not in told  # was off there too
    settings, told = read(STILL, max_frames=3)
    assert settings.max_frames == 3 and len(settings.story()) == 2 and "animation" not in told


def test_weights_pictures_symmetry_and_strong_scales() -> None:
    settings, told = read(STRONG)
    assert [(target.text, target.weight) for target in _targets(settings)] == [
        ("rocky beach, 4:3 photo", 2),
        ("sky", -1),
        ("a | b ^ c @ 9", 1),
    ]
    assert settings.image_prompts == "castle.png:0.5" and settings.image == "init.png"
    assert (settings.tv_scale, settings.range_scale, settings.sat_scale) == (250000, 10000, 50000)
    assert settings.schedule("cut_overview").at(0.5) == 4 and settings.schedule("cut_ic_pow").at(0) == 15
    assert settings.size == "960x640" and "multiples of 64" in told
    assert settings.symmetry == "vertical"  # a notebook's horizontal symmetry makes left and right alike
    assert "left out are those from frame 40" in told and "video_init_flow_warp" in told
    assert "ViTL14_336px, ViTB32_laion2b_e16; another takes its part with clip=clip-vit-l-14-336" in told
    settings, told = read(STRONG, steps=60)
    assert settings.skip_steps == 30 and "30 / 60 instead of 125 / 250" in told
    both = json.loads(STRONG) | {"use_vertical_symmetry": True, "clamp_grad": False, "perlin_init": True}
    settings, told = read(json.dumps(both))
    assert settings.symmetry == "both" and settings.clamp_max == 0
    assert settings.perlin_init == "mixed" and settings.image == "" and "init.png" in told


def _targets(settings: GuideSettings) -> Any:
    from pipelines.core.prompts import parse_targets

    return parse_targets(settings.prompt)


def test_cells_of_an_animation() -> None:
    settings, told = read(CELLS)
    assert settings.prompt == "a coral reef:10 | fish:5 ^ a wreck @60"
    assert (settings.max_frames, settings.steps, settings.frames_skip_steps) == (120, 250, 125)
    assert [settings.keyframes("rotate").at(frame) for frame in (0, 30, 60)] == [0, -1, -2]
    assert settings.keyframes("zoom").at(5) == pytest.approx(1.025)  # keys in any order
    assert settings.keyframes("pan_x").at(10) == 5 and settings.size == "512x448"
    assert [settings.schedule("cut_ic_pow").at(share) for share in (0, 0.7)] == [1, 10]
    assert "interp_spline Cubic" in told and "side_x" in told and "batch_name" in told
    assert read(CELLS)[0].seed != settings.seed  # random_seed rolls one
    assert read(CELLS, steps=60)[0].frames_skip_steps == 30


def test_what_kin_of_the_notebook_write() -> None:
    settings, told = read(PROGROCK)
    assert settings.prompt == "A castle in the Highlands" and settings.size == "832x512"
    assert settings.clip_guidance_scale == "5000" and settings.eta == 0.8
    for words in ("clip_guidance_scale 'auto'", "eta '<0.2|0.5>'", "sampling_mode plms", "skip_steps_ratio"):
        assert words in told
    assert "n_batches 4 is not repeated" in told and "not ViTB32;" in told
    settings, told = read(DISCOART)
    assert settings.prompt.startswith(
        "A beautiful painting of a singular lighthouse, shining its light across a t"
    )
    assert settings.prompt.endswith("sea | yellow color scheme") and settings.perlin_init == "gray"
    assert settings.range_scale == 150 and settings.tv_scale == 0 and "tv_scale is one number here" in told
    assert "not ViTB32, RN50;" in told
    structured = {
        "text_prompts": {"version": "1", "prompts": [{"text": "a fox", "weight": 3}, {"text": "fog"}]}
    }
    assert read(json.dumps(structured))[0].prompt == "a fox:3 | fog"


def test_an_animation_in_three_dimensions_is_flat() -> None:
    settings, told = read(DEEP)
    assert settings.max_frames == 1000 and "max_frames 10000 is more" in told
    assert "two dimensions" in told and "translation_z, rotation_3d_x, fov" in told
    assert "turbo_mode True, vr_mode True" in told and settings.frames_skip_steps == 40
    assert settings.seed == 1436827437
    settings, told = read(json.dumps({"text_prompts": "a", "animation_mode": "Video Input"}))
    assert settings.max_frames == 1 and "'Video Input' is not drawn here" in told


def test_forms_of_numbers() -> None:
    settings, told = read(
        '{"text_prompts": ["a"], "steps": "100", "eta": "0.5", "clip_guidance_scale": 1e6, "cut_ic_pow": 0.00001,'
        ' "cut_overview": [12, 12, 12, 4], "cut_innercut": "[4, 12]", "zoom": "0: (1.0e0), 5: (1.02),", "angle": 2}'
    )
    assert (settings.steps, settings.eta, settings.clip_guidance_scale) == (100, 0.5, "1000000")
    assert settings.cut_ic_pow == "0.00001" and settings.cut_overview == "[12]*3+[4]*1"
    assert settings.cut_innercut == "[4]*1+[12]*1" and settings.zoom == "0: (1), 5: (1.02)"
    assert settings.rotate == "2" and told == ""
    settings, told = read(
        '{"text_prompts": "a", "tv_scale": "[1.2.3]*4", "max_frames": "all", "sat_scale": "[]"}'
    )
    assert settings.tv_scale == 0 and all(name in told for name in ("tv_scale", "max_frames", "sat_scale"))
    part = (
        '"steps": 300,\n"cut_overview": "[8]*100+[5]*300+[1]*600",\n"ViTB32": true,'  # copied out of a file
    )
    assert read(part)[0].cut_overview == "[8]*100+[5]*300+[1]*600"
    said = "my settings:\n" + STILL + "\nhave fun"
    assert read(said)[0] == read(STILL)[0]
    assert read(repr(json.loads(STILL)))[0] == read(STILL)[0]  # as Python prints them
    own = read(
        json.dumps(GuideSettings(prompt="a fox", size="64x64", perlin_init="gray", zoom="1").to_dict())
    )
    assert own[0] == GuideSettings(prompt="a fox", size="64x64", perlin_init="gray", zoom="1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "holds no settings"),
        ("{", "holds no settings"),
        ("", "holds no settings"),
        ("a red heart", "holds no settings"),
        ("[" * 50_000, "holds no settings"),
        ("{" * 50_000, "holds no settings"),
        ("a: " + "x" * 1_000_001, "holds no settings"),
        ('{"steps": NaN}', "steps nan is not a whole number"),
        ('{"steps": Infinity, "frames_skip_steps": "60%"}', "steps inf is not a whole number"),
        ('{"steps": 1' + "0" * 400 + "}", "steps inf"),
        ('{"clip_guidance_scale": NaN}', "clip_guidance_scale 'nan'"),
        ('{"cut_overview": [1, NaN]}', "cut_overview"),
        ('{"cut_overview": {"a": 1}}', "cut_overview .* is not text"),
        ('{"width_height": [1280]}', "are not two numbers"),
        ('{"width": 1280}', "are not two numbers"),
        ('{"width_height": [NaN, 64]}', "are not two numbers"),
        ('{"text_prompts": {"0": [["a"]]}}', "text_prompts holds"),
        ('{"text_prompts": {"first": ["a"]}}', "text_prompts holds"),
        ('{"text_prompts": {"0": null}}', "text_prompts holds"),
        ('{"text_prompts": 5}', "text_prompts holds"),
        ('{"eta": 3}', "eta 3 is too large"),
        ('{"max_frames": NaN, "animation_mode": "2D"}', "max_frames nan"),
        ('{"frames_skip_steps": "200%", "animation_mode": "2D"}', "leaves no step"),
        ('{"eta": ["a"]}', "eta .* is not a number"),
        ('{"angle": "0:(x)"}', "rotate '0:\\(x\\)'"),
        ('{"angle": "0", "rotate": "0"}', "given twice"),
        ('{"perlin_init": true, "perlin_mode": "fog"}', "perlin_init 'fog'"),
        ('{"seed": "first"}', "seed 'first'"),
        ('{"init_image": 7}', "image 7 is not text"),
        ('{"transformation_percent": [2]}', "transformation_percent"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read(text)


def test_endless_code_is_not_run() -> None:
    for value in (
        "-" * 200_000 + "1",
        "1" + "+1" * 20_000,
        "[1]" + "+[1]" * 20_000,
        "2**2**9999",
        "open('x')",
    ):
        assert "x" in values_in(f"x = {value}")


def test_a_prompt_is_no_notebook() -> None:
    assert all(map(is_notebook, PUBLISHED.values()))
    for prompt in (
        "a red heart",
        "two steps: one castle",
        "a {red|blue} hat",
        '{"prompt": "a"}',
        "",
        "x" * 2_000_000,
    ):
        assert not is_notebook(prompt)


def test_clips_that_are_named_can_be_fetched() -> None:
    assert [name for name in CLIPS.values() if not is_known(name)] == []
