"""A queue over pipelines that do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.queue import JobQueue
from tests.support.fakes import FAKES, FakeStudio


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio()


@pytest.fixture
def queue(studio: FakeStudio, tmp_path: Path) -> Iterator[JobQueue]:
    queue = JobQueue(studio, tmp_path, FAKES)
    yield queue
    studio.fake.go.set()
    queue.close()
