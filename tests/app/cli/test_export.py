"""The verb `export`: files in a folder, what is told, and what is refused before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli.main import main
from tests.support.tiny import tiny_matting
from tests.support.wall import hang


class MattingStudio:
    """Stands where Studio stands."""

    def __init__(self, **_: Any) -> None:
        pass

    def matting(self) -> Any:
        return tiny_matting()


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three pictures of a thing on white, with records."""
    monkeypatch.setattr("pipelines.studio.Studio", MattingStudio)
    paths = [hang(tmp_path, name, "white", prompt=f"a {name} card") for name in ("red", "green", "blue")]
    for path in paths:
        with Image.open(path) as picture:
            texts = picture.text  # type: ignore[attr-defined]
            picture.paste(path.stem, (8, 8, 24, 24))
            from PIL.PngImagePlugin import PngInfo

            kept = PngInfo()
            for name, text in texts.items():
                kept.add_text(name, text)
            picture.save(path, pnginfo=kept)
    return [str(path) for path in paths]


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["export", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_pack_lies_in_the_folder_and_is_told(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, *pictures, "--for", "whatsapp", "--out", str(tmp_path / "pack"), "--outline")
    names = ["a-red-card.webp", "a-green-card.webp", "a-blue-card.webp", "tray.png"]
    assert [file["name"] for file in told["files"]] == names and told["looked_up"] == "2026-11"
    for file in told["files"]:
        assert Path(file["path"]).stat().st_size == file["bytes"] and not file["record"]
    with Image.open(tmp_path / "pack" / names[0]) as picture:
        assert (
            picture.getpixel((256, 256)) == (255, 0, 0, 255) and picture.getpixel((18, 256))[:3] == (255,) * 3
        )  # type: ignore[index]
    again = run(capsys, *pictures, "--for", "whatsapp", "--out", str(tmp_path / "pack"), code=2)
    assert again["error"]["code"] == "export.would_overwrite"


def test_pictures_become_one_that_moves(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = run(capsys, *pictures, "--for", "discord-sticker", "--moving", "--out", str(tmp_path / "new"))[
        "files"
    ]
    assert file["moves"] and file["width"] == 320
    assert main(["export", *pictures, "--for", "png", "--out", str(tmp_path / "plain")]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 3 and "32 x 32" in out and "carry no records" not in error


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--for", "whatsapp"], "export.too_few"),
        (["--for", "myspace"], "export.place_unknown"),
        (["--for", "slack", "--moving"], "export.nothing_moves"),
    ],
)
def test_what_cannot_be_is_told_early_and_makes_no_folder(
    arguments: list[str], code: str, pictures: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipelines.studio.Studio", None)  # which must not be needed
    told = run(capsys, *pictures[:2], *arguments, "--out", str(tmp_path / "none"), code=2)
    assert told["error"]["code"] == code and not (tmp_path / "none").exists()
    assert run(capsys, str(tmp_path / "no.png"), "--for", "png", "--out", "x", code=2)["error"]
