"""Runs on a lent GPU."""

from __future__ import annotations

import contextvars
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from app import space
from app.jobs.queue import JobQueue
from pipelines.core.execute import run
from pipelines.core.pipeline import Step
from pipelines.core.record import read_record
from pipelines.errors import BadInput
from pipelines.studio import PIPELINES, Studio
from tests.support.space import MAKERS, LargeStudio, Place, chinese, pixels, uncut


def test_the_tiny_pack_takes_no_quota_and_needs_no_visitor(place: Place) -> None:
    place.studio.pack = "tiny"
    settings = {"prompt": "a red heart", "seed": 3}
    job = place.finished(place.submit("generate", settings, token=None))
    assert (job.state, place.platform.asked) == ("done", [])
    assert pixels(job) == uncut("generate", settings)


def test_another_part_than_the_tiny_packs_needs_the_gpu(place: Place) -> None:
    place.studio.pack, place.studio.use = "tiny", {"clip": "clip-vit-b-32"}
    job = place.finished(place.submit("generate", {"prompt": "a red heart", "candidates": 2}))
    assert (job.state, len(place.platform.asked)) == ("done", 1)


@pytest.mark.parametrize("name", ["generate", "edit"])
def test_one_call_paid_by_the_visitor_gives_the_same_pictures(place: Place, name: str) -> None:
    settings = {
        "generate": {"prompt": "a red heart", "candidates": 4},
        "edit": {"mode": "quick", "steps": 4, "updates": 2},
    }[name] | {"seed": 3}
    job = place.finished(place.submit(name, settings))
    assert job.state == "done", job.error
    assert [(one.token, one.granted) for one in place.platform.asked] == [("ann's", True)]
    checked = MAKERS[name]().Settings.from_dict(settings)
    assert place.seconds == [int(space.START + space.FIRST_ESTIMATES[name](checked) + 0.999)]
    assert pixels(job) == uncut(name, settings)
    assert job.seconds["run"] > 0 and job.metrics is not None
    record = read_record(job.pictures[0]["path"], PIPELINES)
    assert (record.device, record.pack) == ("cpu", "full")


def test_each_visitor_pays_for_himself(place: Place) -> None:
    place.platform.left["bob's"] = 10
    job = place.finished(place.submit("generate", {"candidates": 2}, "bob's"))
    assert job.state == "failed"
    assert job.error.startswith(
        "this needs 36 s of GPU time and 10 s of your daily quota are left; try again"
    )
    assert "3:12:00" in job.error and {"36", "10"} <= set(re.findall(r"\d+", chinese(job.problem)))
    assert place.finished(place.submit("generate", {"candidates": 2}, "ann's")).state == "done"
    assert place.platform.left["bob's"] == 10 and place.platform.left["ann's"] < 120
    assert [(one.token, one.granted) for one in place.platform.asked] == [("bob's", False), ("ann's", True)]


def test_a_job_of_nobody_is_refused_before_anything_is_asked_for(place: Place) -> None:
    job = place.finished(place.submit("generate", {}, token=None))
    assert job.state == "failed" and "belongs to the visitor who asks" in job.error
    assert place.platform.asked == []


def test_measured_runs_correct_what_is_asked_for(place: Place, tmp_path: Path) -> None:
    settings = {"prompt": "a red heart", "candidates": 4}
    for seed in range(2):
        assert place.finished(place.submit("generate", settings | {"seed": seed})).state == "done"
    first, second = place.seconds
    assert first == 25 and space.START <= second < first
    kept = space.Paces(tmp_path / "gpu-paces.json")
    assert kept.factor("generate", "full") == place.zero.paces.factor("generate", "full") < 1
    assert kept.factor("generate", "mini") == 1


def test_a_process_that_serves_again_follows_a_change_of_pack(place: Place) -> None:
    assert place.finished(place.submit("generate", {"candidates": 2})).state == "done"
    place.studio.pack = "mini"
    job = place.finished(place.submit("generate", {"candidates": 2}))
    assert job.state == "done", job.error
    assert len(place.platform.processes) == 1
    assert set(json.loads(place.zero.paces.path.read_text())) == {"generate full", "generate mini"}


def test_previews_cross_as_pictures_of_the_processor(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "PREVIEW_SECONDS", 0.0)
    job_id = place.submit("optimize", {"steps": 400, "cutouts": 4})
    place.until(lambda: place.queue.preview(job_id))
    place.queue.stop(job_id)
    assert place.finished(job_id).state == "stopped"
    step = space.carried(Step("draw", 1, 2, {"a": 1.5}, lambda: torch.zeros(1, 3, 4, 4)), with_picture=True)
    assert step.draw is not None and step.preview()[0].size == (4, 4)
    assert space.carried(step, with_picture=False).draw is None


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (BadInput("the moon is not available; try a star"), "the moon is not available; try a star"),
        (ZeroDivisionError("secret detail"), "the run failed inside (ZeroDivisionError)"),
    ],
)
def test_what_goes_wrong_there_is_told_here(place: Place, problem: Exception, words: str) -> None:
    def fail() -> None:
        raise problem

    place.studio.step = fail
    job = place.finished(place.submit("generate", {"candidates": 2}))
    assert job.state == "failed" and words in job.error and "secret" not in job.error


def test_a_call_that_outlasts_its_time_is_taken_away_and_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "START", 0.0)
    monkeypatch.setitem(space.FIRST_ESTIMATES, "generate", lambda _: 0.5)
    place.studio.step = lambda: time.sleep(60)
    job = place.finished(place.submit("generate", {"candidates": 2}))
    assert (job.state, place.platform.killed) == ("failed", 1)
    assert job.error.startswith("this needs 1 s of GPU time, and it was taken away before the end")
    place.studio.step = lambda: None
    monkeypatch.setitem(space.FIRST_ESTIMATES, "generate", lambda _: 30.0)
    assert place.finished(place.submit("generate", {"candidates": 2})).state == "done"


def test_a_studio_on_another_device_takes_the_models_over() -> None:
    home = Studio("tiny", "cpu")
    clip = home.clip()
    with home._lock:  # as when another thread was loading while this process was forked
        there: list[Any] = []
        thread = threading.Thread(target=lambda: there.append(home.on("cpu").clip()))
        thread.start()
        thread.join(30)
        assert there == [clip]


def test_the_precision_is_that_of_the_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import studio as studios

    home = Studio("tiny", "cpu")
    assert {parameter.dtype for parameter in home.clip().parameters()} == {torch.float32}
    monkeypatch.setattr(studios, "dtype_of", lambda kind, device: torch.bfloat16)
    moved = home.on("cpu").clip()
    assert {parameter.dtype for parameter in moved.parameters()} == {torch.bfloat16}


def test_the_jobs_context_is_that_of_who_asked(tmp_path: Path) -> None:
    seen: list[str] = []
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    def noting(pipeline: Any, settings: Any, journal: Any) -> Any:
        seen.append(name.get())
        return run(pipeline, settings, journal)

    queue = JobQueue(LargeStudio(), tmp_path, run=noting)
    try:
        for visitor in ("ann", "bob"):
            context = contextvars.copy_context()
            context.run(name.set, visitor)
            job_id = context.run(queue.submit, "generate", {"candidates": 2, "keep": 1}, visitor)
            end = time.monotonic() + 60
            while not queue.job(job_id).is_over:
                assert time.monotonic() < end
                time.sleep(0.005)
    finally:
        queue.close()
    assert seen == ["ann", "bob"]
