"""The grammar of prompts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.core.prompts import (
    Scene,
    Target,
    check_targets,
    map_regions,
    parse_regions,
    parse_scenes,
    parse_story,
    parse_target,
    parse_targets,
)
from pipelines.errors import BadInput
from pipelines.optimize.settings import OptimizeSettings


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a castle", Target("a castle")),
        ("fog:0.5", Target("fog", 0.5)),
        ("blur:-0.3", Target("blur", -0.3)),
        ("c:1:0.7", Target("c", 1.0, 0.7)),
        ("cat: a drawing", Target("cat: a drawing")),
        ("cat: a drawing:2", Target("cat: a drawing", 2.0)),
        ("at 10:30", Target("at 10:30")),
        ("at 10:05", Target("at 10:05")),
        ("at 10:30:1", Target("at 10:30", 1.0)),
        (" spaced : .5 ", Target("spaced", 0.5)),
        (":0.5", Target(":0.5")),
        ("nan:nan", Target("nan:nan")),
        ("data:image/png;base64,AAAA:0.5", Target("data:image/png;base64,AAAA", 0.5)),
    ],
)
def test_a_weight_is_read_from_the_right(text: str, target: Target) -> None:
    assert parse_target(text) == target


def test_targets_scenes_and_regions() -> None:
    assert [target.text for target in parse_targets("a | b:0.5 || c:0")] == ["a", "b"]
    assert parse_story("a ^ b ^ c", 90) == [(0, "a"), (30, "b"), (60, "c")]
    assert parse_story("a | x:2 ^ b @80", 90) == [(0, "a | x:2"), (80, "b")]
    (region,) = parse_regions("a sun:2 @ top")
    assert (region.target, region.where) == (Target("a sun", 2.0), "top")
    assert map_regions("a sun:2 @ top | b @ m.png", str.upper) == "a sun:2 @ top | b:1 @ M.PNG"


def test_scenes_are_told_as_they_were_written() -> None:
    assert parse_scenes("a:0 | at 10:30 | b:-0.3:0.7 ^ c @ 080") == [
        Scene(
            "a:0 | at 10:30 | b:-0.3:0.7", "", [Target("a", 0.0), Target("at 10:30"), Target("b", -0.3, 0.7)]
        ),
        Scene("c", "080", [Target("c")]),
    ]
    assert parse_scenes("a\nb @5") == [Scene("a\nb", "5", [Target("a\nb")])]


@pytest.mark.parametrize(
    ("text", "steps", "targets"),
    [
        ("", [""], [[]]),
        ("  ", [""], [[]]),
        ("|", [""], [[]]),
        ("a | ", [""], [["a"]]),
        ("a ^", ["", ""], [["a"], []]),
        ("^ ^", ["", "", ""], [[], [], []]),
        ("a @5 ^ b @", ["5", ""], [["a"], ["b @"]]),
        ("@20", [""], [["@20"]]),
        ("a ^ b @9 ^ c @9", ["", "9", "9"], [["a"], ["b"], ["c"]]),
        ("a @1234567", [""], [["a @1234567"]]),
        (":", [""], [[":"]]),
        ("a:-", [""], [["a:-"]]),
        ("a:²", [""], [["a:²"]]),
        ("a:11", [""], [["a:11"]]),
        ("\ud800 ^", ["", ""], [["\ud800"], []]),
    ],
)
def test_scenes_are_told_while_someone_types(text: str, steps: list[str], targets: list[list[str]]) -> None:
    scenes = parse_scenes(text)
    assert [scene.step for scene in scenes] == steps
    assert [[target.text for target in scene.targets] for scene in scenes] == targets


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "a:-1 | b:-0.5"}, "no positive weight"),
        ({"prompt": "a:1 | b:-1"}, "sum to zero"),
        ({"prompt": "a ^ ^ b"}, "scene of the story is empty"),
        ({"prompt": "a @5 ^ b"}, "must begin at 0"),
        ({"prompt": "a ^ b @9 ^ c @9"}, "not after the one before"),
        ({"regions": "a sun"}, "says no place"),
        ({"size": "100by50"}, "not WIDTHxHEIGHT"),
        ({"palette": "red"}, "not a colour"),
        ({"noise_prompts": "x:1"}, "not a whole number"),
        ({"tokens": "1, 2"}, "tokens are not whole numbers"),
        ({"changes": "[]"}, "not a JSON object"),
        ({"changes": '{"0": {}}'}, "where a step from 1 on should be"),
        ({"changes": '{"5": {"seed": 1}}'}, "cannot change 'seed'"),
        ({"changes": '{"5": {"steps": 0}}'}, "too small"),
        ({"changes": '{"5": {"prompt": "a:-1"}}'}, "no positive weight"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        OptimizeSettings(**settings)
    assert "\n" not in str(refused.value)


def test_check_targets_tells_what_to_do() -> None:
    with pytest.raises(BadInput, match="cat:1"):
        check_targets([Target("blur", -1.0)])


def test_changes_make_a_timeline() -> None:
    settings = (
        OptimizeSettings(prompt="a", steps=100).changed(40, prompt="b", cutouts=8).changed(60, steps=200)
    )
    assert [step for step, _ in settings.timeline()] == [0, 40, 60]
    assert [(one.prompt, one.cutouts, one.steps) for _, one in settings.timeline()] == [
        ("a", 16, 100),
        ("b", 8, 100),
        ("b", 8, 200),
    ]
    back = settings.changed(50, prompt="c")  # stepping back forgets what came later
    assert [(step, one.prompt, one.steps) for step, one in back.timeline()] == [
        (0, "a", 100),
        (40, "b", 100),
        (50, "c", 100),
    ]
    assert settings.changed(60) == settings
    assert OptimizeSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
