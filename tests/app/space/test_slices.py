"""Optimize in slices."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app import space
from pipelines.core.record import read_record
from pipelines.studio import PIPELINES
from tests.support.space import Place, pixels, uncut


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of Optimize is a slice of its own."""
    monkeypatch.setattr(space, "START", 5.0)
    monkeypatch.setattr(space, "SLICE", 4.0)


GROWING = {"prompt": "a red heart", "steps": 12, "cutouts": 4, "seed": 5}


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("reuse", [True, False])
def test_optimize_in_slices_is_the_same_run(place: Place, reuse: bool) -> None:
    place.platform.reuse = reuse
    job = place.finished(place.submit("optimize", GROWING))
    assert job.state == "done", job.error
    assert len(place.seconds) == 12 and max(place.seconds) <= 4
    assert {one.token for one in place.platform.asked} == {"ann's"}
    assert len(place.platform.processes) == (1 if reuse else 12)
    assert pixels(job) == uncut("optimize", GROWING)
    assert read_record(job.pictures[0]["path"], PIPELINES).settings["until"] == 0


def test_a_short_run_asks_for_no_more_than_it_needs(place: Place) -> None:
    assert place.finished(place.submit("optimize", GROWING | {"steps": 6})).state == "done"
    assert place.seconds == [5]  # 3 s to begin and 6 steps of 0.2 s
    assert place.finished(place.submit("optimize", GROWING | {"steps": 20_000, "until": 1})).state == "done"
    assert place.seconds[1] <= space.SLICE


@pytest.mark.usefixtures("short_slices")
def test_stop_keeps_the_pictures_and_resume_goes_on(place: Place, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def hold() -> None:
        while len(list(tmp_path.glob("runs/*/step-*"))) >= 3 and not go.exists():
            time.sleep(0.005)

    place.studio.step = hold
    job_id = place.submit("optimize", GROWING)
    place.until(lambda: place.queue.job(job_id).done == 3)
    place.queue.stop(job_id)
    go.touch()
    job = place.finished(job_id)
    assert job.state == "stopped" and job.pictures
    kept = max(place.queue.journal(job_id).steps())
    assert 3 <= kept <= 5
    assert read_record(job.pictures[0]["path"], PIPELINES).settings["until"] == kept
    before = len(place.seconds)
    place.resume(job_id, "bob's")
    job = place.finished(job_id)
    assert job.state == "done", job.error
    assert pixels(job) == uncut("optimize", GROWING)
    assert {one.token for one in place.platform.asked[before:]} == {"bob's"}


@pytest.mark.usefixtures("short_slices")
def test_a_refusal_in_mid_run_keeps_what_there_is(place: Place) -> None:
    place.platform.refusals[3] = "Expired ZeroGPU proxy token"
    job_id = place.submit("optimize", GROWING)
    job = place.finished(job_id)
    assert job.state == "failed"
    assert job.error == (
        "this needs 4 s of GPU time, and your pass to it ran out while this waited; reload the page and go on"
    )
    assert place.queue.journal(job_id).steps()[-1] == 3
    place.resume(job_id, "ann's new one")
    assert pixels(place.finished(job_id)) == uncut("optimize", GROWING)


def test_stop_ends_edits_learning_and_keeps_what_it_learned(place: Place) -> None:
    place.platform.left["ann's"] = 1000
    job_id = place.submit("edit", {"steps": 4, "updates": 200, "mode": "quick"})
    place.until(lambda: place.queue.job(job_id).stage == "learn")
    place.queue.stop(job_id)
    job = place.finished(job_id)
    assert job.state == "stopped" and job.pictures
    assert not place.zero.paces.path.exists()  # half a run tells nothing


def test_stopping_generate_ends_the_call_and_the_next_one_works(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(space.FIRST_ESTIMATES, "generate", lambda _: 50.0)
    job_id = place.submit("generate", {"candidates": 512})
    place.until(lambda: place.queue.job(job_id).done > 0)
    place.queue.stop(job_id)
    assert place.finished(job_id).state == "stopped"
    assert place.finished(place.submit("generate", {"candidates": 2})).state == "done"
