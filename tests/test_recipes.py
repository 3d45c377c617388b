"""The recipes of CONTRIBUTING.md that need no model, tried: a setting, and a tab of its own design.

A model family is added by tests/pipelines/models/test_spec.py, a pipeline by tests/app/ui/tabs/test_plain.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
import pytest

from app.cli.flags import pipeline_parser, settings_values
from app.jobs.queue import JobQueue
from app.library import Library
from app.ui import i18n, page
from app.ui.components import plain_field
from app.ui.context import PageContext
from pipelines.core.pipeline import Pipeline
from pipelines.core.settings import Settings, knob
from pipelines.errors import BadInput
from tests.support.fakes import FakePipeline, FakeSettings
from tests.support.painter import PAINTERS, PainterStudio


@dataclass(frozen=True, kw_only=True)
class SparklingSettings(FakeSettings):
    """One setting more."""

    sparkle: float = knob(0.2, 0, 1, label=("sparkle", "闪光"), help="how much it glitters", help_zh="有多闪")


class Sparkling(FakePipeline):
    """Takes the new settings."""

    Settings: ClassVar[type[Settings]] = SparklingSettings


def test_a_setting_is_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line, the check of its range, the record's form and the page's field follow."""
    kind: type[Pipeline[Any]] = Sparkling
    parser = pipeline_parser("sparkling", kind)
    values = settings_values(kind, parser.parse_args(["a star", "--sparkle", "0.5"]))
    settings = SparklingSettings.from_dict(values)
    assert settings.sparkle == 0.5 and SparklingSettings.from_dict(settings.to_dict()) == settings
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "how much it glitters (0 to 1; default: 0.2)" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(BadInput, match="sparkle 2 is too large; the most is 1"):
        SparklingSettings.from_dict({"sparkle": 2})
    field = plain_field(next(one for one in SparklingSettings.knobs() if one.name == "sparkle"), "sparkling")
    assert 'name="sparkle"' in field and 'max="1"' in field and 'value="0.2"' in field


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    queue = JobQueue(PainterStudio(), tmp_path, PAINTERS)
    yield queue
    queue.close()


def test_a_designed_tab_is_one_file_and_its_strings(
    queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder in TOOLS and its word in the table of strings make a tab."""

    def build(context: PageContext, tab: gr.Tab) -> None:
        context.translate(gr.Button(elem_id="greet"), value="greet")

    monkeypatch.setitem(page.TOOLS, "greeting", build)
    strings = {**i18n.words(), "tab_greeting": ("Greeting", "问候"), "greet": ("Hello", "你好")}
    monkeypatch.setattr(i18n, "words", lambda: strings)
    blocks = page.build(queue.studio, queue, Library(tmp_path), tmp_path)
    made = {block.elem_id: block for block in blocks.blocks.values() if getattr(block, "elem_id", None)}
    assert {"tab-greeting", "greet"} <= made.keys()
    context: PageContext = blocks.atelier  # type: ignore[attr-defined]
    labels = context.relabel("zh")
    assert labels[made["tab-greeting"]]["label"] == "问候" and labels[made["greet"]]["value"] == "你好"
    blocks.close(verbose=False)
