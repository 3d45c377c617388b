"""launch.py: what it finds, what it makes, what it says."""

from __future__ import annotations

import ast
import re
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import launch
from app import torch_build
from tests.support import chromium
from tests.support.scripts import VERSIONS, pip_that_finds, posix

ROOT = Path(launch.__file__).parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """launch.py as if it stood in an empty folder with one requirements file."""
    (tmp_path / "requirements.txt").write_text("torch>=2.10,<2.14\npillow==12.3.0  # pictures\n")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setattr(launch, "VENV", venv)
    monkeypatch.setattr(launch, "UNFINISHED", venv / "atelier-unfinished")
    monkeypatch.setattr(launch, "STAMP", venv / "atelier-stamp")
    monkeypatch.setattr(launch, "BEFORE", tmp_path / ".venv-before")
    monkeypatch.setattr(launch, "LOCK", tmp_path / ".venv-lock")
    monkeypatch.setattr(launch, "REQUIREMENTS", tmp_path / "requirements.txt")
    return tmp_path


class Made:
    """What set_up does, without doing it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.python, self.torch = launch.python_now(), ""
        self.done: list[str] = []
        self.fails: str | None = None
        self.complete = False  # whether it has all, whatever its stamp says
        monkeypatch.setattr(launch, "has_all", lambda *_: self.complete)
        monkeypatch.setattr(launch, "make_venv", self.make_venv)
        monkeypatch.setattr(launch, "install", lambda _, file: self.do(file.name))
        monkeypatch.setattr(launch, "install_torch", self.install_torch)
        monkeypatch.setattr(launch, "inside", self.inside)
        monkeypatch.setattr(torch_build, "for_this_machine", lambda: "cpu")
        monkeypatch.setattr(torch_build, "on_linux", lambda: True)

    def make_venv(self, python: Path) -> None:
        self.done.append("venv")
        self.python, self.torch = launch.python_now(), ""
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        launch.UNFINISHED.touch()

    def do(self, what: str) -> None:
        if what == self.fails:
            raise launch.SetUpFailed("the packages could not be installed; check the network")
        self.done.append(what)

    def install_torch(self, _: Path, build: str) -> None:
        self.do(f"torch {build}")
        self.torch = "2.13.0+cpu" if build == "cpu" else "2.13.0"

    def inside(self, python: Path) -> tuple[str, str]:
        return (self.python, self.torch) if python.exists() else ("", "")

    def set_up(self, build: str = "") -> list[str]:
        """What one start does."""
        self.done = []
        launch.set_up([launch.REQUIREMENTS], build)
        return self.done


@pytest.fixture
def made(home: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


@pytest.mark.parametrize("file", [launch.__file__, torch_build.__file__, chromium.__file__])
def test_only_the_standard_library_before_requirements_are_in(file: str) -> None:
    tree = ast.parse(Path(file).read_text("utf-8"))
    # What the browser's functions import is there by then: they run with the tests' packages.
    nodes = tree.body if file == chromium.__file__ else list(ast.walk(tree))
    names = {
        alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names - {"app", "tests"} <= set(sys.stdlib_module_names)


def test_pins_and_differences(home: Path) -> None:
    assert launch.pins([launch.REQUIREMENTS]) == {"torch": ">=2.10,<2.14", "pillow": "==12.3.0"}
    (home / "requirements.txt").write_text("surely-not-installed==1.0\npytest==0.0.1\n")
    wrong = launch.differences([launch.REQUIREMENTS])
    assert wrong["surely-not-installed"] is None
    assert wrong["pytest"] == pytest.__version__
    (home / "requirements.txt").write_text("pytest>=1.0,<1000\n")
    assert launch.differences([launch.REQUIREMENTS]) == {}


def test_torch_is_a_range_and_every_other_package_is_pinned() -> None:
    pins = launch.pins([ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt"])
    assert [name for name, wanted in pins.items() if not wanted.startswith("==")] == ["torch"]
    tested = re.findall(
        r"2\.\d+\.\d+", (ROOT / "requirements.txt").read_text().split("# tested:")[1].split("\n")[0]
    )
    assert len(tested) >= 2 and all(torch_build.fits(one, pins["torch"]) for one in tested)
    assert "torchvision" not in pins


def test_every_package_that_is_imported_is_required() -> None:
    names = {"PIL": "pillow", "resvg_py": "resvg-py"}
    imported: set[str] = set()
    for file in [*(ROOT / "app").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").split(".")[0])
    imported -= set(sys.stdlib_module_names) | {"app", "pipelines"}
    assert "torch" in imported
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [wanted for extra in project["optional-dependencies"].values() for wanted in extra]
    optional = {re.split(r"[\[=<>~! ]", wanted)[0] for wanted in extras}
    required = set(launch.pins([ROOT / "requirements.txt"]))
    assert {names.get(one, one) for one in imported} <= required | optional


def test_an_old_python_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert launch.main([]) == 1
    assert "needs Python 3.11 or newer" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that something stands in")
def test_a_start_in_a_folder_that_is_gone_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert launch.main(["models"]) == 2
    assert "is gone; change to another one" in capsys.readouterr().err


def test_a_python_that_the_packages_are_not_there_for_is_told_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    with pytest.raises(launch.SetUpFailed, match=r"Python 3\.11 to 3\.14 .* python3\.14 launch\.py"):
        launch.make_venv(launch.VENV / "bin" / "python")
    assert not launch.VENV.exists()


def test_setting_up_installs_once(home: Path, made: Made) -> None:
    assert made.set_up() == ["venv", "torch cpu", "requirements.txt"]
    assert made.set_up() == []
    (home / "requirements.txt").write_text("torch>=2.10,<2.14\n")
    assert made.set_up() == ["requirements.txt"]


def test_a_venv_that_works_is_never_thrown_away(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.set_up()
    made.python = "python 3.10"  # another Python starts launch.py now
    launch.STAMP.write_text(launch.STAMP.read_text().replace(launch.python_now(), "python 3.10"))
    assert made.set_up() == []
    assert ".venv has Python 3.10, which is used" in capsys.readouterr().err
    made.python = "python 3.9"  # the system's Python was replaced under it: its packages are out of reach
    assert made.set_up() == ["venv", "torch cpu", "requirements.txt"]


def test_a_venv_is_put_aside_until_another_works_and_put_back_when_none_does(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    made.set_up()
    (launch.VENV / "mine").touch()
    made.python = "python 3.9"  # its packages are out of reach, but offline it is all there is
    for fails in ("torch cpu", "requirements.txt"):
        made.fails, made.python = fails, "python 3.9"
        with pytest.raises(launch.SetUpFailed):
            made.set_up()
        assert (launch.VENV / "mine").exists() and launch.STAMP.exists() and not launch.BEFORE.exists()
    assert "as it was before" in capsys.readouterr().err
    launch.VENV.rename(launch.BEFORE)  # a start was killed while it made the new one
    launch.VENV.mkdir()
    launch.UNFINISHED.touch()
    with pytest.raises(launch.SetUpFailed):
        made.set_up()
    assert (launch.VENV / "mine").exists()
    made.fails, made.python = None, "python 3.9"
    assert made.set_up() == ["venv", "torch cpu", "requirements.txt"]
    assert not launch.BEFORE.exists() and not (launch.VENV / "mine").exists()


def test_a_venv_that_is_a_link_is_only_unlinked(home: Path, made: Made) -> None:
    made.set_up()
    launch.VENV.rename(home / "elsewhere")
    launch.VENV.symlink_to("elsewhere")
    made.python = "python 3.9"
    assert made.set_up()[0] == "venv"
    assert (home / "elsewhere" / "atelier-stamp").exists() and not launch.VENV.is_symlink()
    assert not launch.BEFORE.is_symlink()


def test_a_link_to_nowhere_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = launch.VENV / "bin" / "python"
    monkeypatch.setattr("venv.EnvBuilder.create", lambda *_: (python.parent.mkdir(), python.touch()))
    launch.VENV.symlink_to("nowhere")
    launch.make_venv(python)
    assert launch.UNFINISHED.exists() and not launch.VENV.is_symlink()


def test_what_worked_last_is_put_back_and_not_what_could_not_be_deleted_earlier(made: Made) -> None:
    made.set_up()
    launch.BEFORE.mkdir()  # of an earlier time
    (launch.VENV / "mine").touch()
    made.fails, made.python = "torch cpu", "python 3.9"
    with pytest.raises(launch.SetUpFailed):
        made.set_up()
    assert (launch.VENV / "mine").exists() and not launch.BEFORE.exists()


def test_two_starts_do_not_set_up_at_once(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with launch.alone():
        second = threading.Thread(target=made.set_up)
        second.start()
        second.join(0.3)
        assert second.is_alive() and made.done == [] and not launch.VENV.exists()
    second.join(60)
    assert made.done == ["venv", "torch cpu", "requirements.txt"]
    assert "another start is setting up" in capsys.readouterr().err


def test_a_venv_without_a_stamp_that_has_everything_is_used(made: Made) -> None:
    python = launch.VENV / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    made.python, made.torch, made.complete = "python 3.12", "2.13.0+cpu", True
    assert made.set_up() == [] and made.set_up() == []
    launch.STAMP.unlink()
    made.complete = False
    assert made.set_up() == ["venv", "torch cpu", "requirements.txt"]


def test_a_python_is_asked_whether_it_has_everything(home: Path) -> None:
    (home / "requirements.txt").write_text(f"pytest=={pytest.__version__}\n")
    (home / "launch.py").write_bytes((ROOT / "launch.py").read_bytes())
    (home / "app").symlink_to(ROOT / "app")
    assert launch.has_all(Path(sys.executable), [launch.REQUIREMENTS])
    (home / "requirements.txt").write_text("surely-not-installed==1.0\n")
    assert not launch.has_all(Path(sys.executable), [launch.REQUIREMENTS])


def test_a_stamp_of_an_earlier_atelier_is_known(made: Made) -> None:
    made.set_up()
    launch.STAMP.write_text(f"requirements.txt 0123456789abcdef {launch.python_now()}")
    assert made.set_up() == ["requirements.txt"]


def test_another_build_of_torch_comes_when_it_is_asked_for_or_the_range_leaves_the_old_one(
    home: Path, made: Made
) -> None:
    made.set_up()
    assert made.set_up("cpu") == []
    assert made.set_up("cuda") == ["torch cuda", "requirements.txt"]
    assert made.set_up() == []  # it stays, although the machine alone would get the CPU build
    (home / "requirements.txt").write_text("torch>=2.14,<2.16\n")
    assert made.set_up() == ["torch cuda", "requirements.txt"]
    assert made.set_up("/a/torch-2.14.0-cp311-cp311-linux_x86_64.whl")[0].startswith("torch /a/torch-2.14.0")


def test_what_fails_in_a_venv_that_works_leaves_it_working(made: Made) -> None:
    made.set_up()
    made.fails = "torch cuda"
    with pytest.raises(launch.SetUpFailed):
        made.set_up("cuda")
    assert not launch.UNFINISHED.exists()
    made.fails = "requirements.txt"
    with pytest.raises(launch.SetUpFailed):
        made.set_up("cuda")
    made.fails = None
    assert made.set_up() == ["requirements.txt"]  # what the new build needs is still asked for


def test_a_failed_install_is_said_and_the_next_start_begins_again(made: Made) -> None:
    made.fails = "torch cpu"
    with pytest.raises(launch.SetUpFailed, match="check the network"):
        made.set_up()
    made.fails = None
    assert made.set_up() == ["venv", "torch cpu", "requirements.txt"]  # the half-made one was not trusted
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
    assert Made(monkeypatch).set_up()[0] == "venv"


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


def test_no_venv_says_where_the_cpu_build_of_torch_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "differences", lambda _: {"torch": None})
    monkeypatch.setattr(torch_build, "on_linux", lambda: True)
    for build in ("cpu", "cuda"):
        monkeypatch.setattr(torch_build, "for_this_machine", lambda build=build: build)
        assert launch.main(["models", "--no-venv"]) == 1
        said = capsys.readouterr().err
        assert (f"'torch>=2.10,<2.14' --index-url {torch_build.CPU_INDEX}" in said) == (build == "cpu")
        assert "python -m pip install -r requirements.txt" in said


def test_torch_is_not_chosen_where_nothing_is_installed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["models", "--no-venv", "--torch", "cpu"]) == 2
    assert "start without --no-venv" in capsys.readouterr().err
    assert launch.main(["models", "--torch", "gpu"]) == 2
    assert "not 'gpu'" in capsys.readouterr().err


@posix
def test_an_index_that_does_not_answer_is_said_with_what_would_help(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_build, "on_linux", lambda: True)
    python = pip_that_finds(home / "python", VERSIONS, "")
    with pytest.raises(launch.SetUpFailed, match=r"does not answer.*--torch FILE\.whl.*--torch cuda"):
        launch.install_torch(python, "cpu")
    with pytest.raises(launch.SetUpFailed, match="check the network"):
        launch.install_torch(pip_that_finds(home / "python", "2.15.0", ""), "cuda")


def test_tests_run_in_parallel_and_the_slowest_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(chromium, "make_sure", lambda *_: "")
    monkeypatch.setattr(
        launch.subprocess, "call", lambda command, cwd, env: calls.append((command, env)) or 5
    )
    assert launch.hand_over(["test", "-n", "0", "-x"]) == 5
    command, environment = calls[0]
    assert command[1:3] == ["-m", "pytest"] and command[-3:] == ["-n", "0", "-x"]  # the last -n counts
    assert {"--dist=loadfile", "--durations=20"} <= set(command) and environment["OMP_NUM_THREADS"] == "1"
