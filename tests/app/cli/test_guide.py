"""Guide on the command line: a notebook's settings file, flags over it, a film of an animation."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.cli.flags import pipeline_parser, settings_of_file
from app.cli.run import run_pipeline
from pipelines.errors import BadInput
from pipelines.guide.pipeline import Guide
from tests.support import tiny
from tests.support.notebooks import STILL


def test_a_notebooks_file_is_read_and_flags_change_it(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "settings.txt"
    path.write_text("\ufeff" + STILL, "utf-8")
    values, notes = settings_of_file(Guide, str(path), {"steps": 100})
    assert values["steps"] == 250 and values["skip_steps"] == 4  # as large a part of 100
    assert any("diffusion_steps" in str(note) for note in notes)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=BytesIO(STILL.encode())))
    assert settings_of_file(Guide, "-", {})[0]["skip_steps"] == 10
    assert "--disco FILE" in pipeline_parser("guide", Guide).format_help()
    for content in (b"[1]", b"{", b"x" * 2_000_000):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="holds no settings of a notebook"):
            settings_of_file(Guide, str(path), {})
    path.write_bytes(b"\xff\xfe\x00\xd8")
    for file in (str(path), str(tmp_path), str(tmp_path / "none"), "a\0b"):
        with pytest.raises(BadInput, match="cannot be read as text"):
            settings_of_file(Guide, file, {})


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
