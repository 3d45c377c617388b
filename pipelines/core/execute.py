"""Running a pipeline to its end, for the command line, jobs and scripts."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from pipelines.core.pipeline import Pipeline, Result, Step, run
from pipelines.core.settings import Settings
from pipelines.errors import Stopped

Events = Generator[Step | Result, None, None]


def follow(events: Events, shall_stop: Callable[[Step], bool], *, resumable: bool) -> tuple[Result, bool]:
    """Take the events of a run until its Result.

    Args:
        events: The generator that `run` returns. It is closed in any case.
        shall_stop: Called with every Step; True stops the run there.
        resumable: Whether the pipeline is Resumable, so that a stopped run still has pictures.

    Returns:
        The Result, and whether the run was stopped before its end.

    Raises:
        Stopped: When the run was stopped and gives no pictures.
    """
    with closing(events):
        for event in events:
            if isinstance(event, Result):
                return event, False
            if shall_stop(event):
                if resumable and isinstance(kept := events.throw(Stopped()), Result):
                    return kept, True
                raise Stopped
    raise AssertionError("a run ends with a Result")


def result_of(pipeline: Pipeline[Any], settings: Settings) -> Result:
    """Run a pipeline to its end and return its Result."""
    return follow(run(pipeline, settings), lambda step: False, resumable=False)[0]
