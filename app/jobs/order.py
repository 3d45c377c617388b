"""The order in which jobs run, and how many may wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest

from app.jobs.job import ActiveJob
from pipelines.errors import BadInput


def running_order(jobs: Iterable[ActiveJob], turns: Mapping[str, int]) -> list[ActiveJob]:
    """Waiting jobs as they will run: sessions take turns, and who had a turn longest ago comes first.

    `turns` gives the number of each session's last turn.
    """
    own: dict[str, list[ActiveJob]] = {}
    for live in sorted(jobs, key=lambda job: job.sequence):
        if live.job.state == "queued":
            own.setdefault(live.job.session, []).append(live)
    sessions = sorted(own, key=lambda name: (turns.get(name, 0), own[name][0].sequence))
    rounds = zip_longest(*(own[name] for name in sessions))
    return [live for turn in rounds for live in turn if live is not None]


def check_room(jobs: Iterable[ActiveJob], session: str, session_cap: int, total_cap: int) -> None:
    """BadInput when the session, or all sessions together, have as many jobs waiting as they may."""
    waiting = [job for job in jobs if job.job.state == "queued"]
    own = sum(live.job.session == session for live in waiting)
    if own >= session_cap:
        raise BadInput("jobs.too_many_waiting", count=own)
    if len(waiting) >= total_cap:
        raise BadInput("jobs.queue_full", count=len(waiting))
