"""Export on the page: plain addresses beside Download, sets from the Library, errors as sentences."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.library import Library
from app.ui import exporting
from app.ui.folders import Folders
from app.ui.html.common import downloads, exports
from app.ui.html.library import frame
from app.ui.pictures import Pictures
from app.ui.wall import Wall
from pipelines.export.presets import LOOKED_UP, PRESETS
from tests.app.ui.test_wall import Context
from tests.support.tiny import tiny_matting
from tests.support.wall import write_picture

DAY = "2026-01-01"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    outputs = tmp_path / "outputs"
    for name in ("red", "green", "blue", "white"):
        picture = Image.new("RGB", (32, 32), "white")
        picture.paste(name, (8, 8, 24, 24))
        write_picture(outputs / DAY / f"{name}.png", picture, prompt=f"a {name} card")
    folders = Folders(Library(outputs), outputs, may_open=True)
    context: Any = Context(outputs, folders)
    context.studio.matting = tiny_matting
    with TestClient(Starlette(routes=[*Wall(context).routes(), *exporting.routes(context)])) as one:
        yield one
    folders.close()


def ids(*names: str) -> list[str]:
    return [f"{DAY}/{name}.png" for name in names]


@pytest.mark.parametrize(
    ("place", "kind", "saved"),
    [
        ("png", "image/png", "a-red-card.png"),
        ("telegram", "image/webp", "a-red-card.webp"),
        ("discord-emoji", "image/png", "a_red_card.png"),
        ("web", "application/zip", "a-red-card-web.zip"),
    ],
)
def test_one_picture_is_saved_ready(place: str, kind: str, saved: str, client: TestClient) -> None:
    answer = client.get(f"/export/{place}/{DAY}/red.png?outline=1")
    assert answer.status_code == 200 and answer.headers["content-type"] == kind
    assert saved in answer.headers["content-disposition"] and answer.headers["x-content-type-options"]
    if kind == "application/zip":
        names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
        assert len(names) == 5 and "a-red-card-favicon.ico" in names
    else:
        picture = Image.open(io.BytesIO(answer.content))
        assert picture.mode == "RGBA" and max(picture.size) == (PRESETS[place].still[0].side or 32)
        middle = picture.getpixel((picture.width // 2, picture.height // 2))
        assert middle[0] > 250 and middle[1] < 10  # type: ignore[index]
        plain = Image.open(io.BytesIO(client.get(f"/export/{place}/{DAY}/red.png").content))
        assert plain.tobytes() != picture.tobytes()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (f"myspace/{DAY}/red.png", "no place myspace"),
        (f"png/{DAY}/none.png", "none.png"),
        ("png/../secret.png", ""),
        (f"whatsapp/{DAY}/red.png", "at least 3 pictures"),
        (f"png/{DAY}/white.png", "nothing but background was found in a white card"),
    ],
)
def test_what_cannot_be_is_said_in_both_languages(address: str, sentence: str, client: TestClient) -> None:
    answer = client.get(f"/export/{address}")
    assert answer.status_code == 404 and sentence in answer.text
    assert not sentence or re.search(r"[\u4e00-\u9fff]", answer.text)


def test_a_set_is_packed_and_can_be_fetched(client: TestClient) -> None:
    asked = {"ids": ids("red", "green", "blue"), "place": "whatsapp", "outline": True}
    answer = client.post("/library/export", json=asked).json()
    packed = zipfile.ZipFile(io.BytesIO(client.get("/" + answer["address"]).content))
    assert packed.namelist() == ["a-red-card.webp", "a-green-card.webp", "a-blue-card.webp", "tray.png"]
    asked = {"ids": ids("red", "green"), "place": "discord-sticker", "moving": True}
    answer = client.post("/library/export", json=asked).json()
    packed = zipfile.ZipFile(io.BytesIO(client.get("/" + answer["address"]).content))
    with Image.open(io.BytesIO(packed.read("a-red-card.png"))) as film:
        assert film.n_frames == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"place": "whatsapp", "ids": ids("red", "green")}, "至少要有 3 张"),
        ({"place": "slack", "ids": ids("red", "green"), "moving": True}, "nothing moves on slack"),
        ({"place": "", "ids": ids("red")}, "no place"),
        ({"place": "png", "ids": []}, "at least 1"),
        ({"place": "png", "ids": ["../x.png"]}, ""),
    ],
)
def test_a_wrong_set_is_a_sentence(facts: dict[str, Any], sentence: str, client: TestClient) -> None:
    answer = client.post("/library/export", json=facts)
    assert answer.status_code == 400 and sentence.lower() in answer.json()["error"].lower()


def test_the_menu_beside_download_has_each_place_for_one_picture() -> None:
    url = Pictures(lambda: Path("/o"), Path("/e"), lambda: "?visitor=abc").url("/o/2026/a b&c.png")
    menu = downloads(url, "2026/a b&c.png", {})
    found = re.findall(r'href="export/([a-z0-9-]+)/([^"]*)"', menu)
    assert {place for place, _ in found} == {name for name, preset in PRESETS.items() if preset.fewest == 1}
    assert ("png", "2026/a%20b%26c.png?visitor=abc") in found
    assert ("svg", "2026/a%20b%26c.png?visitor=abc&amp;outline=1") in found
    assert LOOKED_UP in menu and 'lang="zh-CN"' in menu
    assert "outline=1" in exports("picture/a.png") and "??" not in exports("picture/a.png")


def test_the_library_offers_every_place() -> None:
    page = frame(folders=False)
    for name, preset in PRESETS.items():
        assert f'data-place="{name}"' in page
        still = f'data-place="{name}" data-still=""' in page
        assert still is not bool(preset.moving)
