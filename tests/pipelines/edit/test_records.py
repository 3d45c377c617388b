"""Records of edits, and what they do not tell."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.core.pipeline import Result
from pipelines.core.record import read_record, record_of, write_png
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput
from pipelines.studio import PIPELINES
from tests.support.edit import (
    STRONG,
    finished,
    first,
    half,
    pixels,
    smooth,
    speckled,
    uri,
)


def recorded(result: Result, folder: Path) -> tuple[EditSettings, bytes]:
    """Write the first picture: the settings in its record, and the file."""
    record = record_of(
        pipeline="edit", pack="tiny", device="cpu", models={}, settings=result.settings,
        picture=result.pictures[0], rank=1,
    )  # fmt: skip
    write_png(folder / "a.png", first(result), record)
    read = read_record(folder / "a.png", PIPELINES)
    assert read == record
    return EditSettings.from_dict(read.settings), (folder / "a.png").read_bytes()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mode": "instant"},
        {"mode": "paper", "return_step": 100, "updates": 1, "inversion_iterations": 0},
        {"directions": True},
        {"mask": True, "crop": "2,3,20x12"},
        {
            "mode": "reusable",
            "source_images": True,
            "target_images": True,
            "purify": 1,
            "automatic_mask": True,
        },
    ],
    ids=str,
)
def test_a_record_is_enough_to_replay(
    edit: Edit, saved: list[Path], tmp_path: Path, fields: dict[str, Any]
) -> None:
    picture = speckled((30, 20))
    picture.save(tmp_path / "start.png")
    given = {
        "directions": f"{saved[0]}:0.7@900-100 | {saved[1]}:-0.33333333",
        "mask": uri(half((30, 20))),
        "source_images": " | ".join(uri(speckled((16, 16), seed)) for seed in (3, 4)),
        "target_images": uri(speckled((16, 16), 5)),
    }
    fields = {name: given.get(name, value) if value is True else value for name, value in fields.items()}
    settings = EditSettings(**{**STRONG, "strip": 2, "image": str(tmp_path / "start.png"), **fields})
    result = finished(edit, settings)
    (tmp_path / "start.png").unlink()
    settings, _ = recorded(result, tmp_path)
    assert pixels(finished(edit, settings)) == pixels(result)


def test_a_record_without_a_mode_is_of_a_quick_edit(edit: Edit, tmp_path: Path) -> None:
    quick = finished(edit, EditSettings(image=uri(speckled((16, 16))), **STRONG))
    settings = quick.settings.to_dict()
    del settings["mode"]
    record = record_of(
        pipeline="edit", pack="tiny", device="cpu", models={}, settings=quick.settings,
        picture=quick.pictures[0], rank=1,
    )  # fmt: skip
    write_png(tmp_path / "a.png", first(quick), replace(record, settings=settings))
    read = EditSettings.from_dict(read_record(tmp_path / "a.png", PIPELINES).settings)
    assert read.mode == "quick" and pixels(finished(edit, read)) == pixels(quick)
    assert EditSettings().mode == "instant" == EditSettings.recorded(EditSettings().to_dict(), {})["mode"]


@pytest.mark.parametrize(
    "fields", [{"directions": "/etc/passwd"}, {"directions": "a:1 | /etc/passwd:0.5@900-0"}]
)
def test_a_strangers_record_cannot_name_directions(
    edit: Edit, tmp_path: Path, fields: dict[str, Any]
) -> None:
    refuse_as_record(edit, tmp_path, fields)


@pytest.mark.parametrize("name", ["image", "mask", "target_images", "source_images"])
def test_a_strangers_record_cannot_name_pictures(edit: Edit, tmp_path: Path, name: str) -> None:
    refuse_as_record(edit, tmp_path, {name: "/etc/passwd"})


def refuse_as_record(edit: Edit, folder: Path, fields: dict[str, Any]) -> None:
    result = finished(edit, EditSettings(mode="instant", steps=2, strip=1))
    record = record_of(
        pipeline="edit", pack="tiny", device="cpu", models={}, settings=EditSettings(**fields),
        picture=result.pictures[0], rank=1,
    )  # fmt: skip
    write_png(folder / "a.png", first(result), record)
    with pytest.raises(BadInput, match="names a file"):
        read_record(folder / "a.png", PIPELINES)


def secretive(path: Path) -> Path:
    """A picture that tells where it was taken, and by whom."""
    exif = Image.Exif()
    exif[0x010F] = "SECRETCAMERA"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0), 29: "SECRETPLACE"})
    extra: dict[str, Any] = {"xmp": b"<x>SECRETXMP</x>"}
    if path.suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        texts = PngInfo()
        texts.add_text("Author", "SECRETAUTHOR")
        extra = {"pnginfo": texts}
    elif path.suffix == ".jpg":
        extra["comment"] = b"SECRETCOMMENT"
    smooth((24, 16)).save(path, exif=exif, **extra)
    assert path.read_bytes().count(b"SECRET") >= 3
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_nothing_that_a_photo_tells_is_passed_on(edit: Edit, tmp_path: Path, name: str) -> None:
    path = str(secretive(tmp_path / name))
    fields: dict[str, Any] = {
        "image": path,
        "target_images": path,
        "source_images": f"{path} | {path}",
        "mask": "",
    }
    result = finished(edit, EditSettings(**{**STRONG, "mode": "reusable", "updates": 1}, **fields))
    _, data = recorded(result, tmp_path)
    texts = [data]
    settings = result.settings.to_dict()
    for field in ("image", "target_images", "source_images"):
        assert settings[field].startswith("data:image/png;base64,")
        texts += [base64.b64decode(one.split(",")[1]) for one in settings[field].split("|")]
    for text in texts:
        for mark in (b"SECRET", b"Exif", b"eXIf", b"GPS", path.encode()):
            assert mark not in text
