"""Imports point one way and never in a circle, and importing a module does nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("pipelines/**/*.py")])

# Folder (or module beside the folders) -> what it may import, besides itself. Pipelines never import one another.
LIBRARIES = ("pipelines.errors", "pipelines.io", "pipelines.core", "pipelines.models", "pipelines.clip")
PIPELINES = (
    "pipelines.generate", "pipelines.diffuse", "pipelines.optimize", "pipelines.guide", "pipelines.edit",
    "pipelines.see", "pipelines.export",
)  # fmt: skip
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "pipelines": ("pipelines.errors", "pipelines.core", *PIPELINES, "pipelines.studio"),  # imported when asked for
    "pipelines.errors": (),
    "pipelines.io": ("pipelines.errors",),
    "pipelines.core": ("pipelines.errors", "pipelines.io"),
    "pipelines.models": ("pipelines.errors", "pipelines.io"),
    "pipelines.clip": ("pipelines.errors", "pipelines.io", "pipelines.models"),
    **dict.fromkeys(PIPELINES, LIBRARIES),
    "pipelines.weights": ("pipelines.errors", "pipelines.io", "pipelines.core", "pipelines.models"),
    "pipelines.studio": (*LIBRARIES, *PIPELINES, "pipelines.weights"),
    "pipelines.training": LIBRARIES[:4],
    "pipelines.evaluation": (
        *LIBRARIES, *PIPELINES, "pipelines.weights", "pipelines.studio", "pipelines.training",
    ),
    "pipelines.benchmarks": (*LIBRARIES, *PIPELINES, "pipelines.weights", "pipelines.studio"),
}  # fmt: skip
RUNNING = (*MAY_IMPORT,)  # app/ may use all of pipelines/; within it:
MAY_IMPORT |= {
    "app": (),
    "app.torch_build": (),
    "app.lanes": RUNNING,
    "app.jobs": (*RUNNING, "app.owners", "app.lanes"),
    "app.space": (*RUNNING, "app.jobs"),
    "app.recipe": RUNNING,
    "app.serving": RUNNING,
    "app.owners": RUNNING,
    "app.deploy": (*RUNNING, "app.torch_build"),
    "app.library": (*RUNNING, "app.jobs", "app.owners"),
    "app.visitors": (*RUNNING, "app.jobs", "app.library"),
    "app.downloads": RUNNING,
    "app.timelapse": (*RUNNING, "app.jobs"),
    "app.kept_files": RUNNING,
    "app.saved_directions": (*RUNNING, "app.kept_files"),
    "app.soak_requests": (),
    "app.soak": (*RUNNING, "app.soak_requests"),
    "app.saved_probes": (*RUNNING, "app.kept_files"),
    "app.trainings": RUNNING,
    "app.planning": (*RUNNING, "app.jobs"),
    "app.batch": (*RUNNING, "app.lanes"),
    "app.ui": (
        *RUNNING, "app.jobs", "app.library", "app.downloads", "app.timelapse", "app.saved_directions",
        "app.saved_probes", "app.trainings",
        "app.serving", "app.owners", "app.visitors", "app.space", "app.recipe", "app.lanes",
    ),
    "app.cli": (*RUNNING, "app.jobs", "app.ui", "app.library", "app.serving", "app.space", "app.deploy", "app.soak",
        "app.batch", "app.lanes", "app.planning"),
}  # fmt: skip
# Families of models that are variants of another, or built on it.
KIN = {
    ("chinese_clip", "openai_clip"), ("siglip", "openai_clip"), ("judge", "clip"), ("prior", "clip"),
    ("dalle_semantic", "clip"), ("transformer", "dalle"),
}  # fmt: skip


def module_of(file: Path) -> str:
    """pipelines/io/files.py -> pipelines.io.files."""
    return file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


MODULES = {module_of(file): file for file in FILES}


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
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module or "" for name in inside}
        elif not everywhere and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += list(ast.iter_child_nodes(node))
    return names


def starts(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def place(module: str) -> str:
    """The folder of the table that a module lies in."""
    return ".".join(module.split(".")[:2])


def family(module: str) -> str:
    """Of a module of a model family its folder, otherwise ""."""
    parts = module.split(".")
    return parts[2] if module.startswith("pipelines.models.") and len(parts) == 4 else ""


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    names = imported(MODULES[module], everywhere=True)
    assert not any(starts(name, "torchvision") for name in names)
    if starts(module, "pipelines"):
        assert not any(starts(name, "app", "gradio") for name in names)
    for name in names & set(MODULES):
        if place(name) != place(module):
            assert place(name) in MAY_IMPORT[place(module)], f"{module} may not import {name}"
        elif family(name) not in ("", family(module)):
            assert (family(module), family(name)) in KIN, f"{module} imports {name}, another family's"
    if starts(module, "pipelines.training"):
        light = imported(MODULES[module], everywhere=False)
        assert not any(starts(name, "diffusers", "transformers", "resvg_py") for name in light)


def test_nothing_is_imported_in_a_circle() -> None:
    graph = {name: imported(file, everywhere=True) & set(MODULES) - {name} for name, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(reversed(error.args[1]))}")


def test_importing_does_nothing(tmp_path: Path) -> None:
    modules = [name for name in MODULES if not starts(name, "app.ui") and not name.endswith("__main__")]
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


def test_the_door_is_light(tmp_path: Path) -> None:
    """`import pipelines` alone brings in no torch."""
    code = "import sys, pipelines; assert 'torch' not in sys.modules and len(sys.modules) < 200"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
