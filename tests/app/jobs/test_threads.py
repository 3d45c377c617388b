"""Model work leaves no thread behind that has computed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from app.jobs.queue import JobQueue
from app.jobs.threads import run_in_own_thread
from pipelines.errors import Stopped
from tests.support.painter import PAINTERS, Painter, PainterStudio


def test_the_thread_ends_with_its_work() -> None:
    seen: list[threading.Thread] = []

    @run_in_own_thread
    def work(number: int, *, more: int = 0) -> int:
        seen.append(threading.current_thread())
        return number + more

    assert work(2, more=3) == 5 and work.__name__ == "work"
    assert seen[0] is not threading.current_thread() and not seen[0].is_alive()


@pytest.mark.parametrize("problem", [ValueError("told"), Stopped()])
def test_what_goes_wrong_comes_back(problem: BaseException) -> None:
    @run_in_own_thread
    def work() -> None:
        raise problem

    with pytest.raises(type(problem)) as raised:
        work()
    assert raised.value is problem


def test_a_job_leaves_no_thread_that_has_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[threading.Thread] = []
    begun = Painter.__call__

    def watched(*given: object) -> object:
        seen.append(threading.current_thread())
        return begun(*given)

    monkeypatch.setattr(Painter, "__call__", watched)
    queue = JobQueue(PainterStudio(), tmp_path, PAINTERS)
    job_id = queue.submit("generate", {"prompt": "a cup", "candidates": 2, "keep": 1})
    while not queue.job(job_id).is_over:
        time.sleep(0.02)
    seen[0].join(5)
    assert not seen[0].is_alive() and queue.job(job_id).state == "done"
    queue.close()
