"""Guide on the command line: a notebook's settings file, flags over it, a film of an animation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.flags import pipeline_parser, settings_of_file
from app.cli.run import run_pipeline
from pipelines.errors import BadInput
from pipelines.guide.pipeline import Guide
from tests.pipelines.guide.test_settings import NOTEBOOK
from tests.support import tiny


def test_a_notebooks_file_is_read_and_flags_change_it(tmp_path: Path) -> None:
    path = tmp_path / "settings.txt"
    path.write_text(json.dumps({**NOTEBOOK, "moustache": 1}))
    values, unknown = settings_of_file(Guide, str(path))
    assert values["steps"] == 250 and unknown == ["moustache"]
    assert "--disco FILE" in pipeline_parser("guide", Guide).format_help()
    for content in ("[1]", "{", "x" * 2_000_000):
        path.write_text(content)
        with pytest.raises(BadInput, match="is no settings file"):
            settings_of_file(Guide, str(path))


def test_an_animation_from_a_file_to_a_film(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("pipelines.studio.Studio", tiny.TinyStudio)
    (tmp_path / "settings.txt").write_text(
        json.dumps(
            {"text_prompts": {"0": ["two cats"]}, "width_height": [32, 32], "clip_guidance_scale": 900}
        )
    )
    arguments = [
        "--disco",
        str(tmp_path / "settings.txt"),
        "--steps",
        "4",
        "--max-frames",
        "2",
        "--angle",
        "3",
    ]
    arguments += ["--cut-overview", "1", "--cut-innercut", "1", "--video", str(tmp_path / "film.webp")]
    assert run_pipeline("guide", Guide, [*arguments, "--out", str(tmp_path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["record"]["settings"]["prompt"] == "two cats"
    assert made["record"]["settings"]["rotate"] == "3" and Path(made["video"]).stat().st_size > 0
