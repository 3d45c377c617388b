"""Waiting on paper: known queues have known waits, the order is the queue's own, and a real queue agrees."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.cli.main import main
from app.jobs.queue import JobQueue
from app.planning import Load, simulate, try_out
from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Step
from tests.support.fakes import FAKES, FakePipeline, FakeStudio


def test_one_lane_and_one_visitor_never_wait() -> None:
    waits = simulate(Load(1, 1, [2.0], think=3.0, length=10_000))
    assert waits.mean == 0 and waits.refused == 0
    assert len(waits.waits) == pytest.approx(10_000 / 5, rel=0.1)


def test_a_full_queue_is_as_long_as_those_who_wait() -> None:
    """Without thinking each of n visitors waits for the n - lanes others: (n - lanes) / lanes runs."""
    for users, lanes in ((5, 1), (8, 2)):
        waits = simulate(Load(users, lanes, [1.0], think=0.0, length=2000))
        assert waits.mean == pytest.approx((users - lanes) / lanes, rel=0.02)
        assert sum(waits.runs) == pytest.approx(lanes * 2000, rel=0.01)


def test_waits_are_those_of_queueing_theory() -> None:
    """Many seldom visitors are Poisson arrivals: an M/D/1 queue waits rho * s / (2 (1 - rho))."""
    users, seconds, think = 40, 1.0, 79.0
    rho = users * seconds / (think + seconds + 0.5)
    waits = simulate(Load(users, 1, [seconds], think=think, length=40_000))
    assert waits.mean == pytest.approx(rho * seconds / (2 * (1 - rho)), rel=0.15)
    two = simulate(Load(users, 2, [seconds], think=think, length=40_000))
    assert two.mean < waits.mean / 4


def test_a_full_house_is_refused_as_the_queue_does() -> None:
    waits = simulate(Load(100, 1, [10.0], think=10.0, length=3600))
    assert waits.refused > 0 and 300 < waits.mean <= 64 * 10


@dataclass
class Sleeper(FakePipeline):
    """Each run takes 60 ms and no processor."""

    def __call__(self, settings: Any) -> Generator[Step, None, list[Picture]]:
        time.sleep(0.06)
        yield Step("draw", 1, 1)
        return []


def test_two_real_lanes_agree_within_a_fifth(tmp_path: Path) -> None:
    studio = FakeStudio()
    studio.fake = Sleeper()
    queue = JobQueue(studio, tmp_path, FAKES, lanes=[run, run])
    try:
        load = Load(8, 2, [0.06], think=0.08, length=3.0)
        tried = try_out(queue, load, "fake", {})
    finally:
        queue.close()
    assert tried.mean > 0.02, "nobody waited"
    expected = simulate(Load(8, 2, tried.runs, think=0.08, length=3.0))
    assert expected.mean == pytest.approx(tried.mean, rel=0.2, abs=0.01)


def test_the_command_tells_times_memory_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "--users",
        "1000",
        "--gpus",
        "4",
        "--seconds",
        "3",
        "--hours",
        "0.5",
        "--price",
        "2",
        "--json",
    ]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lanes"] == 4 and told["runs an hour"] == pytest.approx(4 * 1200, rel=0.05)
    assert told["seconds in the queue (mean)"] == pytest.approx(64 * 3 / 4, rel=0.1)
    assert told["cost of an hour"] == 8 and told["cost of 1,000 runs"] == pytest.approx(8 / 4.8, rel=0.05)
    assert told["share of questions that found the queue full"] > 0.1
    assert main(["plan", "--tool", "nothing"]) == 2
