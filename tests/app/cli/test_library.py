"""The verb `library`, with a CLIP that sees colours."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli.main import main
from app.library.reading import look_at, read_file
from tests.support.library import ColourClip, put


class ColourStudio:
    """Stands where Studio stands."""

    def __init__(self, **_: Any) -> None:
        pass

    def clip(self) -> Any:
        return ColourClip()


@pytest.fixture(autouse=True)
def studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipelines.studio.Studio", ColourStudio)
    monkeypatch.setenv("ATELIER_OUTPUTS", str(tmp_path / "outputs"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Strangers' pictures, one of them broken."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name in ("red", "green", "blue"):
        Image.new("RGB", (20, 20), name).save(folder / f"{name}.jpg")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["library", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_search_in_any_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "search", "red:1 -green", "--folder", folder)
    assert [Path(one["file"]).name for one in told["found"]][0::2] == ["red.jpg", "green.jpg"]
    assert told["total"] == 3 and [one["file"] for one in told["broken"]] == ["broken.png"]
    liked = run(capsys, "search", "--folder", folder, "--like", folder / "blue.jpg", "--count", 1)
    assert liked["found"][0]["id"] == "blue.jpg"
    words = run(capsys, "search", "--folder", folder, "--words", "green")
    assert [one["id"] for one in words["found"]] == ["green.jpg"]
    assert not list(folder.glob("*library*"))
    assert main(["library", "search", "red", "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.split()[1].endswith("red.jpg")


def test_search_among_the_pictures_made_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "outputs", "a", (220, 30, 30), prompt="a heart", seed=7)
    put(tmp_path / "outputs", "b", (30, 200, 30), prompt="a leaf", seed=8)
    assert run(capsys, "search", "green")["found"][0]["prompt"] == "a leaf"
    assert [one["seed"] for one in run(capsys, "search", "--seed", 7, "--tool", "fake")["found"]] == [7]
    assert run(capsys, "search", "--star")["found"] == []


def test_index_lists_what_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "index", "--folder", folder)
    assert (told["pictures"], told["seen"], len(told["broken"])) == (3, 3, 1)
    assert run(capsys, "index", "--folder", folder)["seen"] == 0
    assert main(["library", "index", "--folder", str(folder)]) == 0
    assert "broken.png" in capsys.readouterr().err


def test_zip_of_what_is_found(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "zip", tmp_path / "a.zip", "red", "--folder", folder, "--count", 2)
    with zipfile.ZipFile(told["zip"]) as archive:
        assert {"red.jpg", "contact-sheet-1.jpg", "pictures.csv"} <= set(archive.namelist())
        assert len(archive.namelist()) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["paint"], "library.verb_unknown"),
        (["search", "--folder", "nowhere"], "library.no_folder"),
        (["search", "--like", "nowhere.png"], "io.picture_missing"),
        (["search", "--date", "soon"], "library.date_form"),
        (["zip", "a.tar", "red"], "library.zip_suffix"),
        (["zip", "a.zip", "--words", "nothing"], "library.nothing_found"),
    ],
)
def test_what_is_wrong_is_told(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", *arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


@pytest.mark.parametrize("stage", ["walk", "read", "decode"])
def test_ctrl_c_ends_at_the_next_file(
    stage: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage would take more than ten seconds."""
    image = (folder / "red.jpg").read_bytes()
    for number in range(200):
        (folder / f"{number}.jpg").write_bytes(image + bytes([number]))
    begun: list[float] = []
    places = {
        "walk": ("app.library.files.stat.S_ISREG", stat.S_ISREG),
        "read": ("app.library.index.read_file", read_file),
        "decode": ("app.library.filling.look_at", look_at),
    }
    name, real = places[stage]

    def slow(*values: Any, **more: Any) -> Any:
        if not begun:
            begun.append(time.monotonic())
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(0.1)
        return real(*values, **more)  # type: ignore[operator]

    monkeypatch.setattr(name, slow)
    assert main(["library", "index", "--folder", str(folder)]) == 130
    assert time.monotonic() - begun[0] < 2 and "stopped" in capsys.readouterr().err
