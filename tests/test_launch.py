"""launch.py: what it finds, what it makes, what it says."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import launch


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """launch.py as if it stood in an empty folder with one requirements file."""
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\npillow==12.3.0  # pictures\n")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setattr(launch, "VENV", venv)
    monkeypatch.setattr(launch, "UNFINISHED", venv / "atelier-unfinished")
    monkeypatch.setattr(launch, "STAMP", venv / "atelier-stamp")
    monkeypatch.setattr(launch, "REQUIREMENTS", tmp_path / "requirements.txt")
    return tmp_path


def fake_venv(python: Path) -> None:
    python.parent.mkdir(parents=True, exist_ok=True)
    python.touch()
    launch.UNFINISHED.touch()


def test_only_the_standard_library_before_requirements_are_in() -> None:
    tree = ast.parse(Path(launch.__file__).read_text("utf-8"))
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {
        (node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert names - {"app"} <= set(sys.stdlib_module_names)


def test_pins_and_differences(home: Path) -> None:
    assert launch.pins([launch.REQUIREMENTS]) == {"torch": "2.13.0", "pillow": "12.3.0"}
    (home / "requirements.txt").write_text("surely-not-installed==1.0\npytest==0.0.1\n")
    wrong = launch.differences([launch.REQUIREMENTS])
    assert wrong["surely-not-installed"] is None
    assert wrong["pytest"] == pytest.__version__


def test_the_projects_own_pins_hold_torch() -> None:
    root = Path(launch.__file__).parent
    assert launch.pins([root / "requirements.txt"])["torch"] == "2.13.0"
    assert "torchvision" not in launch.pins([root / "requirements.txt", root / "tests" / "requirements.txt"])


def test_an_old_python_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert launch.main([]) == 1
    assert "needs Python 3.11 or newer" in capsys.readouterr().err


def test_setting_up_installs_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(launch, "make_venv", fake_venv)
    monkeypatch.setattr(launch, "install", lambda _, file: installed.append(file.name))
    launch.set_up([launch.REQUIREMENTS])
    launch.set_up([launch.REQUIREMENTS])
    assert installed == ["requirements.txt"]
    (home / "requirements.txt").write_text("torch==2.14.0\n")
    launch.set_up([launch.REQUIREMENTS])
    assert installed == ["requirements.txt"] * 2


def test_a_failed_install_is_said_and_the_next_start_begins_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(python: Path) -> None:
        made.append(python)
        fake_venv(python)

    def fail(*_: object) -> None:
        raise launch.SetUpFailed("the packages could not be installed; check the network")

    monkeypatch.setattr(launch, "make_venv", make)
    monkeypatch.setattr(launch, "install", fail)
    with pytest.raises(launch.SetUpFailed, match="check the network"):
        launch.set_up([launch.REQUIREMENTS])
    assert not launch.STAMP.exists()
    monkeypatch.setattr(launch, "install", lambda *_: None)
    launch.set_up([launch.REQUIREMENTS])
    assert len(made) == 2  # the half-made one was not trusted
    assert launch.STAMP.exists() and not launch.UNFINISHED.exists()


def test_one_killed_while_being_made_is_known_as_such(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(builder: object, folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "bin" / "python").touch()
        raise KeyboardInterrupt

    launch.VENV.mkdir()
    (launch.VENV / "leftover").touch()
    monkeypatch.setattr("venv.EnvBuilder.create", killed)
    with pytest.raises(KeyboardInterrupt):
        launch.set_up([launch.REQUIREMENTS])
    assert launch.UNFINISHED.exists() and not (launch.VENV / "leftover").exists()
    made: list[Path] = []
    monkeypatch.setattr(launch, "make_venv", lambda python: made.append(python) or fake_venv(python))
    monkeypatch.setattr(launch, "install", lambda *_: None)
    launch.set_up([launch.REQUIREMENTS])
    assert len(made) == 1


def test_pips_last_words_are_passed_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "requirements.txt").write_text("-r missing-file.txt\n")
    with pytest.raises(launch.SetUpFailed) as failed:
        launch.install(Path(sys.executable), launch.REQUIREMENTS)
    assert "could not be installed" in str(failed.value) and "missing-file.txt" in str(failed.value)


def test_no_venv_uses_what_is_there_and_names_what_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "requirements.txt").write_text("surely-not-installed==1.0\n")
    assert launch.main(["models", "--no-venv"]) == 1
    assert "lacks surely-not-installed" in capsys.readouterr().err
    (home / "requirements.txt").write_text("")
    handed: list[list[str]] = []
    monkeypatch.setattr(launch, "hand_over", lambda arguments: handed.append(arguments) or 0)
    assert launch.main(["models", "--no-venv"]) == 0
    assert handed == [["models"]]
    assert not (home / ".venv").exists()
