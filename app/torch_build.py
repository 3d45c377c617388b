"""Which build of PyTorch launch.py installs, and where pip finds it. Only the standard library, as in launch.py.

On Linux there are two: PyTorch's CPU build, and the one with CUDA, which is several times as large. PyPI has only the
second, so the first comes from PyTorch's own index, or from where pip is configured to look. Elsewhere there is one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
DRIVER = Path("/proc/driver/nvidia/version")  # there while NVIDIA's driver is loaded
GIGABYTES = {  # what is fetched, and what it takes on the disk: torch 2.13.0 and the rest of requirements.txt
    "cpu": ("0.4", "1.6"),
    "cuda": ("3", "5.5"),
    "darwin": ("0.3", "1.4"),
    "win32": ("0.3", "1.4"),
}


def fits(version: str, wanted: str) -> bool:
    """Whether a version is what `==2.13.0` or `>=2.10,<2.14` asks for. 2.13.0+cpu is a build of 2.13.0."""
    here = numbers(version)
    holds = {"==": here.__eq__, ">=": here.__ge__, "<": here.__lt__}
    return all(holds[sign](numbers(bound)) for sign, bound in re.findall(r"(==|>=|<)([^,]+)", wanted))


def numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version.split("+")[0])]


def on_linux() -> bool:
    return sys.platform.startswith("linux")


def option(arguments: list[str]) -> tuple[list[str], str]:
    """The arguments without `--torch cpu|cuda|PATH`, and what it says: "" when it is not there. ValueError for another."""
    place = next((at for at, argument in enumerate(arguments) if argument.split("=")[0] == "--torch"), None)
    if place is None:
        return arguments, ""
    joined = arguments[place].partition("=")[2]
    build = joined or "".join(arguments[place + 1 : place + 2])
    rest = arguments[:place] + arguments[place + (1 if joined else 2) :]
    if build not in ("cpu", "cuda"):
        path = Path(os.path.expanduser(build)).resolve()  # which leaves the home of nobody as it is
        if not build or not (path.is_dir() or (path.suffix == ".whl" and path.is_file())):
            raise ValueError(f"--torch takes cpu, cuda, a wheel of torch or a folder with one, not {build!r}")
        build = str(path)
    if build == "cuda" and not on_linux():
        raise ValueError(
            "PyPI has torch with CUDA for Linux only; give PyTorch's wheel for it: --torch FILE.whl"
        )
    return rest, build


def for_this_machine() -> str:
    """The build for this machine: "cuda" on Linux where an NVIDIA driver runs, else "cpu"."""
    if not on_linux():
        return "cpu"
    if DRIVER.exists():
        return "cuda"
    # the only sign in Linux under Windows; it may be there without a driver
    nvidia = shutil.which("nvidia-smi")
    works = nvidia is not None and subprocess.run([nvidia, "-L"], capture_output=True).returncode == 0
    return "cuda" if works else "cpu"


def to_install(there: str, asked: str, wanted: str) -> str:
    """The build to install: "cpu", "cuda" or a path; "" when the version that is `there` is right already."""
    if not there:
        return asked or for_this_machine()
    kind = "cpu" if there.endswith("+cpu") or not on_linux() else "cuda"
    if fits(there, wanted) and asked in ("", kind):
        return ""
    return asked or kind


def how_to_install(python: Path, build: str, wanted: str) -> tuple[str, list[str]]:
    """A sentence about a build, and what pip is called with for it, without the packages that it needs.

    ValueError when it is not to be had.
    """
    if build.endswith(".whl"):
        version = [*Path(build).name.split("-"), "", ""][1]
        if not fits(version, wanted):
            raise ValueError(f"{build} holds version {version}, and Atelier is tested with torch{wanted}")
        return f"torch {version} from {build}", ["--force-reinstall", build]
    if build not in ("cpu", "cuda"):
        source = ["--force-reinstall", "--no-index", "--find-links", build]
        return f"torch{wanted} from {build}", [*source, f"torch{wanted}"]
    version, where = find(python, build, wanted)
    name = (
        {"cpu": "PyTorch's CPU build", "cuda": "the build with CUDA"}[build] if on_linux() else "PyPI's build"
    )
    fetched, taken = GIGABYTES[build if on_linux() else sys.platform]
    size = f"with all other packages about {fetched} GB to fetch and {taken} GB on the disk"
    return f"torch {version}, {name}; {size}", [*where, f"torch==={version}"]


def find(python: Path, build: str, wanted: str) -> tuple[str, list[str]]:
    """The newest version of a build, and pip's options to find it: none, as pip is configured, or PyTorch's index."""
    places: list[list[str]] = [[]]
    if on_linux() and build == "cpu":
        places.append(["--index-url", CPU_INDEX])
    for where in places:
        versions = [version for version in offered(python, where) if fits(version, wanted)]
        if on_linux():
            versions = [version for version in versions if version.endswith("+cpu") == (build == "cpu")]
        if versions:
            return max(versions, key=numbers), where
    if len(places) == 1:
        raise ValueError(f"no torch{wanted} was found for this Python; check the network, then start again")
    fetched, taken = GIGABYTES["cuda"]
    raise ValueError(
        f"PyTorch's CPU build, right for a machine without an NVIDIA driver, was not found: {CPU_INDEX} does not answer, "
        "or not with one for this Python; start again later, or with a wheel that you have: --torch FILE.whl, or with "
        f"the build with CUDA, which works here too, about {fetched} GB to fetch and {taken} GB on the disk: --torch cuda"
    )


def offered(python: Path, where: list[str]) -> list[str]:
    """The versions of torch that pip finds; none when nothing answers within half a minute."""
    options = ["--timeout", "8", "--retries", "1", "--disable-pip-version-check", *where]
    command = [str(python), "-m", "pip", "index", "versions", "torch", *options]
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    listed = re.search(r"(?m)^Available versions: (.*)$", answer)
    return listed.group(1).split(", ") if listed else []
