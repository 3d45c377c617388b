"""The browser of the page's tests: the one that is there, else one that is fetched before any test runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "microsoft-edge-stable",
)
PLAYWRIGHT = [sys.executable, "-m", "playwright"]
APT = [
    "apt-get",
    "-qq",
    "-o",
    "Acquire::Retries=0",
    "-o",
    "Acquire::http::Timeout=8",
    "-o",
    "DPkg::Lock::Timeout=60",
]
# The font is for the screenshots of the Chinese page; the library is Playwright's driver's, which a bare system lacks.
PACKAGES = ["chromium", "fonts-noto-cjk", "libatomic1"]
UNATTENDED = {
    "DEBIAN_FRONTEND": "noninteractive",
    "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "8000",  # milliseconds; it tries five times
}
MARK = "pytest.mark.browser"  # on the tests that need one, or on their whole file
WITHOUT = 'python launch.py test -m "not browser"'


def start(driver: Any) -> Any:
    """The first Chromium, Chrome or Edge that starts, without a window; None when none does."""
    from playwright.sync_api import Error

    ways: list[dict[str, str]] = [
        {"executable_path": path} for one in COMMANDS if (path := shutil.which(one))
    ]
    # Chrome and Edge where their installers put them; last, the one that Playwright fetched.
    ways += [{"channel": "chrome"}, {"channel": "msedge"}, {}]
    for way in ways:
        with suppress(Error):
            return driver.chromium.launch(**way, headless=True, args=ARGUMENTS)
    return None


def starts() -> bool:
    """Whether a browser starts, tried in a process of its own: on a bare system even Playwright's driver may not."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.chromium"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    if "shared libraries" in child.stderr:
        print(f"  {child.stderr.splitlines()[0]}", file=sys.stderr)
    return child.returncode == 0


def try_to_start() -> int:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = start(driver)
        if browser is None:
            return 1
        browser.close()
    return 0


def asked_for(arguments: list[str]) -> bool:
    """Whether pytest, given these, may come to a test of the page: not when they name other files, nor "not browser"."""
    if any("not browser" in argument for argument in arguments):
        return False
    plain = [two for one, two in pairwise(["", *arguments]) if not one.startswith("--")]
    files = [ROOT / one.split("::")[0] for one in plain if one.split("::")[0].endswith(".py")]
    named = [file for file in files if file.is_file()]
    return not named or any(MARK in one.read_text(encoding="utf-8") for one in named)


def make_sure(arguments: list[str], say: Callable[[str], None]) -> str:
    """See that the tests that `arguments` ask for have a browser, and fetch one if not. "", or why there is none."""
    if not asked_for(arguments) or starts():
        return ""
    say(
        f"the tests of the page need Chromium, Chrome or Edge, and none starts here (tests without them: {WITHOUT})"
    )
    root = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None
    say("fetching Playwright's Chromium (about 0.1 GB)")
    fetched = run([*PLAYWRIGHT, "install", "--only-shell", "chromium"], say, limit=600)
    if fetched and starts():
        return ""
    if fetched and root:
        say("it does not start; installing the libraries that it needs")
        if run([*PLAYWRIGHT, "install-deps", "chromium"], say) and starts():
            return ""
    if root:
        say(f"installing {', '.join(PACKAGES)} with apt-get; this takes some minutes")
        run([*APT, "update"], say)  # one list of many that cannot be had does not matter
        if run([*APT, "install", "-y", "--no-install-recommends", *PACKAGES], say) and starts():
            return ""
    by_hand = (
        f"as root: apt-get install {' '.join(PACKAGES)}"
        if shutil.which("apt-get")
        else "install Chrome or Chromium"
    )
    return f"no browser could be had, so no test was run; {by_hand}; or leave the tests of the page out: {WITHOUT}"


def run(command: list[str], say: Callable[[str], None], limit: float | None = None) -> bool:
    """Run a command that installs, and tell how far it is. False when it fails, which is told with the first error.

    `limit` is for a command that may be ended at any time: after so many seconds it is, with all that it started.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **UNATTENDED},
        start_new_session=True,
    )
    assert child.stdout is not None
    late = threading.Event()
    timer = threading.Timer(limit or threading.TIMEOUT_MAX, lambda: (late.set(), end(child)))
    timer.daemon = True
    timer.start()
    lines: dict[str, None] = {}  # in order, each once: tries are repeated
    try:
        for line in map(str.strip, child.stdout):
            if line not in lines and (line.startswith("Downloading") or "% of" in line):
                say(f"  {line}")
            lines[line] = None
        child.wait()
    finally:
        timer.cancel()
        end(child)
        child.stdout.close()
    if child.returncode == 0:
        return True
    errors = [line for line in lines if line.startswith(("E: ", "Error: "))] or [*lines, "it failed"][-2:]
    say(f"  ended after {limit:g} seconds" if late.is_set() else f"  {errors[0]}")
    return False


def end(child: subprocess.Popen[str]) -> None:
    """End a process, with all that it started, if it still runs: politely first."""
    for how in ("SIGTERM", "SIGKILL"):
        if child.poll() is None:
            if os.name == "nt":
                child.kill()
            else:
                os.killpg(child.pid, getattr(signal, how))
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=10)


if __name__ == "__main__":
    sys.exit(try_to_start())
