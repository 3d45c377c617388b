"""Pictures that jobs were given lie in files beside the list, within a limit; journals are kept within limits, too."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from app.jobs.journals import forget_journals
from app.jobs.queue import JobQueue
from pipelines.errors import BadInput, CannotSave
from pipelines.io.images import open_picture, picture_to_uri
from tests.app.jobs.test_queue import finished, until
from tests.support.fakes import FAKES, FakeStudio
from tests.support.pictures import noise


def picture(seed: int, side: int = 64) -> str:
    return picture_to_uri(noise(side, seed))


def list_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("jobs.sqlite*"))


def test_a_given_picture_is_a_file_and_comes_back_with_its_job(queue: JobQueue, tmp_path: Path) -> None:
    uri = picture(1)
    first = finished(queue, queue.submit("fake", {"image": uri}, "ann"))
    again = finished(queue, queue.submit("fake", {"image": uri}, "ann"))
    assert len(list((tmp_path / "given").iterdir())) == 1  # the same picture once
    assert b"data:image" not in list_of(tmp_path)
    for job in (first, again):
        assert open_picture(job.settings["image"]).tobytes() == open_picture(uri).tobytes()
    assert all("data:image" not in str(job.settings) for job in queue.jobs("ann"))
    assert all("data:image" not in str(live.job.settings) for live in queue._live.values())


def test_after_a_restart_it_waits_with_its_picture(studio: FakeStudio, tmp_path: Path) -> None:
    queue = JobQueue(studio, tmp_path, FAKES)
    running = queue.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: queue.job(running).state == "running")
    waiting = queue.submit("fake", {"image": picture(2)}, "ann")
    queue.close()
    again = JobQueue(FakeStudio(), tmp_path, FAKES)
    assert open_picture(finished(again, waiting).settings["image"]).size == (64, 64)
    again.close()


def test_the_ones_used_longest_ago_go_first_and_are_missed_in_a_sentence(
    queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = queue.submit("fake", {"image": picture(3), "prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: queue.job(stopped).state == "running")
    queue.stop(stopped)
    finished(queue, stopped)
    size = sum(path.stat().st_size for path in (tmp_path / "given").iterdir())
    monkeypatch.setattr("app.jobs.given.MOST_BYTES", int(3.5 * size))
    for age, path in enumerate((tmp_path / "given").iterdir()):
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    for seed in range(4, 10):
        finished(queue, queue.submit("fake", {"image": picture(seed)}, "ann"))
        assert sum(path.stat().st_size for path in (tmp_path / "given").iterdir()) <= 3.5 * size
    assert queue.job(stopped).settings["image"] == ""
    with pytest.raises(BadInput, match="is not kept any more; give it again"):
        queue.resume(stopped)


def test_a_list_of_an_earlier_version_is_emptied_of_pictures(tmp_path: Path) -> None:
    queue = JobQueue(FakeStudio(), tmp_path, FAKES)
    job = finished(queue, queue.submit("fake", {}, "ann"))
    queue.close()
    uri = picture(11, 160)
    with sqlite3.connect(tmp_path / "jobs.sqlite") as jobs:
        old = json.dumps({**job.settings, "image": uri})
        jobs.execute("UPDATE jobs SET settings = ? WHERE id = ?", (old, job.id))
    jobs.close()
    assert b"data:image" in list_of(tmp_path)
    queue = JobQueue(FakeStudio(), tmp_path, FAKES)
    assert queue.job(job.id).settings["image"] == uri
    queue.close()
    assert b"data:image" not in list_of(tmp_path)


def test_a_full_disk_refuses_the_job_and_leaves_nothing(
    queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pipelines.io.files.os.fsync", full)
    with pytest.raises(CannotSave, match="the disk is full"):
        queue.submit("fake", {"image": picture(5)}, "ann")
    assert queue.jobs() == [] and list((tmp_path / "given").iterdir()) == []


def test_journals_are_trimmed_while_running(
    queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        folder = tmp_path / "runs" / f"old-{number}"
        folder.mkdir(parents=True)
        (folder / "step-000010.safetensors").write_bytes(b"0" * 1000)
        os.utime(folder, (1_700_000_000 + number, 1_700_000_000 + number))
    monkeypatch.setattr("app.jobs.journals.KEPT_JOURNALS", 5)
    finished(queue, queue.submit("fake", {}, "ann"))
    until(lambda: len(list((tmp_path / "runs").iterdir())) == 5)
    monkeypatch.setattr("app.jobs.journals.MOST_BYTES", 2500)
    forget_journals(tmp_path / "runs", {"old-3"})
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["old-3", "old-6", "old-7"]


def test_a_damaged_list_while_running_stops_nobody(queue: JobQueue, tmp_path: Path) -> None:
    job = finished(queue, queue.submit("fake", {}, "ann"))
    queue._store._db.execute("UPDATE jobs SET metrics = 'x', settings = '['")
    assert [one.id for one in queue.jobs("ann")] == [job.id]  # memory knows it
    queue._store._db.execute("DROP TABLE jobs")
    assert queue.job(job.id).state == "done"
    with pytest.raises(BadInput):
        queue.job("gone")
    with pytest.raises(CannotSave):
        queue.submit("fake", {}, "ann")
    assert queue.waiting() == [] and time.monotonic() > 0


def test_a_waiting_run_that_has_lost_its_picture_does_not_run_without_it(
    studio: FakeStudio, tmp_path: Path
) -> None:
    queue = JobQueue(studio, tmp_path, FAKES)
    running = queue.submit("fake", {"prompt": "slow", "steps": 100_000}, "ann")
    until(lambda: queue.job(running).state == "running")
    waiting = queue.submit("fake", {"image": picture(2)}, "ann")
    queue.close()
    for file in (tmp_path / "given").iterdir():
        file.unlink()
    again = JobQueue(FakeStudio(), tmp_path, FAKES)
    job = again.job(waiting)
    assert job.state == "failed" and "is not kept any more; give it again" in job.error
    again.close()


def test_a_folder_that_is_deleted_while_running_is_begun_anew(queue: JobQueue, tmp_path: Path) -> None:
    before = finished(queue, queue.submit("fake", {}, "ann"))
    for file in sorted(tmp_path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    tmp_path.rmdir()
    job = finished(queue, queue.submit("fake", {}, "ann"))
    assert job.state == "done" and Path(job.pictures[0]["path"]).is_file()
    assert queue._store.find(job.id) is not None and queue._store.find(before.id) is None
    with pytest.raises(BadInput, match="another studio"):
        JobQueue(FakeStudio(), tmp_path, FAKES)
