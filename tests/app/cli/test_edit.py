"""`edit` on the command line: pictures, directions kept and used again, replay, wrong input, Ctrl+C."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.cli.main import main
from app.cli.progress import ProgressLine
from pipelines.core.journal import Journal
from pipelines.core.record import read_record
from pipelines.edit.directions import read_direction
from pipelines.studio import PIPELINES
from tests.support.pictures import size_of
from tests.support.tiny import TinyStudio

FAST = ["--mode", "quick", "--updates", "3", "--steps", "3", "--strip", "2", "--step-size", "0.03"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.studio.Studio", TinyStudio)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(60, 190, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "start.png")
    return tmp_path / "start.png"


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_a_direction_is_learned_kept_used_again_and_replayed(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "angry.safetensors"
    out = ["--out", str(tmp_path / "out"), "--json"]
    texts = ["--source", "a cat", "--target", "two cats"]
    assert main(["edit", str(picture), *texts, *FAST, "--save-direction", str(kept), *out]) == 0
    learned = told(capsys)
    assert set(learned) == {"pictures", "seconds", "record", "journal", "direction"}
    assert set(learned["seconds"]) == {"load", "run"} and learned["direction"] == str(kept)
    assert [one["strength"] for one in learned["pictures"]] == [1.0, 0.0]
    best = learned["pictures"][0]
    assert {
        "path",
        "score",
        "seed",
        "rank",
        "return_step",
        "updates",
        "curves",
        "clip direction",
        "L1",
    } <= set(best)
    assert best["rank"] == 1 and best["updates"] == 3 and best["score"] == best["critic target"]
    record = read_record(best["path"], PIPELINES)
    assert record.pipeline == "edit" and record.settings["source"] == "a cat"
    assert record.settings["prompt"] == "two cats" and record.settings["image"].startswith("data:image/png")
    assert Journal(Path(learned["journal"])).steps()[-1] == 3
    same = Image.open(learned["pictures"][1]["path"])
    assert same.tobytes() == Image.open(picture).tobytes()

    direction = read_direction(kept)
    assert direction.words == "a cat → two cats" and direction.facts["updates"] == 3
    use = ["--direction", f"{kept}:1", "--steps", "3", "--strip", "1"]
    assert main(["edit", str(picture), *use, *out]) == 0
    applied = told(capsys)
    assert "direction" not in applied
    assert Image.open(applied["pictures"][0]["path"]).tobytes() == Image.open(best["path"]).tobytes()

    kept.unlink()
    picture.unlink()
    for made in (best["path"], learned["pictures"][1]["path"], applied["pictures"][0]["path"]):
        assert main(["replay", made]) == 0
        assert "identical" in capsys.readouterr().out


def test_without_json_paths_are_printed(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["edit", str(picture), "--mode", "instant", "--steps", "2", "--strip", "2", *out]) == 0
    said = capsys.readouterr()
    paths = [Path(line.split("  ")[0]) for line in said.out.splitlines()]
    assert len(paths) == 2 and all(size_of(path) == (30, 20) for path in paths)
    assert "2 pictures in" in said.err


def test_without_a_picture_an_example_is_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--json"]
    assert main(["edit", "--mode", "instant", "--steps", "2", "--strip", "1", "--seed", "7", *out]) == 0
    path = told(capsys)["pictures"][0]["path"]
    assert size_of(path) == (16, 16)
    assert main(["replay", path]) == 0 and "identical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nowhere.png"], "there is no picture nowhere.png"),
        (["PICTURE", "--mode", "instant", "--save-direction", "a.safetensors"], "there is nothing to save"),
        (["PICTURE", "--direction", "b.safetensors", "--save-direction", "a.safetensors"], "nothing to save"),
        (["PICTURE", "--save-direction", "a.txt"], "must end in .safetensors"),
        (["PICTURE", "--direction", "nowhere.safetensors"], "there is no direction 'nowhere.safetensors'"),
        (["PICTURE", "--direction", "a:7"], "not in -1 to 1.5"),
        (["PICTURE", "--mode", "slow"], "not one of instant, quick, reusable, paper"),
        (["PICTURE", "--source", "a cat", "--target", "the cat"], "nowhere to go"),
        (["PICTURE", "--strength", "2"], "strength 2 is too large; the most is 1.5"),
        (["PICTURE", "--crop", "0,0,99x99"], "the crop ends at 99x99"),
        (["PICTURE", "--mask", "PICTURE", "--mask", "nowhere.png"], "there is no picture nowhere.png"),
        (["--resume", "nowhere"], "there is no run in nowhere"),
    ],
)
def test_wrong_input_is_one_sentence(
    flags: list[str], words: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [str(picture) if flag == "PICTURE" else flag for flag in flags]
    assert main(["edit", *flags, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") <= 1 and said.out == ""


def press_at(monkeypatch: pytest.MonkeyPatch, stage: str, done: int) -> None:
    """Ctrl+C when a run shows this step."""
    show = ProgressLine.show

    def press(self: Any, step: Any) -> None:
        show(self, step)
        if (step.stage, step.done) == (stage, done):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressLine, "show", press)


def test_ctrl_c_keeps_what_was_learned(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--out", str(tmp_path / "out"), "--json"]
    kept = str(tmp_path / "a.safetensors")
    with monkeypatch.context() as pressed:
        press_at(pressed, "learn", 2)
        assert main(["edit", str(picture), *FAST, "--save-direction", kept, *out]) == 130
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert facts["pictures"][0]["updates"] == 2 and read_direction(kept).facts["updates"] == 2
    assert "--resume" in said.err
    assert main(["replay", facts["pictures"][0]["path"]]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_stopped_learning_is_resumed(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--out", str(tmp_path / "out"), "--json"]
    with monkeypatch.context() as pressed:
        press_at(pressed, "learn", 2)
        assert main(["edit", str(picture), *FAST, *out]) == 130
    journal = told(capsys)["journal"]
    assert main(["edit", "--resume", journal, *out]) == 0
    resumed = told(capsys)
    assert resumed["pictures"][0]["updates"] == 3
    assert main(["edit", str(picture), *FAST, *out]) == 0
    whole = told(capsys)
    for one, same in zip(resumed["pictures"], whole["pictures"], strict=True):
        assert Image.open(one["path"]).tobytes() == Image.open(same["path"]).tobytes()


def test_a_resumed_run_takes_changes_or_refuses_them(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--json"]
    assert main(["edit", str(picture), *FAST, *out]) == 0
    journal = told(capsys)["journal"]
    code = main(["edit", "--resume", journal, "--strength", "0.5", *out])
    said = capsys.readouterr()
    assert code in (0, 2), said.err
    if code == 0:
        assert json.loads(said.out)["pictures"][0]["strength"] == 0.5


@pytest.mark.parametrize("stage", ["invert", "draw"])
def test_ctrl_c_in_other_stages_is_no_failure(
    stage: str,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    press_at(monkeypatch, stage, 1)
    before = signal.getsignal(signal.SIGINT)
    assert main(["edit", str(picture), *FAST, "--out", str(tmp_path / "out"), "--json"]) == 130
    assert signal.getsignal(signal.SIGINT) == before
    assert "stopped" in capsys.readouterr().err
