"""The browser that the tests of the page get."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import launch
from tests.support import chromium
from tests.support.scripts import posix, script

ROOT = Path(launch.__file__).parent


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
        [f"{other}::test_pins_and_differences", "-x"],
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
