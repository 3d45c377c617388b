"""Runs that are stopped, killed, resumed, forked and changed on the way."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result, Step
from pipelines.errors import BadInput, Stopped
from pipelines.io.images import picture_to_uri
from pipelines.optimize.run import OptimizeRun
from pipelines.optimize.settings import OptimizeSettings
from tests.support.optimize import finished, half, in_both, last, saved, speckled
from tests.support.tiny import tiny_optimize

COURSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "radam, average": {"optimizer": "radam", "ema_decay": 0.7},
    "coarse": {"coarse": 1},
    "moving": {"animate": 7},
    "story": {"prompt": "a red heart ^ green apple @13"},
    "mask in mid-run": {
        "changes": json.dumps({"9": {"mask": picture_to_uri(half((32, 32)).convert("RGB"))}})
    },
}


@in_both
@pytest.mark.parametrize("fields", COURSES.values(), ids=COURSES.keys())
def test_a_killed_run_resumes_to_the_same_bits(fields: dict[str, Any], tmp_path: Path) -> None:
    settings = OptimizeSettings(**{"steps": 30, "cutouts": 4, **fields})
    whole = finished(tiny_optimize(), settings)
    events = run(tiny_optimize(), settings, Journal(tmp_path / "run"))
    for event in events:
        if isinstance(event, Step) and event.done == 24:
            break
    events.close()  # as good as killed: nothing is written any more
    journal = Journal(tmp_path / "run")
    assert journal.steps()[-1] >= 24 - 10
    resumed = finished(tiny_optimize(), settings, journal)
    assert [picture.image.tobytes() for picture in resumed.pictures] == [
        picture.image.tobytes() for picture in whole.pictures
    ]
    assert [picture.score for picture in resumed.pictures] == [picture.score for picture in whole.pictures]
    assert resumed.pictures[0].facts == whole.pictures[0].facts


@in_both
def test_stopping_keeps_the_picture_and_its_settings_remake_it(tmp_path: Path) -> None:
    settings = OptimizeSettings(steps=30, cutouts=4)
    events = run(tiny_optimize(), settings, Journal(tmp_path / "run"))
    for event in events:
        if isinstance(event, Step) and event.done == 17:
            break
    kept = events.throw(Stopped())
    assert (
        isinstance(kept, Result) and isinstance(kept.settings, OptimizeSettings) and kept.settings.until == 17
    )
    assert last(kept).tobytes() == last(finished(tiny_optimize(), kept.settings)).tobytes()
    assert Journal(tmp_path / "run").steps()[-1] == 17
    resumed = finished(tiny_optimize(), settings, Journal(tmp_path / "run"))
    assert last(resumed).tobytes() == last(finished(tiny_optimize(), settings)).tobytes()


@pytest.mark.parametrize("stop", [3, 10, 17])
def test_a_stopped_run_has_a_whole_film(stop: int, tmp_path: Path) -> None:
    pipeline, journal = tiny_optimize(), Journal(tmp_path / "run")
    settings = OptimizeSettings(steps=30, cutouts=2)
    events = run(pipeline, settings, journal)
    for event in events:
        if isinstance(event, Step) and event.done == stop:
            break
    events.throw(Stopped())
    assert pipeline.timelapse(settings, journal).count == stop
    finished(pipeline, settings, Journal(tmp_path / "run"))
    assert len(list(pipeline.timelapse(settings, journal).frames)) == 30


@in_both
def test_a_fork_is_the_run_with_its_changes(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    settings = OptimizeSettings(steps=20, cutouts=4)
    finished(pipeline, settings, Journal(tmp_path / "run"))
    changed = settings.changed(10, prompt="green apple | two cats:0.3", steps=25)
    fork = Journal(tmp_path / "run").fork(tmp_path / "fork", 10)
    assert fork.steps() == [10]
    forked = finished(pipeline, changed, fork)
    assert last(forked).tobytes() == last(finished(pipeline, changed)).tobytes()
    assert forked.pictures[0].facts["steps"] == 25
    with pytest.raises(BadInput, match="no snapshot"):
        Journal(tmp_path / "run").fork(tmp_path / "other", 11)


def test_a_journal_is_one_runs_only(tmp_path: Path) -> None:
    finished(tiny_optimize(), OptimizeSettings(steps=2, cutouts=2), Journal(tmp_path / "run"))
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(tiny_optimize(), OptimizeSettings(steps=2, cutouts=3), Journal(tmp_path / "run"))
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        finished(tiny_optimize(), OptimizeSettings(steps=2, cutouts=2), Journal(tmp_path / "run"))


def test_a_vanished_start_picture_is_inside_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    settings = OptimizeSettings(steps=12, cutouts=2, image=saved(speckled((32, 32)), path))
    whole = finished(tiny_optimize(), settings, Journal(tmp_path / "run"))
    path.unlink()
    identity = Journal(tmp_path / "run").identity()
    assert identity is not None
    again = OptimizeSettings.from_dict(identity["settings"])
    assert (
        last(finished(tiny_optimize(), again, Journal(tmp_path / "run"))).tobytes() == last(whole).tobytes()
    )


def test_numbers_that_break_down_end_the_run_with_the_last_good_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = tiny_optimize()
    good = last(finished(pipeline, OptimizeSettings(steps=7, coarse=0, cutouts=2)))
    step_before = OptimizeRun._gradient

    def broken(self: OptimizeRun, *arguments: Any) -> Any:
        loss, gradient, picture = step_before(self, *arguments)
        return (loss * math.nan if self.state.step == 7 else loss), gradient, picture

    monkeypatch.setattr(OptimizeRun, "_gradient", broken)
    result = finished(pipeline, OptimizeSettings(steps=20, coarse=0, cutouts=2))
    assert last(result).tobytes() == good.tobytes()
    assert "the loss became nan at step 8" in result.pictures[0].facts["ended"]
    assert isinstance(result.settings, OptimizeSettings) and result.settings.until == 7


@in_both
def test_the_film_shows_every_step(tmp_path: Path) -> None:
    pipeline = tiny_optimize()
    settings = pipeline.prepare(
        OptimizeSettings(steps=14, coarse=0, cutouts=2, prompt="a red heart ^ green apple @6")
    )
    journal = Journal(tmp_path / "run")
    seen = []
    for event in run(pipeline, settings, journal):
        if isinstance(event, Step):
            seen += [one.tobytes() for one in event.preview()]
    film = pipeline.timelapse(settings, journal)
    frames = list(film.frames)
    assert film.count == len(frames) == 14 and film.scenes == ["a red heart", "green apple"]
    assert [frame.scene for frame in frames] == [0] * 6 + [1] * 8
    assert [frame.image.tobytes() for frame in frames] == seen
    assert pipeline.image_at(settings, journal, 10).tobytes() == seen[10]
    moving = pipeline.prepare(OptimizeSettings(steps=14, cutouts=2, animate=4))
    finished(pipeline, moving, Journal(tmp_path / "moving"))
    assert pipeline.timelapse(moving, Journal(tmp_path / "moving")).count == 3
