"""Explanations: phrases left out, maps that point at what is asked for, the closest other name, how sure it is."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from pipelines.core.pipeline import Step
from pipelines.errors import BadInput
from pipelines.io.images import open_picture
from pipelines.see.explain import explain
from pipelines.see.overlay import overlay, write_sheet
from pipelines.see.phrases import phrases, words
from pipelines.see.pictures import on_square
from pipelines.see.relevance import GRID
from tests.support.painter import PainterClip
from tests.support.tiny import tiny_clip


def blocks(left: str, right: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Two squares on white beside each other, each a quarter of the width."""
    image = Image.new("RGB", size, "white")
    side = size[0] // 4
    image.paste(left, (side // 2, side, side // 2 + side, 2 * side))
    image.paste(right, (5 * side // 2, side, 7 * side // 2, 2 * side))
    return image


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat and a dog", [("cat", "a dog"), ("dog", "a cat")]),
        ("a red heart", [("red", "a heart"), ("heart", "a red")]),
        ("a castle, fog, oil painting", [("castle", "fog, oil painting"), ("fog", "a castle, oil painting"),
                                         ("oil painting", "a castle, fog")]),
        ("elephant", []),
        ("红色的心", [("红色", "心"), ("心", "红色的")]),
        ("生日蛋糕", [("生日", "蛋糕"), ("蛋糕", "生日")]),
        ("一只猫和一只狗", [("一只猫", "一只狗"), ("一只狗", "一只猫")]),
        ("大象", []),
    ],
)  # fmt: skip
def test_phrases_are_left_out(prompt: str, parts: list[tuple[str, str]]) -> None:
    assert [(part.text, part.without) for part in phrases(prompt)] == parts


def test_words_are_the_phrases_and_their_own() -> None:
    assert words("a 3d dog on a blue background") == [
        "3d dog",
        "3d",
        "dog",
        "blue background",
        "blue",
        "background",
    ]
    assert words("elephant") == [] and words("an elephant") == ["elephant"] and words("a the") == []


def test_maps_point_at_the_words() -> None:
    """Beside each other, one above the other, and on a wide picture, of which CLIP sees a square."""
    clip = PainterClip()
    for image, red, blue in (
        (blocks("red", "blue"), 0.25, 0.75),
        (blocks("blue", "red"), 0.75, 0.25),
        (blocks("red", "blue", (128, 64)), 0.25, 0.75),
    ):
        found = explain(clip, image, "red and blue")
        assert [each.text for each in found.maps] == ["red and blue", "red", "blue"]
        by_word = {each.text: each for each in found.maps}
        assert abs(by_word["red"].peak[0] - red) < 0.2 and abs(by_word["blue"].peak[0] - blue) < 0.2
        height = GRID * image.height // image.width  # the map is the picture's, not the square's
        assert all(each.map.shape == (height, GRID) and each.map.min() >= 0 for each in found.maps)
        assert abs(by_word["red"].peak[1] - 0.375 * image.width / image.height) < 0.2
        assert by_word["red"].map.max() == 1
    tall = explain(clip, blocks("red", "blue").rotate(-90), "red and blue")  # red is on top
    assert tall.maps[1].peak[1] < 0.45 < 0.55 < tall.maps[2].peak[1]


def test_a_phrase_adds_what_is_lost_without_it() -> None:
    found = explain(PainterClip(), Image.new("RGB", (8, 8), "red"), "red and blue", maps=False)
    assert [phrase.text for phrase in found.phrases] == ["red", "blue"] and found.maps == []
    red, blue = found.phrases
    assert red.adds > 0 > blue.adds and red.without == "blue"
    assert red.score == pytest.approx(found.score - red.adds)


def test_the_closest_other_name_and_how_sure() -> None:
    clip = PainterClip()
    names = ["red", "green", "blue", "red rose"]  # two say the same as the prompt
    found = explain(clip, Image.new("RGB", (8, 8), "red"), "a red thing", names, maps=False)
    assert found.names == 2 and found.rank == 1 and found.rival is not None
    assert found.rival.name == "green" and found.rival.margin > 0.5 and found.rival.wins == 1
    wrong = explain(clip, Image.new("RGB", (8, 8), "blue"), "a red thing", names, maps=False)
    assert wrong.rank == 2 and wrong.rival is not None
    assert wrong.rival.name == "blue" and wrong.rival.margin < 0 and wrong.rival.wins == 0
    assert explain(clip, Image.new("RGB", (8, 8), "red"), "red", maps=False).rival is None


def test_real_towers_are_explained_and_say_how_far_they_are() -> None:
    stages: list[Step] = []
    image = blocks("red", "blue", (40, 24))
    found = explain(tiny_clip(), image, "a red heart", ["two cats", "green apple"], progress=stages.append)
    again = explain(tiny_clip(), image, "a red heart", ["two cats", "green apple"])
    assert [step.stage for step in stages][:2] == ["read", "compare"] and stages[-1].done == stages[-1].total
    assert json.dumps(found.to_json()) == json.dumps(again.to_json())  # the same every time
    assert found.spread > 0 and len(found.to_json()["maps"][0]["map"]) == round(GRID * 24 / 40)
    with pytest.raises(BadInput, match="the prompt is empty"):
        explain(tiny_clip(), image, " ")


def test_nothing_of_a_picture_is_cut_off() -> None:
    wide = Image.new("RGB", (1200, 300), (10, 200, 30))
    wide.paste("red", (0, 100, 100, 200))
    square = on_square(wide)
    assert square.size == (512, 512)
    assert square.getpixel((5, 5)) == (10, 200, 30)  # the border's colour above it
    red, green, _ = square.getpixel((20, 256))  # type: ignore[misc]
    assert red > 200 and green < 60
    assert on_square(Image.new("RGBA", (20, 20), (0, 0, 0, 0))).getpixel((3, 3)) == (255, 255, 255)


def test_overlays_show_where(tmp_path) -> None:
    image = blocks("blue", "lime")
    found = explain(PainterClip(), image, "blue and green")
    laid = overlay(image, found.maps[1])
    here = tuple(int(share * laid.width) for share in found.maps[1].peak)
    red, _, blue = laid.getpixel(here)  # type: ignore[misc]
    assert red > 2 * blue  # vermilion over blue
    red, green, blue = laid.getpixel((128, 250))  # type: ignore[misc]
    assert red == green == blue  # far away it is grey
    write_sheet(tmp_path / "maps.png", image, found.maps)
    assert open_picture(tmp_path / "maps.png").size == (256 * 3, 256)
