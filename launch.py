"""One door. `python launch.py` sets Atelier up when needed and opens the studio; `python launch.py test` tests it.

The first start makes `.venv` beside this file and installs requirements.txt into it; a stamp lets later starts skip
that. An environment that already has everything (a Space, a container, an active environment) is used as it is.
Only the standard library is used here, and nothing newer than Python 3.7, so that older ones can be told so.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
UNFINISHED = VENV / "atelier-unfinished"  # there while .venv is being made; found later, .venv is made anew
STAMP = VENV / "atelier-stamp"  # one line per requirements file that is installed completely
REQUIREMENTS = ROOT / "requirements.txt"
TEST_REQUIREMENTS = ROOT / "tests" / "requirements.txt"
ORACLES = ROOT / "tests" / "oracles.txt"  # installed without what they ask for
OLDEST = (3, 11)


def main(arguments: list[str]) -> int:
    """Make sure of an environment, then hand over to it. Returns the exit code."""
    if sys.version_info < OLDEST:
        return fail(
            f"Atelier needs Python {OLDEST[0]}.{OLDEST[1]} or newer and this is {sys.version.split()[0]}; "
            "start launch.py with a newer one, for example python3.12 launch.py"
        )
    as_it_is = "--no-venv" in arguments
    arguments = [one for one in arguments if one != "--no-venv"]
    testing = arguments[:1] == ["test"]
    needed = [REQUIREMENTS, TEST_REQUIREMENTS, ORACLES] if testing else [REQUIREMENTS]

    if os.environ.pop("ATELIER_STARTED", "") == str(VENV):
        return hand_over(arguments)
    if as_it_is or "SPACE_ID" in os.environ:
        wrong = differences(needed)
        missing = [name for name, version in wrong.items() if version is None]
        if missing:
            files = " ".join(f"-r {one.relative_to(ROOT)}" for one in needed if one != ORACLES)
            oracles = (
                f", then python -m pip install --no-deps -r {ORACLES.relative_to(ROOT)}" if testing else ""
            )
            return fail(
                f"this environment lacks {', '.join(missing)}; run: python -m pip install {files}{oracles}, "
                "or start without --no-venv"
            )
        for name, version in wrong.items():
            say(f"{name} {version} is not the version that Atelier is tested with")
        return hand_over(arguments)
    if is_environment() and not differences(needed):
        return hand_over(arguments)
    try:
        python = set_up(needed)
    except SetUpFailed as problem:
        return fail(str(problem))
    except KeyboardInterrupt:
        say("stopped while setting up; the next start begins again")
        return 130
    return start_again(python, arguments)


def hand_over(arguments: list[str]) -> int:
    """Everything is there: run the tests or the command line in this very process."""
    if arguments[:1] == ["test"]:
        # Without this tests crawl whenever another process keeps the cores busy.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        return subprocess.call([sys.executable, "-m", "pytest", *arguments[1:]], cwd=ROOT, env=environment)
    from app.cli import main as command_line

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
        sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ or any(one.exists() for one in markers)
    )


def differences(files: list[Path]) -> dict[str, str | None]:
    """What of the pinned packages is not installed here as pinned: name -> its version here, None when missing."""
    from importlib import metadata  # not in Python 3.7

    wrong: dict[str, str | None] = {}
    for name, pinned in pins(files).items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong[name] = None
            continue
        if version.split("+")[0] != pinned:  # 2.13.0+cpu is a build of 2.13.0
            wrong[name] = version
    return wrong


def pins(files: list[Path]) -> dict[str, str]:
    """Package -> version, of all lines `package==version`."""
    lines = "\n".join(one.read_text(encoding="utf-8") for one in files)
    return dict(re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^\s#]+)", lines))


def stamp_of(file: Path) -> str:
    """What the stamp says of a file that is installed completely: its name, its hash, and this Python's version."""
    return f"{file.relative_to(ROOT).as_posix()} {digest(file)} {python_now()}"


def python_now() -> str:
    return f"python {sys.version_info[0]}.{sys.version_info[1]}"


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def stamps() -> set[str]:
    """The stamp's lines; none when there is no stamp."""
    try:
        return set(STAMP.read_text(encoding="utf-8").split("\n"))
    except OSError:
        return set()


# ------------------------------------------------------------------------------------------------------- setting up


class SetUpFailed(Exception):
    """Why the environment could not be made; the message is fit to be shown."""


def set_up(needed: list[Path]) -> Path:
    """The Python of a `.venv` that has everything `needed`, made or completed first when it has not."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = stamps()
    other_python = installed and not any(line.endswith(python_now()) for line in installed)
    fresh = not python.exists() or UNFINISHED.exists() or bool(other_python)
    try:
        if fresh:
            make_venv(python)
            installed = set()
        for file in needed:
            if stamp_of(file) in installed:
                continue
            say(f"installing {file.relative_to(ROOT)} into .venv; the first time takes a few minutes")
            UNFINISHED.touch()  # stays when this process is killed
            try:
                install(python, file)
            except SetUpFailed:
                if not fresh:  # pip gave up in good order; what worked before still does
                    UNFINISHED.unlink()
                raise
            name = stamp_of(file).split()[0]
            installed = {line for line in installed if line.split()[:1] != [name]} | {stamp_of(file)}
            STAMP.write_text("\n".join(sorted(installed)), encoding="utf-8")
            UNFINISHED.unlink()
            fresh = False
    except OSError as error:
        raise SetUpFailed(f".venv cannot be written: {(error.strerror or str(error)).lower()}") from None
    return python


def make_venv(python: Path) -> None:
    """An empty `.venv` with pip, whatever was there before."""
    import venv

    say(f"making .venv with Python {sys.version.split()[0]}")
    try:
        if VENV.exists():
            shutil.rmtree(VENV)
        VENV.mkdir()
        UNFINISHED.touch()  # first of all: one that is killed half-made must be known as such
        venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "strerror", None) or "its pip could not be made"
        raise SetUpFailed(
            f".venv could not be made ({reason.lower()}); see that the disk has 3 GB free and that Python's venv module "
            "is there (on Debian and Ubuntu: apt install python3-venv), then start again"
        ) from None
    if not python.exists():
        raise SetUpFailed(".venv was made without a Python in it; delete the folder .venv and start again")


def install(python: Path, file: Path) -> None:
    """pip install, telling each package's name; SetUpFailed with pip's last words when it does not work out."""
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--requirement", str(file)]
    if file == ORACLES:
        command += ["--no-deps"]
    elif file != REQUIREMENTS:
        command += ["--constraint", str(REQUIREMENTS)]
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
    if code != 0:
        words = "\n".join(f"  {line}" for line in last)
        hint = "check the network and the free disk space (3 GB), then start again"
        raise SetUpFailed(
            f"the packages of {file.relative_to(ROOT)} could not be installed; {hint}; pip said:\n{words}"
        )


def say(text: str) -> None:
    """Tell what is happening, on standard error: standard output belongs to the command's result."""
    print(text if text.startswith(" ") else f"atelier: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> int:
    say(text)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
