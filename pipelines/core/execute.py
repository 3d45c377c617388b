"""Running a pipeline to its end, whoever watches: the command line, jobs, a script."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from pipelines.core.pipeline import Pipeline, Result, Step, run
from pipelines.core.settings import Settings
from pipelines.errors import Stopped

Events = Generator[Step | Result, None, None]


def follow(events: Events, shall_stop: Callable[[Step], bool], *, resumable: bool) -> tuple[Result, bool]:
    """The Result of a run, and whether it was stopped before its end.

    `shall_stop` sees every Step and says whether to stop there. A resumable run then gives the pictures that it has.
    Stopped when there are none to give. The generator is closed in any case.
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
    """Run to the end without watching."""
    return follow(run(pipeline, settings), lambda step: False, resumable=False)[0]
