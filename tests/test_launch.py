"""launch.py: what it finds, what it makes, what it says; which torch it takes, and the browser that the tests get."""

from __future__ import annotations

import ast
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import launch
from app import torch_build
from tests.support import chromium

ROOT = Path(launch.__file__).parent
VERSIONS = "2.15.0, 2.14.0, 2.13.0, 2.11.0, 2.9.1"
posix = pytest.mark.skipif(
    os.name == "nt", reason="the fakes are scripts with a first line that names Python"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """launch.py as if it stood in an empty folder with one requirements file."""
    (tmp_path / "requirements.txt").write_text("torch>=2.10,<2.14\npillow==12.3.0  # pictures\n")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setattr(launch, "VENV", venv)
    monkeypatch.setattr(launch, "UNFINISHED", venv / "atelier-unfinished")
    monkeypatch.setattr(launch, "STAMP", venv / "atelier-stamp")
    monkeypatch.setattr(launch, "REQUIREMENTS", tmp_path / "requirements.txt")
    return tmp_path


class Made:
    """What set_up does, without doing it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.python, self.torch = launch.python_now(), ""
        self.done: list[str] = []
        self.fails: str | None = None
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


def script(path: Path, body: str) -> Path:
    """A command written in Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(0o755)
    return path


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


@pytest.mark.parametrize(
    ("version", "wanted", "fitting"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13.1", "==2.13.0", False),
        ("2.10.0", ">=2.10,<2.14", True),
        ("2.9.1", ">=2.10,<2.14", False),
        ("2.13.0+cu130", ">=2.10,<2.14", True),
        ("2.14.0", ">=2.10,<2.14", False),
        ("2.14.0rc1", ">=2.10,<2.14", False),
    ],
)
def test_versions_and_ranges(version: str, wanted: str, fitting: bool) -> None:
    assert torch_build.fits(version, wanted) == fitting


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
    assert {names.get(one, one) for one in imported} <= set(launch.pins([ROOT / "requirements.txt"]))


def test_an_old_python_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert launch.main([]) == 1
    assert "needs Python 3.11 or newer" in capsys.readouterr().err


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


# ------------------------------------------------------------------------------------------------- the right torch


def test_the_option_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "on_linux", lambda: True)
    wheel = tmp_path / "torch-2.11.0-cp311-cp311-linux_x86_64.whl"
    wheel.touch()
    assert torch_build.option(["ui", "--port", "1"]) == (["ui", "--port", "1"], "")
    assert torch_build.option(["--torch", "cpu", "ui"]) == (["ui"], "cpu")
    assert torch_build.option(["ui", "--torch=cuda"]) == (["ui"], "cuda")
    assert torch_build.option(["--torch", str(wheel)]) == ([], str(wheel))
    assert torch_build.option(["--torch", str(tmp_path)]) == ([], str(tmp_path))
    for wrong in (["--torch"], ["--torch="], ["--torch", "rocm"], ["--torch", __file__]):
        with pytest.raises(ValueError, match="--torch takes cpu, cuda, a wheel"):
            torch_build.option(wrong)
    monkeypatch.setattr(torch_build, "on_linux", lambda: False)
    with pytest.raises(ValueError, match="for Linux only"):
        torch_build.option(["--torch", "cuda"])


def test_torch_is_not_chosen_where_nothing_is_installed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["models", "--no-venv", "--torch", "cpu"]) == 2
    assert "start without --no-venv" in capsys.readouterr().err
    assert launch.main(["models", "--torch", "gpu"]) == 2
    assert "not 'gpu'" in capsys.readouterr().err


@posix
def test_a_driver_that_runs_gets_the_build_with_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "on_linux", lambda: True)
    monkeypatch.setattr(torch_build, "DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert torch_build.for_this_machine() == "cpu"
    script(tmp_path / "bin" / "nvidia-smi", "sys.exit(9)")  # installed, and no driver
    assert torch_build.for_this_machine() == "cpu"
    script(tmp_path / "bin" / "nvidia-smi", "sys.exit(sys.argv[1:] != ['-L'])")
    assert torch_build.for_this_machine() == "cuda"
    (tmp_path / "bin" / "nvidia-smi").unlink()
    (tmp_path / "version").touch()
    assert torch_build.for_this_machine() == "cuda"
    monkeypatch.setattr(torch_build, "on_linux", lambda: False)
    assert torch_build.for_this_machine() == "cpu"


def pip_that_finds(path: Path, configured: str, index: str) -> Path:
    """A Python whose pip finds these versions of torch, as it is configured and in PyTorch's index."""
    return script(
        path,
        f"found = {index!r} if {torch_build.CPU_INDEX!r} in sys.argv else {configured!r}\n"
        "print('torch (newest)\\nAvailable versions: ' + found if found else 'ERROR: nothing')",
    )


@posix
@pytest.mark.parametrize(
    ("build", "configured", "index", "installed"),
    [
        (
            "cpu",
            VERSIONS,
            "2.13.0+cpu, 2.12.1+cpu",
            ["--index-url", torch_build.CPU_INDEX, "torch===2.13.0+cpu"],
        ),
        ("cpu", "2.13.0, 2.11.0+cpu", "2.13.0+cpu", ["torch===2.11.0+cpu"]),  # pip is configured to find one
        ("cpu", "", "2.13.0+cpu", ["--index-url", torch_build.CPU_INDEX, "torch===2.13.0+cpu"]),
        ("cuda", "2.13.0+cpu, " + VERSIONS, "", ["torch===2.13.0"]),  # === leaves 2.13.0+cpu out
    ],
)
def test_where_pip_finds_a_build(
    build: str,
    configured: str,
    index: str,
    installed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_build, "on_linux", lambda: True)
    python = pip_that_finds(tmp_path / "python", configured, index)
    sentence, what = torch_build.how_to_install(python, build, ">=2.10,<2.14")
    assert what == installed
    fetched, taken = torch_build.GIGABYTES[build]
    assert f"about {fetched} GB to fetch and {taken} GB on the disk" in sentence
    assert ("CPU build" in sentence) == (build == "cpu")


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


@posix
def test_elsewhere_torch_is_what_pypi_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "on_linux", lambda: False)
    python = pip_that_finds(tmp_path / "python", VERSIONS, "2.13.0+cpu")
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        sentence, what = torch_build.how_to_install(python, "cpu", ">=2.10,<2.14")
        assert what == ["torch===2.13.0"] and torch_build.GIGABYTES[platform][0] in sentence
    assert torch_build.to_install("2.13.0", "cpu", ">=2.10,<2.14") == ""


def test_a_wheel_of_ones_own() -> None:
    wheel = "/a/torch-2.11.0+xpu-cp311-cp311-linux_x86_64.whl"
    assert torch_build.how_to_install(Path(), wheel, ">=2.10,<2.14")[1] == ["--force-reinstall", wheel]
    assert torch_build.how_to_install(Path(), "/a", ">=2.10,<2.14")[1][1:3] == ["--no-index", "--find-links"]
    with pytest.raises(ValueError, match=r"holds version 2\.9\.1, .* tested with torch>=2\.10,<2\.14"):
        torch_build.how_to_install(Path(), wheel.replace("2.11.0+xpu", "2.9.1"), ">=2.10,<2.14")


# ---------------------------------------------------------------------------------------------------- the browser


class Fetched:
    """What make_sure does for a browser: `works` names the command after which one starts."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, works: str, fails: str = "", root: bool = True
    ) -> None:
        self.did, self.said = ["look"], list[str]()
        self.works, self.fails = works, fails
        monkeypatch.setattr(chromium, "starts", lambda: self.works in self.did[-1])
        monkeypatch.setattr(chromium, "run", self.run)
        monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000, raising=False)
        monkeypatch.setattr(chromium.shutil, "which", lambda name: name)

    def run(self, command: list[str], say: Any, limit: float | None = None) -> bool:
        own = command[: len(chromium.PLAYWRIGHT)] == chromium.PLAYWRIGHT
        words = command[len(chromium.PLAYWRIGHT) :] if own else ["apt-get", *command[len(chromium.APT) :]]
        self.did.append(" ".join(words))
        return self.fails not in self.did[-1] if self.fails else True

    def make_sure(self, *arguments: str) -> str:
        return chromium.make_sure(list(arguments), self.said.append)


OWN = "install --only-shell chromium"
DEBIAN = "apt-get install -y --no-install-recommends chromium fonts-noto-cjk libatomic1"


@pytest.mark.parametrize(
    ("works", "fails", "root", "did"),
    [
        ("look", "", True, []),
        (OWN, "", True, [OWN]),
        ("install-deps", "", True, [OWN, "install-deps chromium"]),
        (DEBIAN, OWN, True, [OWN, "apt-get update", DEBIAN]),
        ("never", "install", True, [OWN, "apt-get update", DEBIAN]),
        ("never", "install", False, [OWN]),
    ],
)
def test_a_browser_is_found_or_fetched(
    works: str, fails: str, root: bool, did: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = Fetched(monkeypatch, works, fails, root)
    problem = fetched.make_sure()
    assert fetched.did[1:] == did
    if works == "never":
        assert "no test was run" in problem and "apt-get install chromium" in problem
        assert chromium.WITHOUT in problem
    else:
        assert problem == ""
    if did:
        assert chromium.WITHOUT in fetched.said[0]


def test_tests_without_a_page_need_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    page, other = "tests/app/ui/test_page.py", "tests/test_launch.py"
    for arguments in (
        ["-m", "not browser"],
        ["-q", other],
        [f"{other}::{test_the_option_torch.__name__}", "-x"],
    ):
        fetched = Fetched(monkeypatch, "never", "install")
        assert fetched.make_sure(*arguments) == "" and fetched.did == ["look"] and not fetched.said
    for arguments in ([], ["-x"], [other, page], [f"{page}::test_x"], ["--ignore", other], ["tests"]):
        assert chromium.asked_for(arguments), arguments


def test_every_test_of_a_page_is_marked() -> None:
    pages = 0
    for file in (ROOT / "tests").rglob("test_*.py"):
        text = file.read_text("utf-8")
        if f"\npytestmark = {chromium.MARK}\n" in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            if {arg.arg for arg in node.args.args} & {"visit", "chromium"}:
                pages += 1
                assert any(ast.unparse(one) == chromium.MARK for one in node.decorator_list), node.name
    assert pages > 0


def test_no_test_runs_when_no_browser_can_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Fetched(monkeypatch, "never", "install")
    ran: list[Any] = []
    monkeypatch.setattr(launch.subprocess, "call", lambda *asked, **_: ran.append(asked) or 0)
    assert launch.hand_over(["test"]) == 1 and not ran
    assert "no browser could be had" in capsys.readouterr().err
    assert launch.hand_over(["test", "-m", "not browser"]) == 0 and len(ran) == 1


def test_a_browser_that_does_not_start_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import Error

    broken = script(tmp_path / ("chromium.exe" if os.name == "nt" else "chromium"), "sys.exit(1)")
    monkeypatch.setenv("PATH", str(tmp_path))
    tried: list[dict[str, Any]] = []

    class Driver:
        @property
        def chromium(self) -> Driver:
            return self

        def launch(self, *, headless: bool, args: list[str], **way: str) -> str:
            tried.append(way)
            if way != {"channel": self.only}:
                raise Error("it does not start")
            return "a browser"

        only = "msedge"

    assert chromium.start(Driver()) == "a browser"
    assert tried == [{"executable_path": str(broken)}, {"channel": "chrome"}, {"channel": "msedge"}]
    Driver.only = "none"
    assert chromium.start(Driver()) is None and tried[-1] == {}


@posix
def test_a_download_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    said: list[str] = []
    hangs = script(
        tmp_path / "hangs",
        "import subprocess, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('Downloading', child.pid, flush=True)\n"
        "time.sleep(600)",
    )
    assert not chromium.run([str(hangs)], said.append, limit=2)
    assert said[-1] == "  ended after 2 seconds"
    child = int(said[0].split()[-1])
    until = time.monotonic() + 60
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)


@posix
def test_what_is_fetched_tells_how_far_it_is_and_why_it_failed(tmp_path: Path) -> None:
    said: list[str] = []
    fails = script(
        tmp_path / "fails",
        "for _ in range(3): print('Downloading a browser\\n  10% of 100 MiB\\nError: no such host\\n  at line 3')\n"
        "sys.exit(1)",
    )
    assert not chromium.run([str(fails)], said.append)
    assert [one.strip() for one in said] == ["Downloading a browser", "10% of 100 MiB", "Error: no such host"]
    assert chromium.run([str(script(tmp_path / "works", ""))], said.append)
