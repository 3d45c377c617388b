"""One contract for all pipelines. A new pipeline joins by one line in CASES."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines.core.execute import run
from pipelines.core.pipeline import Pipeline, Result, Step
from pipelines.core.record import read_record, record_of, write_pictures, write_png
from pipelines.core.settings import PROMPT_LIMIT, Settings
from pipelines.errors import BadInput
from pipelines.studio import PIPELINES
from tests.support.fakes import FAKES, FakePipeline
from tests.support.tiny import (
    tiny_diffuse,
    tiny_edit,
    tiny_generate,
    tiny_guide,
    tiny_optimize,
    tiny_pixel_guide,
    tiny_prior_diffuse,
    tiny_prior_edit,
    tiny_refining_generate,
    tiny_semantic_generate,
    tiny_transformer_generate,
)

CASES: dict[str, Callable[[], Pipeline[Any]]] = {
    "fake": FakePipeline,
    "generate": tiny_generate,
    "generate with semantic tokens": tiny_semantic_generate,
    "generate by the second stage": tiny_transformer_generate,
    "optimize": tiny_optimize,
    "guide": tiny_guide,
    "guide by pixels": tiny_pixel_guide,
    "edit": tiny_edit,
    "edit by the prior": tiny_prior_edit,
    "diffuse": tiny_diffuse,
    "diffuse by the prior": tiny_prior_diffuse,
    "generate, refined": tiny_refining_generate,
}
each_pipeline = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())


def steps_and_result(pipeline: Pipeline[Any], settings: Settings) -> tuple[list[Step], Result]:
    *steps, result = run(pipeline, settings)
    assert isinstance(result, Result)
    assert all(isinstance(step, Step) for step in steps)
    return steps, result


class Named:
    """A studio that records can name."""

    pack = "tiny"
    device = "cpu"

    def pipeline(self, name: str) -> Pipeline[Any]:
        raise NotImplementedError

    def models(self, name: str) -> dict[str, dict[str, str]]:
        return {"clip": {"name": "x", "sha256": "ab" * 32}}


def pixels(result: Result) -> list[bytes]:
    return [picture.image.tobytes() for picture in result.pictures]


def test_every_pipeline_is_held_to_the_contract() -> None:
    assert set(PIPELINES) <= set(CASES)


@each_pipeline
def test_steps_count_up_and_end_in_one_result(make: Callable[[], Pipeline[Any]]) -> None:
    pipeline = make()
    steps, result = steps_and_result(pipeline, pipeline.Settings(seed=3))
    assert steps and result.seconds > 0
    for step in steps:
        assert step.stage and 0 <= step.done <= step.total
    for one, following in pairwise(steps):
        if one.stage == following.stage:
            assert one.done <= following.done


@each_pipeline
def test_pictures_come_best_first(make: Callable[[], Pipeline[Any]]) -> None:
    pipeline = make()
    _, result = steps_and_result(pipeline, pipeline.Settings())
    scores = [picture.score for picture in result.pictures if picture.score is not None]
    assert result.pictures and scores == sorted(scores, reverse=True)
    for picture in result.pictures:
        assert picture.image.mode == "RGB"
        json.dumps(picture.facts, allow_nan=False)


@each_pipeline
def test_equal_settings_equal_pictures(make: Callable[[], Pipeline[Any]]) -> None:
    one, other = make(), make()
    first = pixels(steps_and_result(one, one.Settings(seed=5))[1])
    torch.rand(7)  # the global generator must not matter
    assert first == pixels(steps_and_result(other, other.Settings(seed=5))[1])
    assert first == pixels(steps_and_result(one, one.Settings(seed=5))[1])
    assert first != pixels(steps_and_result(one, one.Settings(seed=6))[1])


@each_pipeline
def test_closing_a_run_stops_it_and_leaves_torch_as_it_was(make: Callable[[], Pipeline[Any]]) -> None:
    pipeline = make()
    events = run(pipeline, pipeline.Settings())
    assert torch.is_grad_enabled()
    next(events)
    assert torch.is_grad_enabled()
    events.close()
    assert torch.is_grad_enabled()
    assert list(events) == []


@each_pipeline
def test_previews_can_be_drawn_at_every_step_and_change_nothing(make: Callable[[], Pipeline[Any]]) -> None:
    pipeline, drawn, watched = make(), 0, None
    for event in run(pipeline, pipeline.Settings()):
        if isinstance(event, Step):
            pictures = event.preview()
            assert all(isinstance(picture, Image.Image) for picture in pictures)
            drawn += bool(pictures)
        else:
            watched = event
    assert drawn > 0 and watched is not None
    assert pixels(watched) == pixels(steps_and_result(pipeline, pipeline.Settings())[1])


@each_pipeline
def test_settings_come_back_from_json(make: Callable[[], Pipeline[Any]]) -> None:
    kind = make().Settings
    settings = kind(prompt="  红心\tand a cat ", seed=2**32 - 1)
    assert settings.prompt == "红心 and a cat"
    assert kind.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(BadInput, match="'no_such_setting' is not known"):
        kind.from_dict({"no_such_setting": 1})


@each_pipeline
def test_a_picture_carries_its_record(make: Callable[[], Pipeline[Any]], tmp_path: Path) -> None:
    pipeline = make()
    name = next(name for name, kind in {**PIPELINES, **FAKES}.items() if type(pipeline) is kind)
    _, result = steps_and_result(pipeline, pipeline.Settings(seed=9))
    record = record_of(
        pipeline=name,
        pack="tiny",
        device="cpu",
        models={"clip": {"name": "x", "sha256": "ab" * 32}},
        settings=result.settings,
        picture=result.pictures[0],
        rank=1,
    )
    write_png(tmp_path / "a.png", result.pictures[0].image, record)
    read = read_record(tmp_path / "a.png", {**PIPELINES, **FAKES})
    assert read == record
    again = steps_and_result(pipeline, pipeline.Settings.from_dict(read.settings))[1]
    assert again.pictures[0].image.tobytes() == Image.open(tmp_path / "a.png").tobytes()


@each_pipeline
def test_what_is_out_of_range_is_refused_in_one_sentence(make: Callable[[], Pipeline[Any]]) -> None:
    kind = make().Settings
    for knob in kind.knobs():
        assert knob.help, knob.name
        wrong: list[Any] = [object()] if knob.optional else [object(), None]
        if knob.type in (int, float):
            wrong += [float("nan"), float("inf"), True]
            wrong += [] if knob.kind == "seed" else ["7"]
            wrong += [] if knob.lo is None or knob.kind == "seed" else [knob.type(knob.lo - 1)]
            wrong += [-2] if knob.kind == "seed" else []
            wrong += [] if knob.hi is None else [knob.type(knob.hi + 1)]
        if knob.type is int:
            wrong.append(1.5)
        if knob.choices:
            wrong.append("no such choice")
        for value in wrong:
            with pytest.raises(BadInput) as refused:
                kind(**{knob.name: value})
            assert knob.name in str(refused.value) and "\n" not in str(refused.value)


@each_pipeline
@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "empty"),
        (" \t\n", "empty"),
        ("x" * 10_000, f"the most is {PROMPT_LIMIT:,}"),
        ("red\x00heart", "U\\+0000"),
        ("red\x1b[31m", "U\\+001B"),
        ("half \ud800 a pair", "half of a character"),
    ],
)
def test_bad_prompts_are_refused(make: Callable[[], Pipeline[Any]], prompt: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make().Settings(prompt=prompt)


@each_pipeline
def test_a_sheet_holds_what_its_runs_would_draw_alone(
    make: Callable[[], Pipeline[Any]], tmp_path: Path
) -> None:
    pipeline = make()
    steps, result = steps_and_result(pipeline, pipeline.Settings(x="seed=5,6"))
    sheet, *cells = result.pictures
    assert sheet.facts["sheet"] == {"columns": ["seed 5", "seed 6"], "rows": [""]}
    assert [cell.settings for cell in cells] == [
        pipeline.prepare(pipeline.Settings(seed=seed)) for seed in (5, 6)
    ]
    alone = steps_and_result(pipeline, pipeline.Settings(seed=6))[1].pictures[0]
    assert (cells[1].image.tobytes(), cells[1].seed) == (alone.image.tobytes(), alone.seed)
    width, height = cells[0].image.size
    assert sheet.image.width > 2 * width and sheet.image.height > height
    for before, after in pairwise(steps):
        assert before.stage != after.stage or before.done <= after.done
    name = next(name for name, kind in {**PIPELINES, **FAKES}.items() if type(pipeline) is kind)
    paths = [
        facts["path"]
        for facts, _ in write_pictures(tmp_path, "a", pipeline=name, studio=Named(), result=result)
    ]
    records = [read_record(path, {**PIPELINES, **FAKES}) for path in paths]
    assert [record.settings["x"] for record in records] == ["seed=5,6", "", ""]
    assert [record.settings["seed"] for record in records[1:]] == [5, 6]
