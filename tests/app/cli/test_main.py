"""The command line: one JSON object, exit codes, one sentence instead of a traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli.main import main
from app.cli.progress import Interrupts, one_ending
from app.cli.run import ROOT
from pipelines import studio as studio_module
from pipelines.core.record import read_record
from pipelines.studio import PIPELINES
from tests.support.tiny import tiny_generate, tiny_transformer_generate


class TinyStudio:
    """Stands where Studio stands, with the tiny test networks."""

    def __init__(self, pack: str = "tiny", device: str = "auto", use: dict[str, str] | None = None) -> None:
        self.pack, self.device = pack, "cpu"

    def pipeline(self, name: str) -> Any:
        return tiny_generate()

    def models(self, name: str) -> dict[str, dict[str, str]]:
        return {"clip": {"name": "tiny-clip", "sha256": "ab" * 32}}


@pytest.fixture
def tiny_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_module, "Studio", TinyStudio)


def generate(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    code = main(
        ["generate", "a", "red", "heart", "--candidates", "5", "--out", str(folder), "--json", *flags]
    )
    out = capsys.readouterr().out
    assert code == 0
    return json.loads(out)  # exactly one object, nothing beside it


@pytest.mark.usefixtures("tiny_studio")
def test_several_prompts_are_drawn_one_after_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.txt").write_text("green apple\n")
    words = ["generate", "{a|two} red heart", "--prompts", str(tmp_path / "more.txt"), "--candidates", "1"]
    assert main([*words, "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    prompts = [read_record(picture["path"], PIPELINES).settings["prompt"] for picture in told["pictures"]]
    assert prompts == ["a red heart", "two red heart", "green apple"]
    assert main(["generate", "--json"]) != 0


@pytest.mark.usefixtures("tiny_studio")
def test_no_words_are_needed_where_a_second_stage_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["generate", "--prior", "--out", str(tmp_path), "--json"]
    assert main(asked) == 2
    assert "train transformer" in capsys.readouterr().err
    monkeypatch.setattr(TinyStudio, "pipeline", lambda *_: tiny_transformer_generate())
    assert main([*asked, "--candidates", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [picture["score"] for picture in told["pictures"]] == [None, None]
    record = read_record(told["pictures"][0]["path"], PIPELINES)
    assert record.settings["prior"] and not record.settings["prompt"]


@pytest.mark.usefixtures("tiny_studio")
def test_generate_prints_one_object_and_writes_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = generate(tmp_path, capsys, "--keep", "2", "--seed", "7", "--guidance", "2.5")
    assert set(told) == {"pictures", "seconds", "record"}
    assert set(told["seconds"]) == {"load", "run"}
    assert len(told["pictures"]) == 2
    for rank, picture in enumerate(told["pictures"], start=1):
        record = read_record(picture["path"], PIPELINES)
        assert record.settings["prompt"] == "a red heart"
        assert record.settings["guidance"] == 2.5
        assert record.picture["seed"] == picture["seed"]
        assert record.picture["rank"] == rank
    assert told["record"]["settings"]["seed"] == 7
    assert told["pictures"][0]["score"] >= told["pictures"][1]["score"]


@pytest.mark.usefixtures("tiny_studio")
def test_replay_proves_sameness_and_notices_a_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(generate(tmp_path, capsys, "--keep", "2")["pictures"][1]["path"])
    assert main(["replay", str(path)]) == 0
    assert "identical" in capsys.readouterr().out
    record = read_record(path, PIPELINES)
    changed = Image.open(path).convert("RGB")
    red, green, blue = changed.getpixel((3, 4))
    changed.putpixel((3, 4), ((red + 100) % 256, green, blue))
    from pipelines.core.record import write_png

    write_png(path, changed, record)
    assert main(["replay", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["identical"] is False and told["largest_difference"] >= 100


@pytest.mark.usefixtures("tiny_studio")
def test_pictures_go_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_OUTPUTS", str(tmp_path / "mounted"))
    assert main(["generate", "a cat", "--candidates", "2", "--keep", "1", "--json"]) == 0
    path = Path(json.loads(capsys.readouterr().out)["pictures"][0]["path"])
    assert path.is_file() and path.is_relative_to(tmp_path / "mounted")


@pytest.mark.usefixtures("tiny_studio")
def test_a_record_without_its_pictures_cannot_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.core.record import without_pictures

    first = generate(tmp_path, capsys)["pictures"][0]["path"]
    path = Path(generate(tmp_path, capsys, "--image", first)["pictures"][0]["path"])
    path.write_bytes(without_pictures(path))
    assert main(["replay", str(path)]) == 2
    assert "the pictures that were given (image) were left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        (["--port", "70000"], {}, "port '70000' is not a whole number"),
        ([], {"GRADIO_SERVER_PORT": "many"}, "port 'many' is not a whole number"),
        (["--host", "192.0.2.1"], {}, "192.0.2.1 is no address of this machine; try --host 127.0.0.1"),
        (["--open"], {}, "--open is for a studio that other machines reach"),
        (["--open", "--host", "0.0.0.0"], {"ATELIER_PASSWORD": "x"}, "do not go together"),
        (["--password", ""], {}, "the password is empty"),
    ],
)
def test_a_studio_that_cannot_be_served_says_why(
    flags: list[str],
    environment: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda _: "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["ui", "--no-browser", *flags]) == 2
    told = capsys.readouterr().err
    assert words in told and len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "the commands are generate"),
        (["generate"], "the prompt is empty"),
        (["generate", ""], "the prompt is empty"),
        (["generate", "x" * 10_000], "the most is 2,000"),
        (["generate", "a\x07b"], r"U+0007"),
        (["generate", "x", "--candidates", "0"], "candidates 0 is too small; the least is 1"),
        (["generate", "x", "--candidates", "513"], "the most is 512"),
        (["generate", "x", "--candidates", "many"], "'many' is not a whole number"),
        (["generate", "x", "--temperature", "nan"], "temperature nan is not a number"),
        (["generate", "x", "--colour", "red"], "unrecognized arguments"),
        (["generate", "x", "--pack", "huge"], "try tiny"),
        (["generate", "x", "--device", "abacus"], "try cpu"),
        (["replay", "missing.png"], "missing.png"),
        (["ui", "--port", "70000"], "try 7860"),
        (["bench", "nothing"], "invalid choice"),
        (["train", "unicorn"], "invalid choice"),
        (["train", "clip", "--minutes", "nan"], "'nan' is not a number from 0.01"),
        (["train", "clip", "--minutes", "-3"], "'-3' is not a number from 0.01"),
        (["train", "clip", "--steps", "0"], "'0' is not a whole number from 1"),
        (["evaluate", "--names", "x"], "'x' is not a whole number from 0"),
        (["evaluate", "--candidates", "0"], "'0' is not a whole number from 1 to 64"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def work(*_: object) -> None:
        raise AssertionError("wrong input was worked on")

    monkeypatch.setattr("pipelines.training.cli.train", work)
    monkeypatch.setattr("pipelines.evaluation.cli.evaluate", work)
    extra = ["--out", str(tmp_path)] if arguments[0] == "generate" else []
    assert main([*arguments, *extra]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err and "Traceback" not in said.err
    assert said.err.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_with_json_wrong_input_is_told_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly", "--json"]) == 2
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert error["code"] == "cli.command_unknown" and error["facts"]["command"] == "fly"
    assert error["text"] in said.err


@pytest.mark.usefixtures("tiny_studio")
@pytest.mark.parametrize("kind", ["text", "truncated", "svg", "gif"])
def test_strangers_pictures_are_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    if kind == "gif":
        Image.new("RGB", (9, 9)).save(path, "GIF")
    elif kind == "truncated":
        Image.effect_noise((64, 64), 90).save(path)
        path.write_bytes(path.read_bytes()[:-900])
    else:
        path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>" if kind == "svg" else "hello")
    assert main(["generate", "x", "--image", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.strip().count("\n") == 0 and "Traceback" not in said
    assert not list((tmp_path / "out").glob("*"))


def test_models_lists_every_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.weights.catalog import CHECKPOINTS

    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert [row["name"] for row in rows] == list(CHECKPOINTS)
    assert all(row["licence"] and row["origin"] for row in rows)
    assert main(["models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKPOINTS) + 1


def test_help_is_there_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "replay" in capsys.readouterr().out
    for verb in (
        "generate",
        "replay",
        "models",
        "deploy",
        "data",
        "train",
        "evaluate",
        "bench",
        "showcase",
        "ui",
    ):
        assert main([verb, "--help"]) == 0
        assert "usage: launch.py" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_studio")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.io.files.os.fsync", full)
    assert main(["generate", "x", "--candidates", "2", "--out", str(tmp_path)]) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["generate", "x", "--out", "~nobody_such/x"],
            "~nobody_such/x begins with a home folder that is not on",
        ),
        (
            ["ui", "--no-browser", "--port", "7913", "--out", "~nobody_such"],
            "home folder that is not on this machine",
        ),
        (["optimize", "x", "--video", "~nobody_such/a.mp4"], "home folder that is not on this machine"),
        (["optimize", "x", "--video", "/proc/self/a/a.mp4"], "/proc/self/a/a.mp4 cannot be written"),
        (["optimize", "x", "--video", "file/a.mp4"], "cannot be written"),
        (["optimize", "x", "--video", "folder.mp4"], "cannot be written (is a directory)"),
        (
            ["edit", "--target", "x", "--mode", "quick", "--save-direction", "file/a.safetensors"],
            "cannot be written",
        ),
        (["generate", "x", "--out", "/proc/self"], "may not be written"),
        (["probe", ".", "--out", "file/a.safetensors"], "cannot be written"),
        (["explain", "a.png", "a cup", "--maps", "file/a.png"], "cannot be written"),
        (["score", "a.png", "a cup", "--out", "file/a.csv"], "cannot be written"),
        (["library", "zip", "file/a.zip"], "cannot be written"),
        (["score", "~nobody_such/a.csv"], "a.csv"),
        (["guide", "x", "--disco", "~nobody_such/a.txt"], "~nobody_such/a.txt"),
        (["generate", "x", "--out", "file/a"], "cannot be made"),
        (["optimize", "--resume", "~nobody_such/a-run"], "there is no run in ~nobody_such/a-run"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_the_run(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    monkeypatch.setenv("ATELIER_OUTPUTS", str(tmp_path / "out"))
    monkeypatch.setattr(studio_module, "Studio", lambda *_, **__: pytest.fail("a model was loaded"))
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert words in told and len(told.strip().splitlines()) == 1
    assert not list(tmp_path.glob("**/*.part"))


def test_a_home_of_nobody_for_models_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_MODELS", "~nobody_such/models")
    assert main(["models"]) == 2
    assert "home folder that is not on this machine" in capsys.readouterr().err


ENDED = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts beside itself
from app.cli import main
def dispatch(arguments):
    os.kill(os.getpid(), getattr(signal, arguments[0]))
    time.sleep(20)
main._dispatch = dispatch
code = main.main(sys.argv[1:])
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
sys.exit(code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_what_ends_a_command_ends_it_like_ctrl_c(name: str) -> None:
    code = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup takes from the tests\n"
        + ENDED
    )
    ended = subprocess.run([sys.executable, "-c", code, name], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 130 and "stopped; nothing unfinished was kept" in ended.stderr


@pytest.mark.skipif(shutil.which("nohup") is None, reason="the system has no nohup")
def test_what_is_ignored_stays_so() -> None:
    code = ENDED.replace("sleep(20)", "sleep(0.1)")
    assert subprocess.run(["nohup", sys.executable, "-c", code, "SIGHUP"], cwd=ROOT).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_to_end_is_held_back_by_a_run_that_can_be_stopped() -> None:
    with one_ending():
        interrupts = Interrupts()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.count == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        interrupts.close()
