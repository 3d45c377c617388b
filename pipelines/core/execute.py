"""Running a pipeline, for the command line, jobs and scripts: one run, or the sheet of runs that its settings ask for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any, TypeVar, cast

import torch

from pipelines.core.environment import environment_of
from pipelines.core.explain import is_out_of_memory, too_large
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Pipeline, Result, Resumable, Step
from pipelines.core.settings import Settings
from pipelines.core.sheet import draw_sheet
from pipelines.errors import Stopped

S = TypeVar("S", bound=Settings)

Events = Generator[Step | Result, None, None]


def run(
    pipeline: Pipeline[S], settings: S, journal: Journal | None = None
) -> Generator[Step | Result, None, None]:
    """Run a pipeline: yields every Step, then exactly one Result. A sheet keeps no journal.

    Close the generator to give up. Throw Stopped into it to stop: a Resumable pipeline then yields its Result at once,
    and others, and sheets, raise Stopped. BadInput when the settings cannot be run, or when the device's memory is too
    small, with a smaller value of a setting to try.
    """
    started = time.perf_counter()
    asked, settings, is_sheet = settings, pipeline.prepare(settings), bool(settings.x or settings.y)
    environment = environment_of(pipeline)
    if journal is not None and not is_sheet:
        environment = journal.go_on_in(environment)
    try:
        if is_sheet:
            pictures = yield from draw_sheet(pipeline, asked)  # whose cells may have other prompts
        elif isinstance(pipeline, Resumable):
            pictures = yield from pipeline(settings, journal)
        else:
            pictures = yield from pipeline(settings)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise too_large(settings) from error
        raise
    used = next((picture.settings for picture in pictures if picture.settings is not None), settings)
    yield Result(
        pictures, settings if is_sheet else used, time.perf_counter() - started, environment=environment
    )


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


def carried(step: Step, *, with_picture: bool) -> Step:
    """A step that can be pickled: its preview, if it is wanted, is drawn now and comes along."""
    metrics = {name: float(value) for name, value in step.metrics.items()}
    draw = None
    if with_picture and step.draw is not None:
        with torch.no_grad():
            draw = partial(cast(Any, torch).from_numpy, step.draw().float().cpu().numpy())
    return Step(step.stage, step.done, step.total, metrics, draw)
