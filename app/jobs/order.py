"""The order in which jobs run, and how many may wait."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import zip_longest

from app.jobs.job import ActiveJob
from pipelines.errors import BadInput

SHARE_OF_PAGES, SHARE_OF_PROGRAMS = 2, 4  # of all places 1 / share for one address


def running_order(jobs: Iterable[ActiveJob], turns: Mapping[str, int]) -> list[ActiveJob]:
    """Waiting jobs as they will run: whoever waits takes turns, and who had a turn longest ago comes first.

    A visitor takes turns by his session, programs by their address: they name their sessions themselves. `turns` gives
    the number of each one's last turn.
    """
    own: dict[str, list[ActiveJob]] = {}
    for live in sorted(jobs, key=lambda job: job.sequence):
        if live.job.state == "queued":
            own.setdefault(turn_of(live), []).append(live)
    names = sorted(own, key=lambda name: (turns.get(name, 0), own[name][0].sequence))
    rounds = zip_longest(*(own[name] for name in names))
    return [live for turn in rounds for live in turn if live is not None]


def take_turn(turns: dict[str, int], live: ActiveJob, most: int) -> None:
    """Note that a job had its turn, as the last of all; of the turns the newest `most` are kept."""
    number = max(turns.values(), default=0) + 1
    turns.pop(turn_of(live), None)
    turns[turn_of(live)] = number  # the last in the order of the dict
    if len(turns) > most:
        del turns[next(iter(turns))]


def turn_of(live: ActiveJob) -> str:
    """Under which name a job takes its turn."""
    return live.turn or live.job.session


def party_of(address: str, program: bool) -> str:
    """Who shares a part of the queue: the pages, or the programs, at one address; "" where no address is known.

    Of an IPv6 address the first 64 bits count: the rest is the caller's to choose.
    """
    with suppress(ValueError):
        known = ipaddress.ip_address(address.split("%")[0])
        if known.version == 6 and not known.is_loopback:
            address = str(known.ipv4_mapped or ipaddress.ip_network((known, 64), strict=False))
    return f"{'programs' if program else 'pages'} at {address}" if address else ""


def check_room(
    jobs: Iterable[ActiveJob], session: str, session_cap: int, total_cap: int, party: str = ""
) -> None:
    """BadInput when the session, its party, or all together have as many jobs waiting as they may."""
    waiting = [job for job in jobs if job.job.state == "queued"]
    own = sum(live.job.session == session for live in waiting)
    if own >= session_cap:
        raise BadInput("jobs.too_many_waiting", count=own)
    share = total_cap // (SHARE_OF_PROGRAMS if party.startswith("programs") else SHARE_OF_PAGES)
    together = sum(live.party == party for live in waiting)
    if party and together >= max(share, 1):
        raise BadInput("jobs.too_many_at_address", count=together)
    if len(waiting) >= total_cap:
        raise BadInput("jobs.queue_full", count=len(waiting))
