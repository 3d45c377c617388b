"""When a job will be finished: how long its steps take, and how long jobs like it took."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from heapq import heapify, heapreplace
from typing import Any

from app.jobs.job import ActiveJob, Job
from pipelines.core.axes import parse_axis
from pipelines.core.pipeline import Pipeline
from pipelines.errors import BadInput


def timing_key(pipelines: Mapping[str, type[Pipeline[Any]]], job: Job) -> str:
    """What of the settings decides how long a run takes, as a short hash."""
    kind = pipelines.get(job.pipeline)
    free = {knob.name for knob in kind.Settings.knobs() if knob.kind} if kind else set()
    sized = {name: value for name, value in job.settings.items() if name not in free}
    if (pictures := cells_of(job)) > 1:
        sized["cells"] = pictures
    return hashlib.sha256(json.dumps(sized, sort_keys=True).encode()).hexdigest()[:12]


def cells_of(job: Job) -> int:
    """How many runs the sheet of a job has; 1 where it draws none."""
    with suppress(BadInput):  # of another version
        axes = [parse_axis(str(job.settings.get(name) or "")) for name in ("x", "y")]
        return math.prod(len(axis.values) for axis in axes if axis)
    return 1


def remaining_seconds(live: ActiveJob, expected: float | None) -> float | None:
    """Seconds until the running job ends: by its own steps, or by how long such jobs took, whichever is more."""
    job, guesses = live.job, []
    since_step = time.monotonic() - live.last_step if live.last_step else 0.0
    if live.step_seconds and job.total:
        mean = sum(live.step_seconds) / len(live.step_seconds)
        guesses.append(max(0.0, (job.total - job.done) * mean - since_step))
    if expected is not None:
        guesses.append(max(0.0, expected - (time.time() - (job.started or time.time()))))
    return max(guesses, default=None)


def placed(
    live: ActiveJob,
    order: list[ActiveJob],
    running: list[ActiveJob],
    expected: Callable[[Job], float | None],
    lanes: int = 1,
) -> Job:
    """A waiting job with its place in the order, and with its time of finishing where all jobs before it have one."""
    place = order.index(live)
    now = [remaining_seconds(active, expected(active.job)) for active in running]
    ahead = [expected(active.job) for active in order[: place + 1]]
    known = [seconds for seconds in (*now, *ahead) if seconds is not None]
    ends = [*known[: len(now)], *[0.0] * (lanes - len(now))]
    heapify(ends)
    eta = None
    if len(known) == len(now) + len(ahead):
        for seconds in known[len(now) :]:  # each begins in the lane that is free first
            eta = ends[0] + seconds
            heapreplace(ends, eta)
    return replace(live.job, position=place + 1, eta_seconds=eta)
