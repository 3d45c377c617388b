"""Downloads that the server owns: in order, watched, stopped, gone on with, and never two at once."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from app.downloads import Downloads
from pipelines.core.pipeline import Step
from pipelines.errors import BadInput
from pipelines.weights.checkpoint import Checkpoint
from pipelines.weights.open_weights import OPEN_WEIGHTS

FIRST, SECOND = "clip-vit-b-32", "clip-vit-b-16"


class Installer:
    """Stands where pipelines.weights.install stands: three steps a model, each only after `go`; then its file is there."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Semaphore(0), threading.Event()
        self.closed: list[str] = []
        self.problem: Exception | None = None

    def __call__(self, entry: Checkpoint) -> Generator[Step, None, list[str]]:
        try:
            for done in (1, 2, 3):
                self.begun.set()
                assert self.go.acquire(timeout=10)
                if self.problem:
                    raise self.problem
                yield Step(f"{entry.name}.pt", done, 3, {"MB/s": 7.5})
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            entry.path.write_bytes(b"weights")
            return []
        finally:
            self.closed.append(entry.name)


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    monkeypatch.setenv("ATELIER_MODELS", str(tmp_path / "models"))
    return Installer()


def finish(downloads: Downloads) -> None:
    downloads.wait(10)
    assert downloads.now is not None and downloads.now.is_over


def test_models_come_one_after_another(installer: Installer) -> None:
    downloads = Downloads(installer)
    assert downloads.now is None
    downloads.start([FIRST, SECOND, FIRST])
    now = downloads.now
    assert now is not None and (now.name, now.waiting, now.state) == (FIRST, (SECOND,), "running")
    installer.go.release(6)
    finish(downloads)
    assert installer.closed == [FIRST, SECOND]
    assert downloads.now is not None and (downloads.now.name, downloads.now.state) == (SECOND, "done")
    assert OPEN_WEIGHTS[FIRST].present and OPEN_WEIGHTS[SECOND].present


def test_progress_is_seen_while_it_runs(installer: Installer) -> None:
    downloads = Downloads(installer)
    downloads.start([FIRST])
    installer.go.release()
    for _ in range(1000):
        if (now := downloads.now) is not None and now.done:
            break
        threading.Event().wait(0.005)
    assert now is not None and not now.is_over
    assert (now.stage, now.done, now.total, now.rate) == (f"{FIRST}.pt", 1, 3, 7.5)
    installer.go.release(2)
    finish(downloads)


def test_stop_ends_it_and_the_next_start_goes_on(installer: Installer) -> None:
    downloads = Downloads(installer)
    downloads.start([FIRST, SECOND])
    assert installer.begun.wait(10)
    downloads.stop()
    installer.go.release()
    finish(downloads)
    assert downloads.now is not None
    assert (downloads.now.state, downloads.now.name, downloads.now.waiting) == ("stopped", FIRST, (SECOND,))
    assert installer.closed == [FIRST]  # what came is kept because the generator was closed
    installer.go.release(6)
    downloads.start([FIRST, SECOND])
    finish(downloads)
    assert downloads.now.state == "done" and OPEN_WEIGHTS[SECOND].present


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [(BadInput("the disk is too small"), "the disk is too small"), (ZeroDivisionError("secret"), "foresaw")],
)
def test_what_goes_wrong_is_one_sentence_and_the_rest_stays_asked_for(
    installer: Installer, problem: Exception, sentence: str
) -> None:
    downloads = Downloads(installer)
    installer.problem = problem
    downloads.start([FIRST, SECOND])
    installer.go.release()
    finish(downloads)
    now = downloads.now
    assert now is not None and (now.state, now.waiting) == ("failed", (SECOND,))
    assert sentence in now.error and "secret" not in now.error


def test_a_second_start_is_refused_while_one_runs(installer: Installer) -> None:
    downloads = Downloads(installer)
    downloads.start([FIRST])
    with pytest.raises(BadInput, match=f"{FIRST} is being downloaded"):
        downloads.start([SECOND])
    installer.go.release(3)
    finish(downloads)
    with pytest.raises(BadInput, match="here already"):
        downloads.start([FIRST])
    with pytest.raises(BadInput, match="not in the full pack"):
        downloads.start(["../etc/passwd"])
