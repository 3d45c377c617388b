"""Fixtures of a Space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app import space
from app.jobs.queue import JobQueue
from tests.support.space import LargeStudio, Place
from tests.support.zero_gpu import ZeroGpuPlatform


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    platform, studio = ZeroGpuPlatform(), LargeStudio()
    zero = space.ZeroGpu(studio, platform, tmp_path, device="cpu")
    queue = JobQueue(studio, tmp_path, run=zero.run)
    yield Place(platform, studio, zero, queue)
    queue.close()
    platform.close()
