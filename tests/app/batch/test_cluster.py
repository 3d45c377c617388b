"""A batch on Ray, with workers on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.batch.cluster import OnRay
from app.batch.results import Results
from app.batch.rows import read_rows
from app.batch.run import run_batch
from app.batch.tools import checked
from app.cli.main import main
from pipelines.errors import BadInput
from tests.support.lanes import Deadly, tiny_studio
from tests.support.tiny import TinyStudio

try:
    import ray
except ImportError:
    ray = None
needs_ray = pytest.mark.skipif(ray is None, reason="ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of its sockets and of what it will change


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def engine(marks: Path) -> Iterator[OnRay]:
    tool = Deadly("generate", {"candidates": 1, "keep": 1}, marks=str(marks))
    one = OnRay(tiny_studio, TinyStudio(), tool, workers=2)
    one._asked = 1  # of the two that there is room for
    yield one
    one.close()


@needs_ray
def test_rows_of_killed_workers_are_done_once_and_another_worker_is_used(
    engine: OnRay, marks: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("prompt,seed\n" + "".join(f"red,{k}\n" for k in range(30)))
    tool = engine._made[1]
    tasks, _ = checked(tool, read_rows(tmp_path / "a.csv"), tmp_path, "tiny")
    engine.load()
    progress: Any = None
    most = 0
    for progress in run_batch(tasks, engine, Results(tmp_path, tool, TinyStudio()), 1):
        if progress.done in (3, 12):
            (marks / str(progress.done)).touch()
        if progress.done == 6:
            engine._asked = 2
        if progress.done == 14:  # until the second worker has come
            end = time.monotonic() + 60
            while engine._coming and time.monotonic() < end:
                done = ray.wait(list(engine._coming), timeout=1)[0]
                list(engine._settle(done))
        most = max(most, len(engine._free) + len(engine._busy))
    assert (progress.done, progress.failed) == (30, ()) and most == 2
    assert not list(marks.iterdir()), "no worker was killed"
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert [int(name[:6]) for name in names] == list(range(1, 31))


def test_without_ray_it_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.batch.cluster.find_spec", lambda name: None)
    (tmp_path / "a.csv").write_text("prompt\nred\n")
    assert main(["batch", str(tmp_path / "a.csv"), "--engine", "ray", "--out", str(tmp_path)]) == 2
    assert "extra ray" in capsys.readouterr().err
    assert main(["batch", str(tmp_path / "a.csv"), "--workers", "2", "--out", str(tmp_path)]) == 2


@needs_ray
def test_a_cluster_that_does_not_answer_is_told() -> None:
    with pytest.raises(BadInput, match="cannot be used"):
        OnRay(tiny_studio, TinyStudio(), Deadly("generate"), address="127.0.0.1:1")
