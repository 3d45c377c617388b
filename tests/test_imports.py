"""Imports point one way, and importing a module does nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
SHARED = ("pipelines.base", "pipelines.errors", "pipelines.images", "pipelines.files", "pipelines.arguments")


def imported(file: Path, *, everywhere: bool) -> set[str]:
    """Names of imported modules: all of them, or those that run when the file itself is imported."""
    tree = ast.parse(file.read_text("utf-8"))
    names: set[str] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += list(ast.iter_child_nodes(node))
    return names


def starts(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    place = file.relative_to(ROOT).as_posix()
    names = imported(file, everywhere=True)
    assert not any(starts(name, "torchvision") for name in names)
    if place.startswith("pipelines/"):
        assert not any(starts(name, "app", "gradio") for name in names)
    if place.startswith("pipelines/models/"):
        ours = {name for name in names if starts(name, "pipelines")}
        assert all(starts(name, "pipelines.models", "pipelines.errors", "pipelines.files") for name in ours)
    if place.startswith("pipelines/training/"):
        ours = {name for name in names if starts(name, "pipelines")}
        assert all(starts(name, "pipelines.training", "pipelines.models", *SHARED) for name in ours)
        light = imported(file, everywhere=False)
        assert not any(starts(name, "diffusers", "transformers", "resvg_py") for name in light)


def test_importing_does_nothing(tmp_path: Path) -> None:
    modules = [
        file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for file in FILES
        if file.is_relative_to(ROOT / "pipelines") or file.parent == ROOT / "app"
    ]
    code = (
        "import importlib, sys, torch\n"
        "before = torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "after = torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed()\n"
        "assert before == after, (before, after)\n"
        "heavy = {'gradio', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
