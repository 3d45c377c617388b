"""Which build of torch suits the machine, and where pip finds it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app import torch_build
from tests.support.scripts import VERSIONS, pip_that_finds, posix, script


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
