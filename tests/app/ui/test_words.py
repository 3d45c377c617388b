"""Words that are chosen by language: what settings' choices are called, and values that are told."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from app.ui.components import plain_field
from app.ui.i18n import MODELS, about, knob_help, value_words
from pipelines.core.settings import Knob
from pipelines.diffuse.settings import PACES
from pipelines.studio import PIPELINES
from pipelines.weights.catalog import CHECKPOINTS

CHOOSING = [
    pytest.param(pipeline, knob, id=f"{pipeline}-{knob.name}")
    for pipeline, kind in PIPELINES.items()
    for knob in kind.Settings.knobs()
    if knob.choices
]
NAMES = {"euler", "heun", "dpm++2m", "ddim", "adam", "adamw", "radam", "adagrad", "float32", "bfloat16"}


@pytest.mark.parametrize(("pipeline", "knob"), CHOOSING)
def test_choices_that_are_words_have_chinese_ones(pipeline: str, knob: Knob) -> None:
    assert knob.choices and set(knob.said) == set(knob.choices) - NAMES
    for value in knob.choices:
        english, chinese = knob.words_of(value)
        field = plain_field(knob, pipeline)
        assert f'value="{value}"' in field and f">{english}</option>" in field
        if value in NAMES:
            assert english == chinese == value
            continue
        assert re.fullmatch("[\u4e00-\u9fff]+", chinese) and f'data-said-zh="{chinese}"' in field
        assert not re.search(rf"\b{value}\b", knob_help(knob, "zh")), (
            "the help names what the field does not show"
        )


def test_the_catalogs_models_are_told_in_chinese_with_the_same_numbers() -> None:
    chinese = json.loads(MODELS.read_text("utf-8"))
    assert chinese.keys() == CHECKPOINTS.keys()
    for name, checkpoint in CHECKPOINTS.items():
        english, told = checkpoint.about.replace("1.3 billion", "13"), chinese[name]
        assert re.search("[\u4e00-\u9fff]", told), name
        assert sorted(re.findall(r"\d[\d,.]*\d|\d", english)) == sorted(
            re.findall(r"\d[\d,.]*\d|\d", told)
        ), name
        assert told in about(checkpoint) and about(checkpoint).startswith('<span class="en"')
    own = replace(CHECKPOINTS["tiny-clip"], name="mine", about="R@1 <0.5>")
    assert about(own) == "R@1 &lt;0.5&gt;"


def test_an_empty_field_is_explained_once() -> None:
    for kind in PIPELINES.values():
        for knob in kind.Settings.knobs():
            if knob.optional:
                assert knob_help(knob, "en").count("empty") == knob_help(knob, "zh").count("留空") == 1


def test_values_are_told_as_their_fields_show_them() -> None:
    assert value_words("diffuse", "pace", "careful") == PACES["careful"]
    assert value_words("diffuse", "width", None) == ("auto", "自动")
    assert value_words("diffuse", "invert", True) == ("yes", "是")
    assert value_words("diffuse", "sampler", "ddim") == ("ddim", "ddim")
    assert value_words("elsewhere", "pace", 3) == ("3", "3")
