"""How long people wait: a discrete simulation of visitors before the real order of the queue, and a trial of the same.

Each visitor asks for a run, waits for it, looks at it for a while (exponentially distributed) and asks again. Who finds
the queue full looks for another while. It is a closed queueing network, whose service is the fair order of `jobs.order`.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from app.jobs.job import ActiveJob, Job
from app.jobs.order import check_room, running_order, take_turn
from app.jobs.queue import KEPT_TURNS, JobQueue
from pipelines.errors import BadInput

SESSION_CAP, TOTAL_CAP = 32, 64  # as JobQueue has them


@dataclass(frozen=True)
class Load:
    """Who asks, and what works. Times are in seconds.

    `run_seconds` are measured times of runs, among which each run's is drawn. `think` is the mean time from a result to
    the next question. `length` is how long it is watched. Random numbers come from `seed`.
    """

    users: int
    lanes: int
    run_seconds: Sequence[float]
    think: float = 120.0
    length: float = 3600.0
    seed: int = 0


@dataclass
class Waits:
    """What came of a load: how long each run waited and took, in seconds, and how many questions were refused."""

    waits: list[float] = field(default_factory=list[float])
    runs: list[float] = field(default_factory=list[float])
    refused: int = 0

    @property
    def mean(self) -> float:
        """The mean wait in seconds, 0 without runs."""
        return sum(self.waits) / len(self.waits) if self.waits else 0.0

    def share(self, part: float) -> float:
        """The wait in seconds that a share of the runs, in [0, 1], does not exceed."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Visitor:
    """One visitor's random numbers, the same in a simulation and in a trial."""

    def __init__(self, load: Load, number: int) -> None:
        self.name = f"visitor {number}"
        self.random = random.Random(f"{load.seed}/{number}")
        self.load = load

    def first(self) -> float:
        """When he comes, in seconds from the beginning."""
        return self.random.uniform(0, self.load.think)

    def think(self) -> float:
        """Seconds that he looks at a result."""
        return self.random.expovariate(1 / self.load.think) if self.load.think else 0.0


def simulate(load: Load) -> Waits:
    """What becomes of a load, second by second on paper."""
    visitors = [Visitor(load, number) for number in range(load.users)]
    of_runs = random.Random(f"{load.seed}/runs")
    ticket, found = count(1), Waits()
    events = [(visitor.first(), number, True) for number, visitor in enumerate(visitors)]  # True: he asks
    heapq.heapify(events)
    waiting: dict[str, tuple[ActiveJob, int]] = {}
    turns: dict[str, int] = {}
    free = load.lanes
    while events and events[0][0] <= load.length:
        now, number, asks = heapq.heappop(events)
        visitor = visitors[number]
        if asks:
            try:
                check_room((live for live, _ in waiting.values()), visitor.name, SESSION_CAP, TOTAL_CAP)
            except BadInput:
                found.refused += 1
                heapq.heappush(events, (now + visitor.think(), number, True))
            else:
                job = Job(str(sequence := next(ticket)), visitor.name, "", {}, "queued", created=now)
                waiting[job.id] = (ActiveJob(job, sequence), number)
        else:
            free += 1
            heapq.heappush(events, (now + visitor.think(), number, True))
        while free and waiting:
            live = running_order((live for live, _ in waiting.values()), turns)[0]
            take_turn(turns, live, KEPT_TURNS)
            _, owner = waiting.pop(live.job.id)
            free -= 1
            seconds = of_runs.choice(load.run_seconds)
            found.waits.append(now - live.job.created)
            found.runs.append(seconds)
            heapq.heappush(events, (now + seconds, owner, False))
    return found


def try_out(queue: JobQueue, load: Load, pipeline: str, settings: dict[str, Any]) -> Waits:
    """The same with real runs in a real queue, of which nobody else asks. It does not look at `load.run_seconds`."""
    found, lock = Waits(), threading.Lock()
    begun = time.monotonic()

    def visit(visitor: Visitor) -> None:
        time.sleep(visitor.first())
        while time.monotonic() - begun < load.length:
            try:
                job_id = queue.submit(pipeline, settings, visitor.name)
            except BadInput:
                with lock:
                    found.refused += 1
            else:
                while not (job := queue.job(job_id)).is_over:
                    time.sleep(0.005)
                with lock:
                    if job.state == "done" and job.started and job.finished:
                        found.waits.append(job.started - job.created)
                        found.runs.append(job.finished - job.started)
            time.sleep(visitor.think())

    threads = [
        threading.Thread(target=visit, args=(Visitor(load, number),), daemon=True)
        for number in range(load.users)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
