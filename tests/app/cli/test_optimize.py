"""`optimize` on the command line: films, resuming, restyling, Ctrl+C."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli.main import main
from app.cli.progress import ProgressLine
from pipelines.core.journal import Journal
from pipelines.core.record import read_record
from pipelines.studio import PIPELINES
from tests.support.tiny import TinyStudio


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.studio.Studio", TinyStudio)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_a_run_leaves_pictures_a_journal_and_a_film(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "grow.webp"
    flags = [
        "--steps",
        "12",
        "--cutouts",
        "3",
        "--size",
        "48x32",
        "--out",
        str(tmp_path),
        "--video",
        str(film),
        "--json",
    ]
    assert main(["optimize", "a red heart", *flags]) == 0
    facts = told(capsys)
    record = read_record(facts["pictures"][0]["path"], PIPELINES)
    assert record.pipeline == "optimize" and record.settings["size"] == "48x32"
    assert {10, 12} <= set(Journal(Path(facts["journal"])).steps())  # and some after seconds
    assert facts["video"] == str(film)
    with Image.open(film) as opened:
        assert getattr(opened, "n_frames", 1) > 5
    last = max(facts["pictures"], key=lambda one: one["step"])
    assert main(["replay", last["path"]]) == 0
    assert "identical" in capsys.readouterr().out


def test_resuming_goes_on_and_takes_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--out", str(tmp_path), "--json"]
    assert main(["optimize", "a red heart", "--steps", "12", "--cutouts", "3", *flags]) == 0
    journal = told(capsys)["journal"]
    assert main(["optimize", "green apple", "--steps", "20", "--resume", journal, *flags]) == 0
    facts = told(capsys)
    assert json.loads(facts["record"]["settings"]["changes"]) == {
        "12": {"prompt": "green apple", "steps": 20}
    }
    assert facts["record"]["picture"]["steps"] == 20
    last = max(facts["pictures"], key=lambda one: one["step"])
    assert main(["replay", last["path"]]) == 0
    assert main(["optimize", "--resume", str(tmp_path), *flags]) == 2
    assert "there is no run in" in capsys.readouterr().err
    assert main(["optimize", "--resume", journal, "--seed", "4", *flags]) == 2
    assert "cannot change 'seed'" in capsys.readouterr().err


def test_ctrl_c_keeps_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show = ProgressLine.show

    def press(self: Any, step: Any) -> None:
        show(self, step)
        if step.done == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressLine, "show", press)
    before = signal.getsignal(signal.SIGINT)
    code = main(
        ["optimize", "a red heart", "--steps", "50", "--cutouts", "3", "--out", str(tmp_path), "--json"]
    )
    assert code == 130 and signal.getsignal(signal.SIGINT) == before
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert facts["record"]["settings"]["until"] in (7, 8) and "--resume" in captured.err
    assert Path(facts["pictures"][0]["path"]).is_file()


def test_restyling_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for k, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / "in" / f"{k}.png")
    film = tmp_path / "out.mp4"
    flags = ["--steps", "3", "--cutouts", "2", "--frames", str(tmp_path / "in"), "--video", str(film)]
    assert main(["optimize", "a red heart", *flags, "--out", str(tmp_path / "out"), "--json"]) == 0
    facts = told(capsys)
    assert facts["frames"] == 3 and film.stat().st_size > 500
    assert len(list(Path(facts["folder"]).glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["a:-1"], "no positive weight"),
        (["a", "--video", "film.gif"], ".mp4 or .webp"),
        (["a", "--image", "nowhere.png"], "there is no picture nowhere.png"),
        (["a", "--size", "100x64"], "try 96"),
        (["a", "--frames", "nowhere"], "nowhere"),
        ([], "the prompt is empty"),
    ],
)
def test_wrong_input_is_one_sentence(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimize", *flags, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") <= 1 and said.out == ""
