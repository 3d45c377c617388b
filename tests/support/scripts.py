"""Commands written in Python, which stand for pip and others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from app import torch_build

VERSIONS = "2.15.0, 2.14.0, 2.13.0, 2.11.0, 2.9.1"
posix = pytest.mark.skipif(
    os.name == "nt", reason="the fakes are scripts with a first line that names Python"
)


def script(path: Path, body: str) -> Path:
    """A command written in Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(0o755)
    return path


def pip_that_finds(path: Path, configured: str, index: str) -> Path:
    """A Python whose pip finds these versions of torch, as it is configured and in PyTorch's index."""
    return script(
        path,
        f"found = {index!r} if {torch_build.CPU_INDEX!r} in sys.argv else {configured!r}\n"
        "print('torch (newest)\\nAvailable versions: ' + found if found else 'ERROR: nothing')",
    )
