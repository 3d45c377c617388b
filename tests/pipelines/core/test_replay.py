"""A record run again from Python, and a run that is followed to its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipelines.core.execute import follow, result_of, run
from pipelines.core.record import read_record, write_pictures
from pipelines.core.replay import replay
from pipelines.errors import Stopped
from pipelines.generate.settings import GenerateSettings
from pipelines.studio import PIPELINES
from tests.support.tiny import TinyStudio, tiny_generate, tiny_optimize


def test_a_picture_is_made_again_from_its_record(tmp_path: Path) -> None:
    studio = TinyStudio()
    result = result_of(tiny_generate(), GenerateSettings(candidates=3, keep=2))
    list(write_pictures(tmp_path, "a", pipeline="generate", studio=studio, result=result))
    for rank in (1, 2):
        path = tmp_path / f"a-{rank}.png"
        again = replay(Image.open(path), read_record(path, PIPELINES), studio)
        assert again.comparison.identical and again.record.picture["rank"] == rank
    with Image.open(tmp_path / "a-1.png") as other:
        assert not replay(other, read_record(tmp_path / "a-2.png", PIPELINES), studio).comparison.identical


def test_a_stopped_run_gives_the_pictures_it_has_if_it_keeps_any() -> None:
    pipeline = tiny_optimize()
    result, stopped = follow(
        run(pipeline, pipeline.Settings(steps=9)), lambda step: step.done == 3, resumable=True
    )
    assert stopped and result.pictures
    generate = tiny_generate()
    events = run(generate, GenerateSettings(candidates=2))
    with pytest.raises(Stopped):
        follow(events, lambda step: True, resumable=False)
    assert list(events) == []
