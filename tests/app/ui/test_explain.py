"""The panel on how a picture was drawn: what it shows, that it escapes, and the tab's answers around it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from app.ui.html.explain import busy, panel, shown_places
from app.ui.tabs.generate import explaining
from app.ui.tabs.generate.explaining import explained
from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.core.record import record_of, write_png
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.diffuse.walkthrough import Explanation, Moment, WordMap
from pipelines.errors import BadInput
from tests.support.tiny import tiny_prior_diffuse

NASTY = "<img src=x onerror=alert(1)>"


def explanation(count: int = 25, **settings: Any) -> Explanation:
    image = Image.new("RGB", (32, 32), "#2266AA")
    moments = [Moment(k / count, 1 - k / count, image, image) for k in range(count)]
    word_maps = [WordMap(word, torch.rand(4, 4)) for word in ("big", '"><b>', "猫")]
    return Explanation(DiffuseSettings(**settings), image, image, moments, word_maps)


def test_the_panel_shows_words_guesses_and_the_schedule() -> None:
    shown = panel(explanation(prompt="a big cat", guidance=4.0, word_weights="big=1.5"), "2026/x.png")
    assert shown.count('type="range"') == 3 and 'value="1.5" data-weigh="big"' in shown
    assert 'data-act="weigh" data-name="2026/x.png" data-weights="big=1.5"' in shown
    assert shown.count('class="guess-row"') == 2 and "guidance 4" in shown and "没有引导" in shown
    assert shown.count("step 25") == 2 and shown.count("data:image/jpeg;base64,") == 3 + 2 * 10
    lines = re.findall(r'<polyline class="(\w+)" points="([^"]+)"', shown)
    assert [kind for kind, _ in lines] == ["noise", "signal"] and all(
        len(points.split()) == 25 for _, points in lines
    )
    alone = explanation()
    moments = [Moment(one.picture, one.noise, one.guess, None) for one in alone.moments]
    assert (
        panel(Explanation(alone.settings, alone.picture, None, moments, alone.word_maps), "x").count(
            "guess-row"
        )
        == 1
    )


def test_the_panel_escapes_what_others_wrote() -> None:
    shown = panel(explanation(prompt=f"a {NASTY}"), NASTY)
    assert NASTY not in shown and '"><b>' not in shown and "&lt;img src=x" in shown
    assert 'role="status"' in busy()


@pytest.mark.parametrize("count", [1, 9, 10, 11, 25, 200])
def test_the_first_and_the_last_step_are_shown(count: int) -> None:
    places = shown_places(count)
    assert places[0] == 0 and places[-1] == count - 1 and places == sorted(set(places))
    assert len(places) == min(count, 10)


class Studio:
    pack, device = "tiny", "cpu"

    def __init__(self, pipeline: Any):
        self.made = pipeline

    def pipeline(self, name: str) -> Any:
        return self.made


def written(folder: Path, pipeline: str, settings: Any, picture: Any) -> Path:
    path = folder / f"{pipeline}.png"
    record = record_of(
        pipeline=pipeline, pack="tiny", device="cpu", models={}, settings=settings, picture=picture, rank=1
    )
    write_png(path, picture.image, record)
    return path


def test_a_picture_of_diffuse_is_explained_from_its_record(tmp_path: Path) -> None:
    pipeline = tiny_prior_diffuse()
    *_, result = run(pipeline, DiffuseSettings(prompt="two cats", candidates=2, steps=2))
    assert isinstance(result, Result)
    path = written(tmp_path, "diffuse", result.settings, result.pictures[1])
    shown = explained(Studio(pipeline), path, "it.png")
    assert 'data-weigh="cats"' in shown and 'data-name="it.png"' in shown
    with pytest.raises(BadInput, match="cannot be watched"):
        explained(Studio(object()), path, "it.png")
    other = written(tmp_path, "generate", DiffuseSettings(), result.pictures[0])
    with pytest.raises(BadInput):  # its settings are not Generate's
        explained(Studio(pipeline), other, "it.png")
    assert not explaining._watching.locked()
