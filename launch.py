"""One door. `python launch.py` sets Atelier up when needed and opens the studio; `python launch.py test` tests it.

The first start makes `.venv` beside this file and installs into it the build of PyTorch that suits the machine and
requirements.txt; a stamp lets later starts skip that. A `.venv` that works is used by every later start, also by one
with another Python. One that must be made anew is put aside until the new one has everything. An environment that
already has everything (a Space, a container, an active environment) is used as it is. Only the
standard library is used here, and nothing newer than Python 3.7, so that older ones can be told so.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

from app import torch_build

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
UNFINISHED = VENV / "atelier-unfinished"  # there while .venv is being made; found later, .venv is made anew
BEFORE = ROOT / ".venv-before"  # the old .venv while a new one is being made
LOCK = ROOT / ".venv-lock"  # held by the start that looks at .venv or makes it
STAMP = VENV / "atelier-stamp"  # one line per requirements file that is installed completely
REQUIREMENTS = ROOT / "requirements.txt"
TEST_REQUIREMENTS = ROOT / "tests" / "requirements.txt"
ORACLES = ROOT / "tests" / "oracles.txt"  # installed without what they ask for
OLDEST, NEWEST = (3, 11), (3, 14)
# pytest-xdist: a process a core, of which each takes whole files, in their order; `-n 0` runs them in one process.
IN_PARALLEL = ["-n", "logical", "--maxprocesses=4", "--dist=loadfile", "--no-loadscope-reorder"]


def main(arguments: list[str]) -> int:
    """Make sure of an environment, then hand over to it. Returns the exit code."""
    if sys.version_info < OLDEST:
        return fail(
            f"Atelier needs Python {OLDEST[0]}.{OLDEST[1]} or newer and this is {sys.version.split()[0]}; "
            "start launch.py with a newer one, for example python3.12 launch.py"
        )
    try:
        os.getcwd()
    except OSError:
        return fail("the folder that this was started in is gone; change to another one and start again", 2)
    as_it_is = "--no-venv" in arguments or "SPACE_ID" in os.environ
    try:
        arguments, build = torch_build.option([argument for argument in arguments if argument != "--no-venv"])
    except ValueError as problem:
        return fail(str(problem), 2)
    testing = arguments[:1] == ["test"]
    needed = [REQUIREMENTS, TEST_REQUIREMENTS, ORACLES] if testing else [REQUIREMENTS]

    if os.environ.pop("ATELIER_STARTED", "") == str(VENV):
        return hand_over(arguments)
    if as_it_is:
        if build:
            return fail(
                "--torch chooses what .venv gets; here nothing is installed: start without --no-venv", 2
            )
        wrong = differences(needed)
        missing = [name for name, version in wrong.items() if version is None]
        if missing:
            return fail(
                f"this environment lacks {', '.join(missing)}; start without --no-venv, or run: "
                + "; ".join(f"python -m pip install {call}" for call in by_hand(missing, needed))
            )
        for name, version in wrong.items():
            say(f"{name} {version} is not the version that Atelier is tested with")
        return hand_over(arguments)
    if not build and is_environment() and not differences(needed):
        return hand_over(arguments)
    try:
        python = set_up(needed, build)
    except SetUpFailed as problem:
        return fail(str(problem))
    except KeyboardInterrupt:
        say("stopped while setting up; the next start begins again")
        return 130
    return start_again(python, arguments)


def hand_over(arguments: list[str]) -> int:
    """Everything is there: run the tests or the command line in this very process."""
    if arguments[:1] == ["test"]:
        from tests.support import chromium

        try:
            problem = chromium.make_sure(arguments[1:], say)
        except KeyboardInterrupt:
            return 130
        if problem:
            return fail(problem)
        # One thread in each of the tests' processes, which wait passively: other processes keep the cores busy.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", *IN_PARALLEL, "--durations=20", *arguments[1:]]
        return subprocess.call(command, cwd=ROOT, env=environment)
    from app.cli.main import main as command_line

    return command_line(arguments)


def start_again(python: Path, arguments: list[str]) -> int:
    """Run this file once more, with the Python of `.venv`."""
    command = [str(python), str(ROOT / "launch.py"), *arguments]
    os.environ["ATELIER_STARTED"] = str(VENV)
    if os.name != "nt":
        sys.stderr.flush()
        os.execv(command[0], command)
    try:
        return subprocess.call(command)
    except KeyboardInterrupt:
        return 130


# ---------------------------------------------------------------------------------------------------- what is there


def is_environment() -> bool:
    """Whether this Python already belongs to something: a virtual environment, conda, a container."""
    markers = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return (
        sys.prefix != sys.base_prefix
        or "CONDA_PREFIX" in os.environ
        or any(marker.exists() for marker in markers)
    )


def differences(files: list[Path]) -> dict[str, str | None]:
    """What of the required packages is not installed here as required: name -> its version here, None when missing."""
    from importlib import metadata  # not in Python 3.7

    wrong: dict[str, str | None] = {}
    for name, wanted in pins(files).items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong[name] = None
            continue
        if not torch_build.fits(version, wanted):
            wrong[name] = version
    return wrong


def pins(files: list[Path]) -> dict[str, str]:
    """Package -> `==version` or `>=version,<version`, of all lines that name one."""
    lines = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return dict(re.findall(r"(?m)^([A-Za-z0-9_.-]+)((?:==|>=|<)[^\s#]+)", lines))


def by_hand(missing: list[str], needed: list[Path]) -> list[str]:
    """What pip is to be called with, one call after the other, where nothing is installed by this file."""
    calls = []
    if "torch" in missing and torch_build.on_linux() and torch_build.for_this_machine() == "cpu":
        calls.append(f"'torch{pins(needed)['torch']}' --index-url {torch_build.CPU_INDEX}")
    calls.append(" ".join(f"-r {file.relative_to(ROOT).as_posix()}" for file in needed if file != ORACLES))
    return calls + [f"--no-deps -r {file.relative_to(ROOT).as_posix()}" for file in needed if file == ORACLES]


def python_now() -> str:
    return f"python {sys.version_info[0]}.{sys.version_info[1]}"


def stamp_of(file: Path) -> str:
    """What the stamp says of a file that is installed completely: its name and its hash."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return f"{file.relative_to(ROOT).as_posix()} {digest}"


def inside(python: Path) -> tuple[str, str]:
    """The stamp's line for the Python of an environment, and the version of its torch; "" for what is not there."""
    question = (
        "import sys; print('python %d.%d' % sys.version_info[:2]); "
        "from importlib import metadata; print(metadata.version('torch'))"
    )
    try:
        answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True).stdout
    except OSError:
        answer = ""
    version, torch = [*answer.splitlines(), "", ""][:2]
    return version, torch


def has_all(python: Path, needed: list[Path]) -> bool:
    """Whether the Python of an environment has all that is `needed`, in the versions that are asked for."""
    question = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; import launch; "
        f"print(launch.differences([Path(name) for name in {[str(file) for file in needed]!r}]))"
    )
    try:
        answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True).stdout
    except OSError:
        return False
    return answer.strip() == "{}"


def stamps() -> set[str]:
    """The stamp's lines; none when there is no stamp."""
    try:
        return set(STAMP.read_text(encoding="utf-8").split("\n"))
    except OSError:
        return set()


# ------------------------------------------------------------------------------------------------------- setting up


class SetUpFailed(Exception):
    """Why the environment could not be made; the message is fit to be shown."""


def set_up(needed: list[Path], build: str = "") -> Path:
    """The Python of a `.venv` that has everything `needed`, made or completed first when it has not.

    `build` is the build of torch that was asked for; without it one that is there stays. An old `.venv` is put back when
    the new one cannot be made.
    """
    with alone():
        try:
            python = complete(needed, build)
        except BaseException:
            put_back()
            raise
        with suppress(OSError):
            remove(BEFORE)
    return python


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other start sets up. One that is killed lets go; where nothing can be written nobody waits."""
    try:
        file = LOCK.open("a")
    except OSError:
        yield
        return
    with file:
        told = False
        while is_held(file):
            if not told:
                say("another start is setting up; waiting for it")
            told = True
            time.sleep(0.5)
        yield


def is_held(file: Any) -> bool:
    """Whether another process holds the lock of a file; otherwise this one holds it until the file is closed."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # any other: a disk without locks
        return error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return False


def put_aside() -> None:
    """Move `.venv` to where it waits for the new one. One that waits there beside a half-made one worked, and stays."""
    if not (BEFORE.exists() and UNFINISHED.exists()):
        remove(BEFORE)
        VENV.rename(BEFORE)


def put_back() -> None:
    """Move the old `.venv` back to its place, if there is one."""
    if BEFORE.exists():
        with suppress(OSError):
            remove(VENV)
        BEFORE.rename(VENV)
        say(".venv is as it was before")


def remove(path: Path) -> None:
    """Delete a folder with all that is in it; of a link only the link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def complete(needed: list[Path], build: str) -> Path:
    """As `set_up`, but what fails leaves the old `.venv` aside."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    version, torch = inside(python)
    installed = stamps()
    if version and not installed and not UNFINISHED.exists() and has_all(python, needed):
        installed = {version, *map(stamp_of, needed)}  # made by somebody else, and it works
        STAMP.write_text("\n".join(sorted(installed)), encoding="utf-8")
    fresh = UNFINISHED.exists() or not version or not any(line.endswith(version) for line in installed)
    try:
        if fresh:
            if version:  # its Python answers: it may be all there is
                put_aside()
            make_venv(python)
            version, torch = inside(python)
            installed = set()
        elif version != python_now():
            say(
                f".venv has {version.capitalize()}, which is used; to have this one in it, delete the folder first"
            )
        build = torch_build.to_install(torch, build, pins([REQUIREMENTS])["torch"])
        if build:
            installed = set()  # another build needs other packages
            with finished_or_marked(fresh):
                STAMP.write_text(version, encoding="utf-8")
                install_torch(python, build)
            fresh = False
        for file in needed:
            if not any(line.startswith(stamp_of(file)) for line in installed):
                with finished_or_marked(fresh):
                    install(python, file)
                name = stamp_of(file).split()[0]
                installed = {line for line in installed if line.split()[0] != name} | {
                    stamp_of(file),
                    version,
                }
                STAMP.write_text("\n".join(sorted(installed)), encoding="utf-8")
                fresh = False
    except OSError as error:
        raise SetUpFailed(f".venv cannot be written: {(error.strerror or str(error)).lower()}") from None
    return python


@contextmanager
def finished_or_marked(fresh: bool) -> Iterator[None]:
    """Mark `.venv` as unfinished while something is installed into it.

    The mark stays when this process is killed, and when the first thing of all could not be installed. When pip gives
    up later it does so in good order: what worked before still does.
    """
    UNFINISHED.touch()
    try:
        yield
    except SetUpFailed:
        if not fresh:
            UNFINISHED.unlink()
        raise
    UNFINISHED.unlink()


def make_venv(python: Path) -> None:
    """An empty `.venv` with pip, whatever was there before."""
    import venv

    if sys.version_info[:2] > NEWEST:
        newest = f"{NEWEST[0]}.{NEWEST[1]}"
        raise SetUpFailed(
            f"PyTorch and the other packages are there for Python {OLDEST[0]}.{OLDEST[1]} to {newest} and this is "
            f"{sys.version.split()[0]}; start launch.py with another, for example python{newest} launch.py"
        )
    say(f"making .venv with Python {sys.version.split()[0]}")
    try:
        remove(VENV)
        VENV.mkdir()
        UNFINISHED.touch()  # first of all: one that is killed half-made must be known as such
        venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "strerror", None) or "its pip could not be made"
        raise SetUpFailed(
            f".venv could not be made ({reason.lower()}); see that the disk has room and that Python's venv module "
            "is there (on Debian and Ubuntu: apt install python3-venv), then start again"
        ) from None
    if not python.exists():
        raise SetUpFailed(".venv was made without a Python in it; delete the folder .venv and start again")


def install_torch(python: Path, build: str) -> None:
    """Install one build of torch alone; the packages that it needs come with requirements.txt."""
    try:
        sentence, arguments = torch_build.how_to_install(python, build, pins([REQUIREMENTS])["torch"])
    except ValueError as problem:
        raise SetUpFailed(str(problem)) from None
    say(f"installing {sentence}")
    pip_install(python, ["--no-deps", *arguments], "torch")


def install(python: Path, file: Path) -> None:
    """Install what a requirements file lists."""
    name = file.relative_to(ROOT)
    say(f"installing {name} into .venv; the first time takes a few minutes")
    extra = ["--no-deps"] if file == ORACLES else []
    if file == TEST_REQUIREMENTS:
        extra = ["--constraint", str(REQUIREMENTS)]
    pip_install(python, ["--requirement", str(file), *extra], f"the packages of {name}")


def pip_install(python: Path, arguments: list[str], name: str) -> None:
    """pip install, telling each package's name; SetUpFailed with pip's last words when it does not work out."""
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments]
    last: deque[str] = deque(maxlen=8)
    pip = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert pip.stdout is not None
    try:
        for line in pip.stdout:
            line = line.rstrip()
            if line.startswith(("Collecting", "Installing collected")):
                say("  " + line.split(" (from ")[0][:100])
            if line and not line.startswith(("WARNING", "[notice]")):
                last.append(line[:300])
        code = pip.wait()
    finally:
        if pip.poll() is None:
            pip.terminate()
            pip.wait()
        pip.stdout.close()
    if code != 0:
        words = "\n".join(f"  {line}" for line in last)
        hint = "check the network and the free disk space, then start again"
        raise SetUpFailed(f"{name} could not be installed; {hint}; pip said:\n{words}")


def say(text: str) -> None:
    """Tell what is happening, on standard error: standard output belongs to the command's result."""
    print(text if text.startswith(" ") else f"atelier: {text}", file=sys.stderr, flush=True)


def fail(text: str, code: int = 1) -> int:
    say(text)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
