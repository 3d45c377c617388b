"""The lane: jobs belong to the server, one at a time, fair, kept over a restart."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.jobs.queue import Job, Lane
from app.ui.i18n import both_sentence
from pipelines.core.record import read_record
from pipelines.errors import BadInput, Message
from tests.support.fakes import FAKES, FakeStudio


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio()


@pytest.fixture
def lane(studio: FakeStudio, tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(studio, tmp_path, FAKES)
    yield lane
    studio.fake.go.set()
    lane.close()


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def finished(lane: Lane, job_id: str) -> Job:
    until(lambda: lane.job(job_id).is_over)
    return lane.job(job_id)


def test_a_job_ends_with_pictures_that_carry_records(lane: Lane) -> None:
    job = finished(lane, lane.submit("fake", {"prompt": "a star", "seed": 4}, "ann"))
    assert (job.state, job.error, len(job.pictures)) == ("done", "", 2)
    assert job.seconds["run"] > 0
    assert [one["rank"] for one in job.pictures] == [1, 2]
    for picture in job.pictures:
        record = read_record(picture["path"], FAKES)
        assert record.settings["prompt"] == "a star"
        assert record.picture["seed"] == picture["seed"]


def test_stop_answers_within_one_step(lane: Lane, studio: FakeStudio) -> None:
    job_id = lane.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: lane.job(job_id).done > 2)
    before = lane.job(job_id).done
    lane.stop(job_id)
    job = finished(lane, job_id)
    assert job.state == "stopped"
    assert job.done <= before + 2
    assert studio.fake.closed == ["slow"]
    assert finished(lane, lane.submit("fake", {}, "ann")).state == "done"


def test_a_waiting_job_can_be_cancelled_and_never_runs(lane: Lane, studio: FakeStudio) -> None:
    first = lane.submit("fake", {"prompt": "wait"}, "ann")
    second = lane.submit("fake", {"prompt": "never"}, "ann")
    until(lambda: lane.job(first).state == "running")
    assert lane.job(second).position == 1
    assert lane.cancel(second)
    assert not lane.cancel(first)
    studio.fake.go.set()
    assert finished(lane, first).state == "done"
    assert lane.job(second).state == "stopped"
    assert "never" not in studio.fake.ran


def test_sessions_take_turns(lane: Lane, studio: FakeStudio) -> None:
    lane.submit("fake", {"prompt": "wait"}, "ann")
    until(lambda: studio.fake.ran == ["wait"])
    for name in ("ann 1", "ann 2", "ann 3"):
        lane.submit("fake", {"prompt": name}, "ann")
    last = [lane.submit("fake", {"prompt": name}, "bob") for name in ("bob 1", "bob 2")]
    assert [lane.job(one).position for one in last] == [1, 3]
    studio.fake.go.set()
    until(lambda: len(studio.fake.ran) == 6)
    assert studio.fake.ran == ["wait", "bob 1", "ann 1", "bob 2", "ann 2", "ann 3"]


def test_the_wait_is_estimated_from_measured_steps(lane: Lane) -> None:
    job_id = lane.submit("fake", {"prompt": "slow", "steps": 400}, "ann")
    behind = lane.submit("fake", {}, "bob")
    until(lambda: lane.job(job_id).done > 20)
    job = lane.job(job_id)
    assert job.eta_seconds is not None
    left = (job.total - job.done) * 0.02  # each step sleeps for this long
    assert 0.5 * left < job.eta_seconds < 5 * left
    lane.stop(job_id)
    assert finished(lane, behind).state == "done"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("crash", "ZeroDivisionError"),
        ("memory", "not enough memory"),
        ("disk", "the disk is full"),
        ("refuse", "the moon is not available; try a star"),
    ],
)
def test_a_failing_job_says_why_and_the_next_one_works(lane: Lane, prompt: str, words: str) -> None:
    job = finished(lane, lane.submit("fake", {"prompt": prompt}, "ann"))
    assert job.state == "failed"
    assert words in job.error and "secret detail" not in job.error and "\n" not in job.error
    assert finished(lane, lane.submit("fake", {}, "ann")).state == "done"
    assert torch.is_grad_enabled()


def test_why_a_job_failed_is_kept_with_code_and_facts(lane: Lane, studio: FakeStudio, tmp_path: Path) -> None:
    new, old = (finished(lane, lane.submit("fake", {"prompt": one}, "ann")) for one in ("disk", "crash"))
    assert new.problem == Message("io.disk_full", {"file": "cat.png"})
    assert old.problem == Message("core.broke", {"kind": "ZeroDivisionError"})
    lane.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as jobs:
        jobs.execute(
            "UPDATE jobs SET error = 'there was {no} room' WHERE id = ?", (old.id,)
        )  # as it was before
    jobs.close()
    again = Lane(studio, tmp_path, FAKES)
    try:
        assert again.job(new.id).problem == new.problem
        assert "磁盘已满" in both_sentence(new.problem) and "Cat.png was not saved" in both_sentence(
            new.problem
        )
        assert again.job(old.id).error == "there was {no} room"
        assert "There was {no} room." in both_sentence(again.job(old.id).problem)
    finally:
        again.close()


def test_wrong_settings_are_refused_at_once(lane: Lane) -> None:
    with pytest.raises(BadInput, match="candidates 0 is too small"):
        lane.submit("fake", {"candidates": 0}, "ann")
    with pytest.raises(BadInput, match="'dream' is not known"):
        lane.submit("dream", {}, "ann")
    with pytest.raises(BadInput):
        lane.job("no-such-job")


def test_queues_have_an_end(studio: FakeStudio, tmp_path: Path) -> None:
    lane = Lane(studio, tmp_path, FAKES, session_cap=2, total_cap=3)
    lane.submit("fake", {"prompt": "wait"}, "ann")
    until(lambda: studio.fake.ran == ["wait"])
    for session in ("ann", "ann", "bob"):
        lane.submit("fake", {}, session)
    with pytest.raises(BadInput, match="2 of your jobs are waiting"):
        lane.submit("fake", {}, "ann")
    with pytest.raises(BadInput, match="the queue is full with 3 jobs"):
        lane.submit("fake", {}, "cid")
    studio.fake.go.set()
    lane.close()


def test_previews_are_drawn_only_for_who_looks_and_only_on_the_lanes_thread(
    lane: Lane, studio: FakeStudio
) -> None:
    unseen = lane.submit("fake", {"steps": 50}, "ann")
    finished(lane, unseen)
    assert studio.fake.drawn_on == []
    job_id = lane.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: lane.preview(job_id))
    assert lane.job(job_id).preview_version >= 1
    pictures = lane.preview(job_id)
    assert pictures is not None and len(pictures) == 3
    assert set(studio.fake.drawn_on) == {"lane_0"}
    lane.stop(job_id)


def test_the_queue_survives_a_restart_and_a_running_job_is_offered_again(tmp_path: Path) -> None:
    first = FakeStudio()
    lane = Lane(first, tmp_path, FAKES)
    done = finished(lane, lane.submit("fake", {"prompt": "early"}, "ann"))
    running = lane.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: lane.job(running).state == "running")
    waiting = lane.submit("fake", {"prompt": "late"}, "ann")
    lane.close()

    second = FakeStudio()
    lane = Lane(second, tmp_path, FAKES)
    assert finished(lane, waiting).state == "done"
    assert second.fake.ran == ["late"]
    assert lane.job(running).state == "interrupted"
    assert lane.job(done.id).pictures == done.pictures
    assert {job.id for job in lane.jobs("ann")} == {done.id, running, waiting}
    assert lane.resume(running) == running
    until(lambda: lane.job(running).state == "running")
    lane.stop(running)
    lane.close()


def test_a_killed_server_offers_its_running_job_again(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from app.jobs.queue import Lane\n"
        "from tests.support.fakes import FAKES, FakeStudio\n"
        "lane = Lane(FakeStudio(), sys.argv[1], FAKES)\n"
        "running = lane.submit('fake', {'prompt': 'slow', 'steps': 100_000}, 'ann')\n"
        "while lane.job(running).done < 3: time.sleep(0.01)\n"
        "print(running, lane.submit('fake', {'prompt': 'late'}, 'ann'), flush=True)\n"
        "os._exit(9)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=120
    )
    running, waiting = done.stdout.split()
    studio = FakeStudio()
    lane = Lane(studio, tmp_path, FAKES)
    assert finished(lane, waiting).state == "done"
    assert lane.job(running).state == "interrupted"
    assert studio.fake.ran == ["late"]
    lane.close()


def test_a_picture_given_by_path_is_read_when_the_job_is_queued(lane: Lane, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    Image.new("RGB", (5, 5), "red").save(path)
    job_id = lane.submit("fake", {"image": str(path)}, "ann")
    path.unlink()
    assert lane.job(job_id).settings["image"].startswith("data:image/png;base64,")
    with pytest.raises(BadInput, match="there is no picture"):
        lane.submit("fake", {"image": str(path)}, "ann")


def test_a_full_disk_fails_the_job_and_keeps_what_was_written(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    fsync = os.fsync

    def full_after_one(handle: int) -> None:
        written.append(handle)
        if len(written) > 1:
            raise OSError(28, os.strerror(28))
        fsync(handle)

    monkeypatch.setattr("pipelines.io.files.os.fsync", full_after_one)
    job = finished(lane, lane.submit("fake", {}, "ann"))
    assert job.state == "failed" and "the disk is full" in job.error
    assert [one["rank"] for one in job.pictures] == [1]
    assert [path.suffix for path in tmp_path.glob("20*/*")] == [".png"]


def test_pictures_deleted_by_hand_are_not_shown(lane: Lane) -> None:
    job = finished(lane, lane.submit("fake", {}, "ann"))
    Path(job.pictures[0]["path"]).unlink()
    assert [one["path"] for one in lane.job(job.id).pictures] == [job.pictures[1]["path"]]


def test_two_studios_do_not_share_a_folder(lane: Lane, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="another studio already works"):
        Lane(FakeStudio(), tmp_path, FAKES)
