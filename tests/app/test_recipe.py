"""Recipes: settings in a link, and never believed unchecked."""

from __future__ import annotations

import base64
import json
import random
import zlib
from contextlib import suppress
from typing import Any

import pytest
from PIL import Image

from app.recipe import MAX_CHARACTERS, read_recipe, recipe_of
from app.ui.link import copy_link, opened
from pipelines.core.pipeline import Pipeline
from pipelines.core.settings import Settings
from pipelines.errors import BadInput
from pipelines.io.images import picture_to_uri
from pipelines.studio import PIPELINES

PICTURE = picture_to_uri(Image.new("RGB", (8, 8), "red"))


def packed(value: Any) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    plain = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(packer.compress(plain) + packer.flush()).decode().rstrip("=")


@pytest.mark.parametrize("name", PIPELINES)
def test_every_setting_of_every_pipeline_travels_or_is_named(name: str) -> None:
    kind: type[Pipeline[Any]] = PIPELINES[name]
    chance = random.Random(1)
    for knob in kind.Settings.knobs():
        if knob.name == "batch":
            continue
        text = {
            "palette": "#d9432f",
            "size": "64x96",
            "canvas": "256x128",
            "crop": "0,0,64x64",
            "changes": '{"3": {"steps": 9}}',
        }
        text |= {"tokens": "1 2 3", "regions": "a sun @ top", "noise_prompts": "7:0.3"}
        text |= {"changes": '{"3": {"eta": 0.5}}'} if name == "guide" else {}
        text |= {"transformation_percent": "0.09 0.3", "word_weights": "big=1.5"}
        text |= {"style": "flat, 3d", "x": "seed=1,2", "y": "words=red,blue"}
        text |= {"image_prompts": f"{PICTURE}:1", "directions": "data:x,1:0.5"}
        if knob.kind in ("picture", "pictures"):
            value: Any = PICTURE
        elif knob.choices:
            value = next(each for each in knob.choices if each != knob.default)
        elif knob.type is bool:
            value = not knob.default
        elif knob.type is int:
            value = int(knob.lo or 0) + (int(knob.lo or 0) == knob.default)
            value = 512 if knob.name in ("width", "height") else value
        elif knob.type is float:
            value = round(chance.uniform(knob.lo or 0, knob.hi or 1), 4)
        else:
            value = text.get(knob.name, '一颗 <b>心</b> & "more"')
        recipe = recipe_of(name, {**kind.Settings().to_dict(), knob.name: value})
        back = read_recipe(recipe.text())
        assert back == recipe and back.pipeline == name
        assert (getattr(back.settings, knob.name) == value) != (knob.name in back.left_out), knob.name
        assert back.settings.files() == []


def test_a_link_is_short_and_says_what_it_lacks() -> None:
    settings = (
        PIPELINES["optimize"].Settings(prompt="a red heart | gold:0.5", seed=7, image=PICTURE).to_dict()
    )
    recipe = recipe_of("optimize", settings)
    assert len(recipe.text()) < 120
    assert recipe.left_out == ("image",)
    assert "start picture" in copy_link("optimize", settings) and "起始图片" in opened(recipe)
    assert PICTURE not in copy_link("optimize", settings)
    assert copy_link("generate", {"prompt": "<img>"}).count("<img") == 0


def test_a_run_that_changed_is_told_as_it_ended() -> None:
    first = PIPELINES["optimize"].Settings(prompt="a cat")
    changed = first.changed(20, prompt="a dog", steps=80)  # type: ignore[attr-defined]
    recipe = recipe_of("optimize", changed.to_dict())
    assert recipe.settings.prompt == "a dog" and recipe.settings.to_dict()["steps"] == 80
    assert recipe.left_out == ("changes",)


def test_what_is_too_long_for_a_link_is_said() -> None:
    chance = random.Random(2)
    prompt = "".join(chance.choice("abcdefghijklmnopqrstuvwxyz0123456789 ") for _ in range(1999)) + "."
    with pytest.raises(BadInput, match="room for 1,500") as raised:
        recipe_of("generate", {"prompt": prompt}).text()
    assert "请保存 PNG" in raised.value.text("zh")
    button = copy_link("generate", {"prompt": prompt})
    assert 'data-link=""' in button and "<input" not in button and "save the PNG" in button
    assert len(recipe_of("generate", {"prompt": "the same words again " * 95}).text()) < 200


FORGED: list[tuple[str, str]] = [
    ("", "damaged"),
    ("%2e%2e", "damaged"),
    ("AAAA", "damaged"),
    (packed(["generate", {}])[:-4], "damaged"),
    (packed(b"[" * 15_000), "damaged"),
    (packed(b" " * 20_000_000)[:MAX_CHARACTERS], "damaged"),
    (packed(b'["generate",{"prompt":"' + b"a" * 1_000_000 + b'"}]')[:MAX_CHARACTERS], "damaged"),
    (packed(b"\xff\xfe\xff"), "damaged"),
    ("A" * (MAX_CHARACTERS + 1), "the most is 1,500"),
    (packed({"pipeline": "generate"}), "not one of Atelier's"),
    (packed(["generate"]), "not one of Atelier's"),
    (packed(["generate", []]), "not one of Atelier's"),
    (packed(["generate", {}, [1]]), "not one of Atelier's"),
    (packed(["generate", {}, ["<b>"]]), "not one of Atelier's"),
    (packed(["generate", {"batch": 3, "image": "data:image/png;base64,AAAA"}]), "names a file"),
    (packed(["optimize", {"tokens": "1 2"}]), "not one of Atelier's"),
    (packed(["destroy", {}]), "unknown pipeline 'destroy'"),
    (packed(["generate", {"colour": 3}]), "setting 'colour' is not known"),
    (packed(["generate", {"candidates": 900}]), "candidates 900 is too large; the most is 512"),
    (packed(["generate", {"candidates": float("nan")}]), "not a whole number"),
    (packed(["generate", {"image": "/etc/hostname"}]), "names a file"),
    (packed(["optimize", {"regions": "a sun @ /etc/hostname"}]), "names a file"),
    (packed(["optimize", {"image_prompts": "http://127.0.0.1/a.png:1"}]), "names a file"),
    (packed(["edit", {"directions": "/etc/hostname:1"}]), "names a file"),
]


@pytest.mark.parametrize(("text", "sentence"), FORGED, ids=[str(index) for index in range(len(FORGED))])
def test_a_strangers_recipe_is_checked(text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence.replace("'", ".")) as raised:
        read_recipe(text)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in raised.value.text("zh")), str(raised.value)


def test_chance_is_never_more_than_a_sentence() -> None:
    chance = random.Random(3)
    good = recipe_of("edit", {"prompt": "a fox face", "source": "a cat face", "strength": 0.5}).text()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for _ in range(2000):
        at = chance.randrange(len(good))
        text = good[:at] + chance.choice(letters) + good[at + 1 :]
        with suppress(BadInput):
            assert isinstance(read_recipe(text).settings, Settings)


@pytest.mark.parametrize("name", PIPELINES)
def test_odd_settings_of_a_record_give_a_recipe_or_a_sentence(name: str) -> None:
    odd = (
        "²",
        5,
        -1,
        1e300,
        None,
        True,
        [],
        {},
        [["data:"]],
        '{"5": []}',
        '{"5": {"prompt": 3}}',
        "\ud800",
        "{",
        10**300,
    )
    for knob in PIPELINES[name].Settings.knobs():
        for value in odd:
            with suppress(BadInput):
                recipe_of(name, {knob.name: value}).text()
