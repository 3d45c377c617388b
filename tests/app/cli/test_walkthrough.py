"""`walkthrough` on the command line: the sheets of a picture that `diffuse` drew, and pictures that it cannot explain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from app.cli import run
from app.cli.main import main
from pipelines import studio as studio_module
from pipelines.core.record import Record
from tests.support.tiny import TinyStudio


@pytest.fixture(autouse=True)
def tiny_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_module, "Studio", TinyStudio)


def made(verb: str, folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main([verb, "two", "cats", "--candidates", "2", "--out", str(folder), "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)["pictures"][1]["path"]


def test_the_sheets_of_a_picture_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made("diffuse", tmp_path, capsys, "--steps", "3", "--word-weights", "cats=2")
    assert main(["walkthrough", path, "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["word"] for one in told["words"]] == ["two", "cats"] and len(told["schedule"]) == 3
    with Image.open(told["words_sheet"]) as sheet:
        assert sheet.width > sheet.height  # two words beside each other
    with Image.open(told["guesses_sheet"]) as sheet:
        assert sheet.width > sheet.height  # three steps, two rows
    assert main(["walkthrough", path, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "cats: " in printed and "% of the attention" in printed and "-guesses.png" in printed


def test_pictures_of_others_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made("generate", tmp_path, capsys)
    assert main(["walkthrough", path, "--out", str(tmp_path)]) == 2
    assert "made by generate" in capsys.readouterr().err


def test_what_reads_for_a_recorded_model_is_no_part_of_the_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(run, "load", lambda *arguments: seen.append(arguments))
    named = {"clip": "tiny-clip", "prior": "lost", "reader:tiny-tokenizer": "tiny-tokenizer"}
    models = {part: {"name": name, "sha256": ""} for part, name in named.items()}
    record = Record(
        pipeline="diffuse", pack="tiny", settings={}, models=models, versions={}, device="cpu", picture={},
        created="",
    )  # fmt: skip
    run.load_recorded(record, None, "cpu")
    run.load_recorded(record, "mini", "cpu")
    assert seen == [("diffuse", "tiny", "cpu", {"clip": "tiny-clip"}), ("diffuse", "mini", "cpu", {})]
