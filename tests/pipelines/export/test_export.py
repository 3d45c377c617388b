"""The door: what is refused before anything is made, names, records, and pictures that move."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.core.record import read_texts
from pipelines.errors import BadInput
from pipelines.export.export import Given, exported, given_of, in_motion, plan, read_given
from pipelines.export.naming import file_name, file_names
from pipelines.export.presets import PRESETS
from pipelines.io.video import Frame, write_film
from tests.support.tiny import tiny_matting

EXAMPLE = next((Path(__file__).parents[3] / "assets" / "examples").glob("01-*.png"))


def picture(colour: str = "#c02020", side: int = 32) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    image.paste(colour, (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    return image


def given(count: int, prompt: str = "a red heart") -> list[Given]:
    return [Given([picture()], prompt, "file") for _ in range(count)]


@pytest.mark.parametrize(
    ("place", "count", "code"),
    [
        ("whatsapp", 2, "export.too_few"),
        ("whatsapp", 31, "export.too_many"),
        ("telegram", 121, "export.too_many"),
        ("png", 501, "export.too_many"),
    ],
)
def test_a_set_of_the_wrong_size_is_told_before_anything_is_made(place: str, count: int, code: str) -> None:
    with pytest.raises(BadInput) as problem:
        plan(given(count), PRESETS[place])
    assert problem.value.code == code and str(count) in problem.value.text("zh")


def test_what_cannot_move_is_told() -> None:
    moving = in_motion(given(3))
    with pytest.raises(BadInput, match="nothing moves on slack; moving pictures go to discord-sticker"):
        plan([moving], PRESETS["slack"])
    with pytest.raises(BadInput, match="at least two frames"):
        in_motion(given(1))
    with pytest.raises(BadInput, match="16 x 16, 32 x 32"):
        plan([in_motion([*given(1), Given([picture(side=16)])])], PRESETS["telegram"])


def test_a_pack_for_whatsapp_has_its_tray_once() -> None:
    files = plan(given(3), PRESETS["whatsapp"])
    assert [file.name for file in files] == [
        "a-red-heart.webp", "a-red-heart-2.webp", "a-red-heart-3.webp", "tray.png",
    ]  # fmt: skip
    made = list(exported(files, PRESETS["whatsapp"], tiny_matting()))
    assert [one.size for one in made] == [(512, 512)] * 3 + [(96, 96)]


def test_the_transparent_png_keeps_its_record_and_an_emoji_does_not() -> None:
    one = given_of(EXAMPLE.read_bytes(), EXAMPLE.stem)
    assert one.prompt == "a red heart" and set(one.texts) == {"atelier", "parameters"}
    for place, kept in (("png", True), ("slack", False)):
        (file,) = exported(plan([one], PRESETS[place]), PRESETS[place], tiny_matting())
        assert file.name == "a-red-heart.png" and file.record is kept is file.to_json()["record"]
        assert ("atelier" in read_texts(file.data)) is kept
        assert Image.open(io.BytesIO(file.data)).mode == "RGBA"


def test_frames_go_forth_and_back_on_one_canvas() -> None:
    colours = ("#c02020", "#20c020", "#2020c0")
    moving = in_motion([Given([picture(colour)], "heart") for colour in colours])
    assert [frame.getpixel((16, 16))[0] for frame in moving.frames] == [0xC0, 0x20, 0x20, 0x20]  # type: ignore[index]
    (file,) = exported(plan([moving], PRESETS["discord-sticker"]), PRESETS["discord-sticker"], tiny_matting())
    with Image.open(io.BytesIO(file.data)) as film:
        assert film.n_frames == 4 and file.to_json()["moves"]  # type: ignore[attr-defined]


def test_a_time_lapse_loses_its_strip_and_a_picture_its_nothing(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", [Frame(picture(side=64)) for _ in range(4)], 4, seconds=1)
    film = read_given(tmp_path / "film.mp4")
    assert film.moves and film.frames[0].size == (512, 512) and film.fallback == "film"
    assert np.asarray(film.frames[-1])[-1].min() > 245  # white, not the strip's paper
    picture(side=64).save(tmp_path / "a.jpg")
    still = read_given(tmp_path / "a.jpg")
    assert still.frames[0].size == (64, 64) and not still.texts and not still.moves


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A red Heart!", "a-red-heart"),
        ("红心，在桌上", "红心-在桌上"),
        ("../../etc/passwd", "etc-passwd"),
        ("🐱", ""),
        ("con", "con-"),
        ("word " * 40, "-".join(["word"] * 12)),
        ("x" * 200, "x" * 60),
        ("Ａ\u0000b\tc", "a-b-c"),
    ],
)
def test_files_are_named_after_the_prompt(text: str, name: str) -> None:
    assert file_name(text) == name


def test_equal_names_are_told_apart_and_emoji_fall_back() -> None:
    assert file_names(["cat", "Cat", "🐱", "🐱"], ["a", "b", "c 1", "?"], "_") == [
        "cat",
        "cat_2",
        "c_1",
        "picture",
    ]


def test_a_sheet_has_all_pictures_in_cells() -> None:
    colours = ("#c02020", "#20c020", "#2020c0")
    given_ones = [Given([picture(colour)], "heart") for colour in colours]
    with pytest.raises(BadInput, match="at least 2"):
        plan(given_ones[:1], PRESETS["sheet"])
    (file,) = exported(plan(given_ones, PRESETS["sheet"]), PRESETS["sheet"], tiny_matting())
    sheet = Image.open(io.BytesIO(file.data))
    assert (file.name, sheet.size) == ("sticker-sheet.png", (512, 512))
    found = [sheet.getpixel(at)[:3] for at in ((128, 128), (384, 128), (128, 384))]  # type: ignore[index]
    assert found == [(0xC0, 0x20, 0x20), (0x20, 0xC0, 0x20), (0x20, 0x20, 0xC0)]
    assert sheet.getpixel((384, 384))[3] == 0  # type: ignore[index]
    assert sheet.getpixel((128, 3)) == (255, 255, 255, 255)


def test_an_svg_is_titled_by_its_prompt() -> None:
    one = Given([picture(side=64)], "a red heart")
    (file,) = exported(plan([one], PRESETS["svg"]), PRESETS["svg"], tiny_matting())
    assert file.name == "a-red-heart.svg" and b"<title>a red heart</title>" in file.data
    assert file.size == (64, 64) and not file.record
