"""Settings: what their fields say of themselves, and the 0 of earlier versions."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest

from pipelines.core.settings import Knob, Settings
from pipelines.errors import BadInput
from pipelines.studio import PIPELINES

KNOBS = [(name, knob) for name, kind in PIPELINES.items() for knob in kind.Settings.knobs()]
OPTIONAL = [(name, knob) for name, knob in KNOBS if knob.optional]
each_optional = pytest.mark.parametrize(
    ("name", "knob"), OPTIONAL, ids=[f"{name}-{knob.name}" for name, knob in OPTIONAL]
)


@pytest.mark.parametrize(("name", "knob"), KNOBS, ids=[f"{name}-{knob.name}" for name, knob in KNOBS])
def test_every_setting_has_words_in_both_languages(name: str, knob: Knob) -> None:
    english, chinese = knob.label
    assert english and chinese and knob.help and knob.help_zh
    assert not re.search("[\u4e00-\u9fff]", english + knob.help)
    assert re.search("[\u4e00-\u9fff]", knob.help_zh)


@each_optional
def test_none_is_what_the_model_likes(name: str, knob: Knob) -> None:
    kind: Any = PIPELINES[name].Settings
    assert knob.default is None and getattr(kind.from_dict({knob.name: None}), knob.name) is None
    assert "default: what the model likes" in knob.range_text()


@each_optional
def test_the_zero_of_earlier_versions_is_none_where_it_could_mean_nothing_else(name: str, knob: Knob) -> None:
    kind: Any = PIPELINES[name].Settings
    value = getattr(kind.from_dict({knob.name: 0}), knob.name)
    assert value is None if (knob.lo or 0) > 0 else value == 0
    with pytest.raises(BadInput):
        kind.from_dict({knob.name: False})


def test_no_guidance_can_be_asked_for() -> None:
    assert PIPELINES["diffuse"].Settings.from_dict({"guidance": 0}).to_dict()["guidance"] == 0.0


@pytest.mark.parametrize("name", PIPELINES)
def test_seeds_go_up_to_64_bits_also_as_the_text_that_the_page_sends(name: str) -> None:
    kind: Any = PIPELINES[name].Settings
    most = 2**64 - 1
    assert kind(seed=most).seed == kind.from_dict({"seed": f" {most} "}).seed == most
    for wrong in (2**64, "18446744073709551616", -2, 0.5, "", "٣", "²", True, float("nan"), "1" * 30):
        with pytest.raises(BadInput, match="seed"):
            kind(seed=wrong)


ODD = [
    *("²", "٣", "½", "{", "[]", "\x00", "\ud800", "NaN", "data:image/png;base64,", "a" * 5000, ":::", "| | |", "^", "@"),
    *("7:²", "7:1e999", "a @ ", "a:nan", "9" * 400, '{"1": {}}', '{"²": {"prompt": "x"}}', '{"5": []}', "²x²", "1,2,3x4"),
    *(10**400, -(10**400), float("inf"), float("nan"), 1e308, True, None, [], {}, [[]], {"a": 1}, b"x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "knob"), KNOBS, ids=[f"{name}-{knob.name}" for name, knob in KNOBS])
def test_an_odd_value_is_taken_or_refused_in_a_sentence(name: str, knob: Knob) -> None:
    kind: Any = PIPELINES[name].Settings
    for value in ODD:
        with suppress(BadInput):
            settings = kind.from_dict(kind.recorded({knob.name: value}, {}))
            settings.files()
            getattr(settings, "timeline", list)()


@pytest.mark.parametrize("written", [-1, "-1", "random", " Random "])
def test_a_chance_seed_is_rolled_once(written: Any) -> None:
    rolled = [Settings(seed=written) for _ in range(3)]
    assert len({settings.seed for settings in rolled}) == 3
    assert all(0 <= settings.seed < 2**32 for settings in rolled)
    assert Settings.from_dict(rolled[0].to_dict()) == rolled[0]
