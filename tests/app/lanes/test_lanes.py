"""Lanes: processes that work beside each other, and what happens when one dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from app.batch.engines import OnLanes
from app.batch.results import Results
from app.batch.rows import read_rows
from app.batch.run import run_batch
from app.batch.tools import Draw, checked
from app.jobs.queue import Job, JobQueue
from app.lanes.lane import Lane, LaneDied
from app.lanes.pool import Lanes, Place, SplitRun, open_lanes, places_of
from app.lanes.work import Asked, Preparing, WholeRun
from pipelines.core.execute import follow, result_of
from pipelines.core.pipeline import Result
from pipelines.core.record import read_record
from pipelines.errors import BadInput
from pipelines.studio import PIPELINES
from tests.support.fakes import FAKES, FakeStudio
from tests.support.lanes import mortal_studio, tiny_studio
from tests.support.tiny import TinyStudio, tiny_generate


@pytest.fixture(scope="module")
def lanes() -> Iterator[list[Lane]]:
    """Two lanes whose processes run."""
    two = open_lanes([Place("cpu", 1)] * 2, lambda device: tiny_studio)
    yield two
    for lane in two:
        lane.close()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads here as in the lanes: they decide how numbers are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def asked(name: str, **values: Any) -> Asked:
    return Asked(name, PIPELINES[name].Settings.from_dict(values), "tiny", {})


def same(result: Result, other: Result) -> bool:
    """Whether two runs gave the same pictures in the same order, with the same facts."""
    pairs = zip(result.pictures, other.pictures, strict=True)
    return all(
        a.image.tobytes() == b.image.tobytes() and (a.seed, a.score, a.facts) == (b.seed, b.score, b.facts)
        for a, b in pairs
    )


def test_a_run_on_a_lane_gives_the_same_pictures_and_previews(lanes: list[Lane]) -> None:
    work = asked("generate", prompt="red", candidates=3)
    steps = lanes[0].work(WholeRun(work))
    first = next(steps)
    assert first.draw is not None and first.draw().shape[1:] == (3, 32, 32)
    assert first.draw().shape[0] == 3, "it can be shown again until the next step"
    kept: Any = None
    while kept is None:
        try:
            next(steps)
        except StopIteration as end:
            kept = end.value
    assert same(kept, result_of(tiny_generate(), work.settings))
    assert kept.environment["threads"] == "1" and lanes[0].free


def test_giving_up_and_stopping_leave_the_lane_free(lanes: list[Lane]) -> None:
    lane = lanes[0]
    steps = lane.work(WholeRun(asked("generate", prompt="red", candidates=40)))
    next(steps)
    assert not lane.free
    steps.close()
    assert lane.free
    optimize = asked("optimize", prompt="red", steps=50, size="32x32", cutouts=2, start="white", coarse=0)
    pool = Lanes([lane], TinyStudio(), PIPELINES)
    events = pool.runs()[0](TinyStudio().pipeline("optimize"), optimize.settings)
    result, stopped = follow(events, lambda step: step.done >= 3, resumable=True)
    assert stopped and len(result.pictures) >= 1 and result.device == "cpu" and lane.free
    with pytest.raises(BadInput, match="no picture"):
        lane.do(WholeRun(asked("diffuse", prompt="red", image="nowhere.png")))
    assert lane.free


@pytest.mark.parametrize("name", ["generate", "diffuse"])
def test_a_large_run_is_split_and_each_candidate_is_the_same(lanes: list[Lane], name: str) -> None:
    work = asked(name, prompt="red", candidates=40, keep=40, **({"steps": 2} if name == "diffuse" else {}))
    settings, count = lanes[0].do(Preparing(work))
    assert count > 2
    whole = Asked(name, settings, "tiny", {})
    calls: list[int] = []

    class Counting(SplitRun):
        def _help(self, lane: Lane) -> None:
            before = len(self._ahead)
            super()._help(lane)
            calls.append(before - len(self._ahead))

    events = list(Counting(lanes[0], lanes[1:], whole, count).events())
    result = events[-1]
    assert isinstance(result, Result) and calls[0] > 0, "the other lane drew nothing"
    assert same(result, result_of(TinyStudio().pipeline(name), work.settings))
    shares = [step.done / step.total for step in events[:-1] if not isinstance(step, Result)]
    assert all(0 <= share <= 1 for share in shares)


def test_a_lane_that_dies_is_told_and_begins_again(lanes: list[Lane]) -> None:
    lane = lanes[1]
    steps = lane.work(WholeRun(asked("generate", prompt="red", candidates=40)))
    next(steps)
    assert lane.pid is not None
    os.kill(lane.pid, signal.SIGKILL)
    with pytest.raises(LaneDied):
        for _ in steps:
            pass
    assert lane.free
    assert isinstance(lane.do(WholeRun(asked("generate", prompt="red", candidates=1))), Result)


def finished(queue: JobQueue, job_id: str) -> Job:
    until(lambda: queue.job(job_id).is_over)
    return queue.job(job_id)


def test_two_lanes_share_one_queue_and_a_dead_one_gives_its_job_back(tmp_path: Path) -> None:
    two = open_lanes([Place("cpu", 1)] * 2, lambda device: partial(mortal_studio, str(tmp_path)))
    studio = FakeStudio()
    pool = Lanes(two, studio, FAKES)
    queue = JobQueue(studio, tmp_path / "outputs", FAKES, lanes=pool.runs())
    try:
        (tmp_path / "kill").touch()
        values = {"prompt": "slow", "steps": 20, "keep": 1}
        jobs = [queue.submit("fake", values | {"seed": k}, f"visitor {k % 3}") for k in range(6)]
        until(lambda: [queue.job(job).state for job in jobs].count("running") == 2)
        over = [finished(queue, job) for job in jobs]
        assert [job.state for job in over] == ["done"] * 6, [job.error for job in over]
        assert not (tmp_path / "kill").exists(), "no lane was killed"
        seeds = [read_record(job.pictures[0]["path"], FAKES).settings["seed"] for job in over]
        assert seeds == list(range(6)) and [len(job.pictures) for job in over] == [1] * 6
    finally:
        queue.close()
        pool.close()


def test_a_job_that_kills_every_lane_fails_in_a_sentence(tmp_path: Path) -> None:
    def dying(pipeline: Any, settings: Any, journal: Any = None) -> Any:
        raise LaneDied("cpu")
        yield

    queue = JobQueue(FakeStudio(), tmp_path, FAKES, lanes=[dying])
    try:
        job = finished(queue, queue.submit("fake", {"prompt": "red"}))
        assert job.state == "failed" and "broke down" in job.error
    finally:
        queue.close()


def test_a_batch_on_two_lanes_does_every_row_once_though_one_is_killed(
    lanes: list[Lane], tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("prompt,seed\n" + "".join(f"red,{k}\n" for k in range(12)))
    tool = Draw("generate", {"candidates": 1, "keep": 1})
    tasks, _ = checked(tool, read_rows(tmp_path / "a.csv"), tmp_path, "tiny")
    engine = OnLanes(lanes, TinyStudio(), tool)
    engine.load()
    progress: Any = None
    for progress in run_batch(tasks, engine, Results(tmp_path, tool, TinyStudio()), 1):
        if progress.done == 3:
            pid = lanes[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
    assert (progress.done, progress.failed) == (12, ())
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert [int(name[:6]) for name in names] == list(range(1, 13))
    record = read_record(tmp_path / "pictures" / names[7], PIPELINES)
    alone = result_of(tiny_generate(), tool.ask({"prompt": "red", "seed": 7}, tmp_path))
    assert record.picture["tokens"] == alone.pictures[0].facts["tokens"]


@pytest.mark.parametrize("text", ["cpu:0", "cpu,", "cuda:0;cuda:1", "cpu:65", "cpu:2,"])
def test_wrong_lanes_are_told(text: str) -> None:
    if "," not in text and not text.startswith("cpu:"):
        assert places_of(text) == []
        return
    with pytest.raises(BadInput, match="names no lanes"):
        places_of(text)


def test_lanes_on_the_processor_share_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert places_of("cpu") == places_of("cuda:1") == places_of("auto") == []
    assert places_of("cpu:2") == [Place("cpu", 4)] * 2
    assert places_of("cpu:3,cpu") == [Place("cpu", 2)] * 4
