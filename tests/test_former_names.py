"""A setting that was renamed is still found by its former name wherever settings were kept."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli.flags import pipeline_parser, settings_values
from app.jobs.queue import JobQueue
from app.recipe import read_recipe, recipe_of
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Picture
from pipelines.core.record import read_record, record_of, write_png
from pipelines.errors import BadInput
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import PIPELINES
from tests.support.fakes import FAKES, FakeSettings, FakeStudio

FORMER = {"speed": "step_size", "flip_it": "tile", "made_of": "tokens"}


@pytest.fixture(autouse=True)
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if two settings of Optimize and one of a fake pipeline had been renamed."""
    monkeypatch.setattr(OptimizeSettings, "aliases", FORMER)
    monkeypatch.setattr(FakeSettings, "aliases", {"count": "candidates"})


def link(*parts: Any) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.urlsafe_b64encode(packer.compress(json.dumps(parts).encode()) + packer.flush()).decode()


@pytest.mark.parametrize("kind", [one.Settings for one in PIPELINES.values()])
def test_a_former_name_is_no_name_of_today(kind: Any) -> None:
    names = {knob.name for knob in kind.knobs()}
    assert set(kind.aliases.values()) <= names and not names & set(kind.aliases)


def test_plain_values_may_have_former_names() -> None:
    assert OptimizeSettings.from_dict({"speed": 0.3}) == OptimizeSettings(step_size=0.3)
    assert list(OptimizeSettings.current_names({"speed": 1, "seed": 2})) == ["step_size", "seed"]
    for values in ({"speed": 0.3, "step_size": 0.3}, {"step_size": 0.1, "speed": 0.3}):
        with pytest.raises(BadInput, match="setting 'step_size' is given twice, as"):
            OptimizeSettings.from_dict(values)
    assert "speed" not in OptimizeSettings().to_dict()


def test_changes_in_mid_run_may_have_former_names() -> None:
    settings = OptimizeSettings.from_dict({"changes": '{"20": {"speed": 0.3, "colour": 1}}'})
    assert settings.changes == '{"20": {"step_size": 0.3, "colour": 1}}'
    assert settings.timeline()[1] == (20, OptimizeSettings(step_size=0.3, colour=1.0))
    for text in ('{"20":{"step_size":0.3}}', "", "[1]", '{"20": 3}', "{"):
        assert OptimizeSettings.current_names({"changes": text}) == {"changes": text}
    with pytest.raises(BadInput, match="given twice"):
        OptimizeSettings.from_dict({"changes": '{"20": {"speed": 0.3, "step_size": 0.2}}'})


def test_a_record_may_have_former_names(tmp_path: Path) -> None:
    settings = OptimizeSettings(step_size=0.3).changed(20, step_size=0.2).to_dict()
    old = {"speed": settings["step_size"], **settings, "changes": '{"20": {"speed": 0.2}}'}
    del old["step_size"]
    picture = Picture(Image.new("RGB", (8, 8)), 0)
    record = record_of(
        pipeline="optimize", pack="tiny", device="cpu", models={}, settings=OptimizeSettings(), picture=picture, rank=1
    )  # fmt: skip
    record.settings.clear()
    record.settings.update(old)
    write_png(tmp_path / "a.png", picture.image, record)
    assert read_record(tmp_path / "a.png", PIPELINES).settings == settings


def test_a_journal_may_have_former_names(tmp_path: Path) -> None:
    settings = OptimizeSettings(step_size=0.3).changed(20, step_size=0.2)
    old = {**settings.to_dict(), "speed": 0.3, "changes": '{"20": {"speed": 0.2}}'}
    del old["step_size"]
    journal = Journal(tmp_path / "run")
    journal.begin({"settings": old, "models": "m"})
    assert OptimizeSettings.from_dict((journal.identity() or {})["settings"]) == settings
    new = {"settings": settings.to_dict(), "models": "m"}
    journal.begin(new, settings.current_names)
    with pytest.raises(BadInput, match="belongs to another run"):
        journal.begin(new)
    other = {"settings": {**settings.to_dict(), "step_size": 0.4}, "models": "m"}
    with pytest.raises(BadInput, match="belongs to another run"):
        journal.begin(other, settings.current_names)


def test_a_link_may_have_former_names() -> None:
    recipe = read_recipe(link("optimize", {"speed": 0.3}, ["made_of"]).rstrip("="))
    assert recipe.settings == OptimizeSettings(step_size=0.3) and recipe.left_out == ("tokens",)
    assert read_recipe(recipe.text()) == recipe
    assert recipe_of("optimize", {"speed": 0.3}).settings == recipe.settings


def test_a_kept_job_may_have_former_names(tmp_path: Path) -> None:
    def queue() -> JobQueue:
        return JobQueue(FakeStudio(), tmp_path, FAKES)

    first = queue()
    job_id = first.submit("fake", {"count": 4, "prompt": "a star"}, "ann")
    first.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as file:
        (text,) = file.execute("SELECT settings FROM jobs").fetchone()
        settings = json.loads(text)
        assert settings["candidates"] == 4
        old = json.dumps({("count" if name == "candidates" else name): settings[name] for name in settings})
        file.execute("UPDATE jobs SET settings = ?", (old,))
    file.close()
    second = queue()
    assert second.job(job_id).settings == settings and second.jobs("ann")[0].settings == settings
    second.close()


def test_a_flag_may_have_a_former_name(capsys: pytest.CaptureFixture[str]) -> None:
    kind = PIPELINES["optimize"]
    parser = pipeline_parser("optimize", kind)
    given = settings_values(kind, parser.parse_args(["a", "cat", "--speed", "0.3", "--no-flip-it"]))
    assert given == {"prompt": "a cat", "step_size": 0.3, "tile": False}
    with pytest.raises(BadInput, match="given twice"):
        settings_values(kind, parser.parse_args(["a cat", "--speed", "0.3", "--step-size", "0.3"]))
    assert "--speed" not in parser.format_help() and "flip" not in parser.format_help()
