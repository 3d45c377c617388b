"""Runs that are stopped, killed and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result, Step
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput, Stopped
from tests.support.edit import (
    QUICK,
    finished,
    first,
    pixels,
    speckled,
    uri,
)
from tests.support.tiny import tiny_edit


def stopped_at(
    edit: Edit, settings: EditSettings, stage: str, done: int, journal: Journal | None = None
) -> Result:
    events = run(edit, settings, journal)
    for event in events:
        if isinstance(event, Step) and (event.stage, event.done) == (stage, done):
            break
    kept = events.throw(Stopped())
    assert isinstance(kept, Result)
    return kept


def killed_at(edit: Edit, settings: EditSettings, done: int, journal: Journal) -> None:
    events = run(edit, settings, journal)
    for event in events:
        if isinstance(event, Step) and (event.stage, event.done) == ("learn", done):
            break
    events.close()


LONG: dict[str, Any] = {
    "mode": "quick", "steps": 3, "strip": 2, "updates": 7, "step_size": 0.02, "source_count": 5
}  # fmt: skip


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot every three updates, so that runs can be short."""
    monkeypatch.setattr("pipelines.core.journal.EVERY_STEPS", 3)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("mode", "where"),
    [("quick", "on disk"), ("quick", "in memory"), ("reusable", "on disk"), ("paper", "on disk")],
)
def test_a_killed_learning_resumes_to_the_same_bits(
    mode: str, where: str, edit: Edit, tmp_path: Path
) -> None:
    settings = EditSettings(**{**LONG, "mode": mode}, image=uri(speckled((16, 16))))
    if mode == "paper":
        settings = replace(
            settings, backprop_through_chain=True, return_step=41, inversion_iterations=0, source_count=2
        )
    whole = finished(edit, settings)
    journal = Journal(tmp_path / "run" if where == "on disk" else None)
    killed_at(edit, settings, 5, journal)
    assert journal.steps()[0] == 3 and journal.facts(3) == journal.load(3).facts != {}
    if where == "on disk":
        journal = Journal(tmp_path / "run")
    resumed = finished(edit, settings, journal)
    assert pixels(resumed) == pixels(whole)
    assert resumed.pictures[0].facts == whole.pictures[0].facts


def test_stopping_the_learning_keeps_what_there_is(edit: Edit, tmp_path: Path) -> None:
    settings = EditSettings(image=uri(speckled((16, 16))), **LONG)
    journal = Journal(tmp_path / "run")
    kept = stopped_at(edit, settings, "learn", 4, journal)
    assert len(kept.pictures) == 2 and kept.pictures[0].facts["updates"] == 4
    assert journal.steps()[-1] == 4 and isinstance(kept.settings, EditSettings)
    assert edit.direction(kept.settings, journal).facts["updates"] == 4
    assert pixels(kept) == pixels(finished(edit, replace(settings, until=4)))
    assert pixels(finished(edit, settings, journal)) == pixels(finished(edit, settings))


def test_a_stopped_runs_settings_make_its_pictures_again(edit: Edit) -> None:
    kept = stopped_at(edit, EditSettings(image=uri(speckled((16, 16))), **LONG), "learn", 4)
    assert isinstance(kept.settings, EditSettings) and kept.settings.until == 4
    again = finished(edit, EditSettings.from_dict(json.loads(json.dumps(kept.settings.to_dict()))))
    assert pixels(again) == pixels(kept)


def test_stopping_the_drawing_keeps_what_was_learned(edit: Edit, tmp_path: Path) -> None:
    """`Resumable`: Stopped, thrown in at a yield, ends the run with the pictures there are."""
    settings, journal = EditSettings(image=uri(speckled((16, 16))), **QUICK), Journal(tmp_path / "run")
    kept = stopped_at(edit, settings, "draw", 1, journal)
    assert pixels(kept) == pixels(finished(edit, settings))


@pytest.mark.usefixtures("often")
def test_a_glimpse_shows_what_a_snapshot_had_learned(edit: Edit, tmp_path: Path) -> None:
    settings = edit.prepare(EditSettings(image=uri(speckled((30, 20))), **LONG))
    journal, early = Journal(tmp_path / "run"), Journal(tmp_path / "early")
    finished(edit, settings, journal)
    seen = {step: edit.image_at(settings, journal, step) for step in (3, 7)}
    assert seen[3].size == (30, 20) and seen[3].tobytes() != seen[7].tobytes()
    finished(edit, replace(settings, until=3), early)
    learned = edit.direction(settings, early).to_uri()
    sketch = EditSettings(image=settings.image, directions=learned, inversion_iterations=0, steps=3, strip=1)
    assert seen[3].tobytes() == first(finished(edit, sketch)).tobytes()


def test_a_journal_is_one_runs_only(edit: Edit, tmp_path: Path) -> None:
    settings = EditSettings(**QUICK)
    finished(edit, settings, Journal(tmp_path / "run"))
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(edit, replace(settings, seed=1), Journal(tmp_path / "run"))
    other = tiny_edit()
    other.unet.network.conv_in.weight.data += 0.01
    assert other.fingerprint() != edit.fingerprint()
    with pytest.raises(BadInput, match="belongs to another run"):
        finished(other, settings, Journal(tmp_path / "run"))
