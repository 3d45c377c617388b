"""The queue: jobs belong to the server, one at a time, fair, kept over a restart."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.jobs.order import party_of
from app.jobs.queue import Job, JobQueue
from app.ui.i18n import both_sentence
from pipelines.core.record import read_record
from pipelines.errors import BadInput, Message
from tests.support.fakes import FAKES, FakeStudio


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def finished(queue: JobQueue, job_id: str) -> Job:
    until(lambda: queue.job(job_id).is_over)
    return queue.job(job_id)


def test_a_job_ends_with_pictures_that_carry_records(queue: JobQueue) -> None:
    job = finished(queue, queue.submit("fake", {"prompt": "a star", "seed": 4}, "ann"))
    assert (job.state, job.error, len(job.pictures)) == ("done", "", 2)
    assert job.seconds["run"] > 0
    assert [one["rank"] for one in job.pictures] == [1, 2]
    for picture in job.pictures:
        record = read_record(picture["path"], FAKES)
        assert record.settings["prompt"] == "a star"
        assert record.picture["seed"] == picture["seed"]


def test_stop_answers_within_one_step(queue: JobQueue, studio: FakeStudio) -> None:
    job_id = queue.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: queue.job(job_id).done > 2)
    before = queue.job(job_id).done
    queue.stop(job_id)
    job = finished(queue, job_id)
    assert job.state == "stopped"
    assert job.done <= before + 2
    assert studio.fake.closed == ["slow"]
    assert finished(queue, queue.submit("fake", {}, "ann")).state == "done"


def test_a_waiting_job_can_be_cancelled_and_never_runs(queue: JobQueue, studio: FakeStudio) -> None:
    first = queue.submit("fake", {"prompt": "wait"}, "ann")
    second = queue.submit("fake", {"prompt": "never"}, "ann")
    until(lambda: queue.job(first).state == "running")
    assert queue.job(second).position == 1
    assert queue.cancel(second)
    assert not queue.cancel(first)
    studio.fake.go.set()
    assert finished(queue, first).state == "done"
    assert queue.job(second).state == "stopped"
    assert "never" not in studio.fake.ran


def test_a_visitor_orders_his_own_jobs_and_lets_them_wait(queue: JobQueue, studio: FakeStudio) -> None:
    queue.submit("fake", {"prompt": "wait"}, "ann")
    until(lambda: studio.fake.ran == ["wait"])
    first, second, third = (queue.submit("fake", {"prompt": name}, "ann") for name in ("1", "2", "3"))
    theirs = queue.submit("fake", {"prompt": "bob"}, "bob")
    assert queue.move(third, -1) and queue.move(third, -1) and not queue.move(third, -1)
    assert not queue.move(second, 1) and not queue.move(theirs, -1) and not queue.move("gone", 1)
    assert [job.settings["prompt"] for job in queue.line("ann")] == ["wait", "3", "1", "2"]
    queue.pause("ann", True)
    studio.fake.go.set()
    assert finished(queue, theirs).state == "done"
    assert studio.fake.ran == ["wait", "bob"]
    assert [job.position for job in queue.line("ann")] == [0, 0, 0] and queue.is_paused("ann")
    assert queue.cancel(first)
    queue.pause("ann", False)
    assert finished(queue, second).state == "done"
    assert studio.fake.ran == ["wait", "bob", "3", "2"]
    queue.pause("ann", True)
    queue.submit("fake", {"prompt": "4"}, "ann")
    assert queue.clear("ann") == 1 and queue.line("ann") == []


def test_a_pause_outlives_the_server(studio: FakeStudio, tmp_path: Path) -> None:
    studio.fake.go.set()
    before = JobQueue(studio, tmp_path, FAKES)
    for name in ("ann", "bob"):
        before.pause(name, True)
    waits = before.submit("fake", {"prompt": "later"}, "ann")
    before.pause("bob", False)
    before.close()
    again = JobQueue(studio, tmp_path, FAKES)
    try:
        assert again.is_paused("ann") and not again.is_paused("bob")
        assert finished(again, again.submit("fake", {"prompt": "now"}, "bob")).state == "done"
        assert again.job(waits).state == "queued" and again.job(waits).position == 0
        again.pause("ann", False)
        assert finished(again, waits).state == "done"
    finally:
        again.close()


def test_sessions_take_turns(queue: JobQueue, studio: FakeStudio) -> None:
    queue.submit("fake", {"prompt": "wait"}, "ann")
    until(lambda: studio.fake.ran == ["wait"])
    for name in ("ann 1", "ann 2", "ann 3"):
        queue.submit("fake", {"prompt": name}, "ann")
    last = [queue.submit("fake", {"prompt": name}, "bob") for name in ("bob 1", "bob 2")]
    assert [queue.job(one).position for one in last] == [1, 3]
    studio.fake.go.set()
    until(lambda: len(studio.fake.ran) == 6)
    assert studio.fake.ran == ["wait", "bob 1", "ann 1", "bob 2", "ann 2", "ann 3"]


def test_the_wait_is_estimated_from_measured_steps(queue: JobQueue) -> None:
    job_id = queue.submit("fake", {"prompt": "slow", "steps": 400}, "ann")
    behind = queue.submit("fake", {}, "bob")
    until(lambda: queue.job(job_id).done > 20)
    job = queue.job(job_id)
    assert job.eta_seconds is not None
    left = (job.total - job.done) * 0.02  # each step sleeps for this long
    assert 0.5 * left < job.eta_seconds < 5 * left
    queue.stop(job_id)
    assert finished(queue, behind).state == "done"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("crash", "ZeroDivisionError"),
        ("memory", "not enough memory"),
        ("disk", "the disk is full"),
        ("refuse", "the moon is not available; try a star"),
    ],
)
def test_a_failing_job_says_why_and_the_next_one_works(queue: JobQueue, prompt: str, words: str) -> None:
    job = finished(queue, queue.submit("fake", {"prompt": prompt}, "ann"))
    assert job.state == "failed"
    assert words in job.error and "secret detail" not in job.error and "\n" not in job.error
    assert finished(queue, queue.submit("fake", {}, "ann")).state == "done"
    assert torch.is_grad_enabled()


def test_why_a_job_failed_is_kept_with_code_and_facts(
    queue: JobQueue, studio: FakeStudio, tmp_path: Path
) -> None:
    new, old = (finished(queue, queue.submit("fake", {"prompt": one}, "ann")) for one in ("disk", "crash"))
    assert new.problem == Message("io.disk_full", {"file": "cat.png"})
    assert old.problem == Message("core.broke", {"kind": "ZeroDivisionError"})
    queue.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as jobs:
        jobs.execute(
            "UPDATE jobs SET error = 'there was {no} room' WHERE id = ?", (old.id,)
        )  # as it was before
    jobs.close()
    again = JobQueue(studio, tmp_path, FAKES)
    try:
        assert again.job(new.id).problem == new.problem
        assert "磁盘已满" in both_sentence(new.problem) and "Cat.png was not saved" in both_sentence(
            new.problem
        )
        assert again.job(old.id).error == "there was {no} room"
        assert "There was {no} room." in both_sentence(again.job(old.id).problem)
    finally:
        again.close()


def test_wrong_settings_are_refused_at_once(queue: JobQueue) -> None:
    with pytest.raises(BadInput, match="candidates 0 is too small"):
        queue.submit("fake", {"candidates": 0}, "ann")
    with pytest.raises(BadInput, match="'dream' is not known"):
        queue.submit("dream", {}, "ann")
    with pytest.raises(BadInput):
        queue.job("no-such-job")


def test_queues_have_an_end(studio: FakeStudio, tmp_path: Path) -> None:
    queue = JobQueue(studio, tmp_path, FAKES, session_cap=2, total_cap=3)
    queue.submit("fake", {"prompt": "wait"}, "ann")
    until(lambda: studio.fake.ran == ["wait"])
    for session in ("ann", "ann", "bob"):
        queue.submit("fake", {}, session)
    with pytest.raises(BadInput, match="2 of your jobs are waiting"):
        queue.submit("fake", {}, "ann")
    with pytest.raises(BadInput, match="the queue is full with 3 jobs"):
        queue.submit("fake", {}, "cid")
    studio.fake.go.set()
    queue.close()


def test_programs_at_one_address_leave_places_to_others(studio: FakeStudio, tmp_path: Path) -> None:
    queue = JobQueue(studio, tmp_path, FAKES, session_cap=8, total_cap=64)
    where = ["192.0.2.7"]
    queue.address = lambda: where[0]
    queue.submit("fake", {"prompt": "wait"}, "ann")
    until(lambda: studio.fake.ran == ["wait"])
    for number in range(16):
        queue.submit("fake", {"prompt": f"theirs {number}"}, f"api-invented-{number}")
    with pytest.raises(BadInput, match="16 jobs from your address are waiting"):
        queue.submit("fake", {}, "api-invented-16")
    queue.submit("fake", {"prompt": "a page there"}, "ann")
    where[0] = "192.0.2.8"
    for number in range(8):
        queue.submit("fake", {"prompt": f"another {number}"}, "api-other")
    with pytest.raises(BadInput, match="8 of your jobs are waiting"):
        queue.submit("fake", {}, "api-other")
    for number in range(30):  # pages invent visitors
        queue.submit("fake", {"prompt": f"page {number}"}, f"visitor-{number % 10}")
    where[0] = ""
    studio.fake.go.set()
    until(lambda: len(studio.fake.ran) == 56)
    order = studio.fake.ran[1:14]  # programs at an address take one turn together, whatever names they invent
    assert sum(prompt.startswith("theirs") for prompt in order) == 1
    assert "another 0" in order and "a page there" in order
    queue.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_whose_share_an_address_takes(one: str, other: str, same: bool) -> None:
    assert (party_of(one, True) == party_of(other, True)) == same
    assert party_of(one, True) != party_of(one, False)
    assert party_of("", True) == ""


def test_stop_waits_for_no_lock(queue: JobQueue, studio: FakeStudio) -> None:
    job_id = queue.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: queue.job(job_id).done > 2)
    queue.stop_soon(job_id, "bob")
    assert not queue._live[job_id].stop  # it is not his
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with queue._lock:
            held.set()
            let_go.wait(10)

    threading.Thread(target=hold).start()
    held.wait(10)
    begun = time.monotonic()
    queue.stop_soon(job_id, "ann")
    assert time.monotonic() - begun < 0.1
    until(lambda: studio.fake.closed == ["slow"])  # at its next step, while the lock is held
    let_go.set()
    assert finished(queue, job_id).state == "stopped"


def test_memory_keeps_little_of_what_is_over(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.queue.KEPT_LIVE", 5)
    monkeypatch.setattr("app.jobs.queue.KEPT_PREVIEWS", 2)
    monkeypatch.setattr("app.jobs.queue.KEPT_TURNS", 3)
    for number in range(8):
        job_id = queue.submit("fake", {"prompt": "slow", "steps": 100_000}, f"visitor {number}")
        until(lambda job_id=job_id: queue.preview(job_id))
        queue.stop(job_id)
        finished(queue, job_id)
    assert len(queue._live) == 5 and len(queue._turns) == 3 and len(queue._expected) <= 1
    assert sum(live.preview is not None for live in queue._live.values()) == 2
    assert len(queue.jobs(count=50)) == 8


def test_jobs_leave_no_objects(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty jobs more, with other prompts of other visitors and looked at: as many objects of every class as before."""
    for name in ("KEPT_LIVE", "KEPT_PREVIEWS", "KEPT_TURNS"):
        monkeypatch.setattr(f"app.jobs.queue.{name}", 3)

    def counted(jobs: range) -> Counter[str]:
        for number in jobs:
            visitor = f"visitor {number}"
            job_id = queue.submit("fake", {"prompt": f"a star of {number}", "steps": 30}, visitor)
            queue.preview(job_id)
            finished(queue, job_id)
            queue.jobs(visitor)
        gc.collect()
        return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())

    before = counted(range(10))
    more = counted(range(10, 30)) - before
    # sqlite3 keeps up to 200 dead references to cursors
    passing = ("builtins.builtin_function_or_method", "weakref.ReferenceType")
    assert not {name: count for name, count in more.items() if count >= 15 and name not in passing}


def test_previews_are_drawn_only_for_who_looks_and_only_on_the_lanes_thread(
    queue: JobQueue, studio: FakeStudio
) -> None:
    unseen = queue.submit("fake", {"steps": 50}, "ann")
    finished(queue, unseen)
    assert studio.fake.drawn_on == []
    job_id = queue.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: queue.preview(job_id))
    assert queue.job(job_id).preview_version >= 1
    pictures = queue.preview(job_id)
    assert pictures is not None and len(pictures) == 3
    assert set(studio.fake.drawn_on) == {"queue_0"}
    queue.stop(job_id)


def test_the_queue_survives_a_restart_and_a_running_job_is_offered_again(tmp_path: Path) -> None:
    first = FakeStudio()
    queue = JobQueue(first, tmp_path, FAKES)
    done = finished(queue, queue.submit("fake", {"prompt": "early"}, "ann"))
    running = queue.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: queue.job(running).state == "running")
    waiting = queue.submit("fake", {"prompt": "late"}, "ann")
    queue.close()

    second = FakeStudio()
    queue = JobQueue(second, tmp_path, FAKES)
    assert finished(queue, waiting).state == "done"
    assert second.fake.ran == ["late"]
    assert queue.job(running).state == "interrupted"
    assert queue.job(done.id).pictures == done.pictures
    assert {job.id for job in queue.jobs("ann")} == {done.id, running, waiting}
    assert queue.resume(running) == running
    until(lambda: queue.job(running).state == "running")
    queue.stop(running)
    queue.close()


def test_a_killed_server_offers_its_running_job_again(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from app.jobs.queue import JobQueue\n"
        "from tests.support.fakes import FAKES, FakeStudio\n"
        "queue = JobQueue(FakeStudio(), sys.argv[1], FAKES)\n"
        "running = queue.submit('fake', {'prompt': 'slow', 'steps': 100_000}, 'ann')\n"
        "while queue.job(running).done < 3: time.sleep(0.01)\n"
        "print(running, queue.submit('fake', {'prompt': 'late'}, 'ann'), flush=True)\n"
        "os._exit(9)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=120
    )
    running, waiting = done.stdout.split()
    studio = FakeStudio()
    queue = JobQueue(studio, tmp_path, FAKES)
    assert finished(queue, waiting).state == "done"
    assert queue.job(running).state == "interrupted"
    assert studio.fake.ran == ["late"]
    queue.close()


def test_a_picture_given_by_path_is_read_when_the_job_is_queued(queue: JobQueue, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    Image.new("RGB", (5, 5), "red").save(path)
    job_id = queue.submit("fake", {"image": str(path)}, "ann")
    path.unlink()
    assert queue.job(job_id).settings["image"].startswith("data:image/png;base64,")
    with pytest.raises(BadInput, match="there is no picture"):
        queue.submit("fake", {"image": str(path)}, "ann")


def test_a_full_disk_fails_the_job_and_keeps_what_was_written(
    queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    fsync = os.fsync

    def full_after_one(handle: int) -> None:
        written.append(handle)
        if len(written) > 1:
            raise OSError(28, os.strerror(28))
        fsync(handle)

    monkeypatch.setattr("pipelines.io.files.os.fsync", full_after_one)
    job = finished(queue, queue.submit("fake", {}, "ann"))
    assert job.state == "failed" and "the disk is full" in job.error
    assert [picture["rank"] for picture in job.pictures] == [1]
    assert [path.suffix for path in tmp_path.glob("20*/*")] == [".png"]


def test_pictures_deleted_by_hand_are_not_shown(queue: JobQueue) -> None:
    job = finished(queue, queue.submit("fake", {}, "ann"))
    Path(job.pictures[0]["path"]).unlink()
    assert [picture["path"] for picture in queue.job(job.id).pictures] == [job.pictures[1]["path"]]


def test_two_studios_do_not_share_a_folder(queue: JobQueue, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="another studio already works"):
        JobQueue(FakeStudio(), tmp_path, FAKES)
