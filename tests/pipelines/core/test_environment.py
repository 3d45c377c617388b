"""What decides pixels besides settings and models: it is recorded, asked for again, and named when it differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from pipelines.core.comparison import compare
from pipelines.core.environment import SWITCHES, as_recorded, environment_of, followed_by
from pipelines.core.execute import follow, result_of, run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result
from pipelines.core.record import Record, read_record, record_from_json, write_pictures
from pipelines.core.replay import replay
from pipelines.edit.settings import EditSettings
from pipelines.errors import BadInput
from pipelines.generate.settings import GenerateSettings
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import PIPELINES
from tests.support.edit import QUICK, finished, smooth, uri
from tests.support.tiny import TinyStudio, tiny_edit, tiny_generate, tiny_optimize


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def made(folder: Path) -> tuple[Path, Record]:
    result = result_of(tiny_generate(), GenerateSettings(candidates=2, keep=1))
    list(write_pictures(folder, "a", pipeline="generate", studio=TinyStudio(), result=result))
    return folder / "a-1.png", read_record(folder / "a-1.png", PIPELINES)


def test_the_environment_names_threads_kernels_and_the_precision_of_each_network() -> None:
    pipeline = tiny_generate()
    torch.set_num_threads(1)
    one = environment_of(pipeline)
    torch.set_num_threads(2)
    two = environment_of(pipeline)
    assert (one["threads"], two["threads"], one["precision"]) == ("1", "2", "float32")
    assert torch.__version__ in one["kernels"] and set(SWITCHES) < set(one)
    assert all(one.values()) and all(len(text) < 1000 for text in one.values())
    cast(Any, pipeline.dalle).double()
    assert "dalle float64" in environment_of(pipeline)["precision"]


def test_a_replay_asks_for_the_recorded_threads_and_kernels_and_puts_them_back(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path, record = made(tmp_path)
    with as_recorded({"threads": "2"}):
        two = environment_of(tiny_generate())
    assert two["threads"] == "2"
    asked = {**two, "flash attention": "off", "float32 products": "high"}
    del asked["rounding"]  # which is another without flash attention
    again = replay(Image.open(path), replace(record, environment=asked), TinyStudio())
    assert {name: again.record.environment[name] for name in ("threads", "flash attention")} == {
        "threads": "2",
        "flash attention": "off",
    }
    assert again.comparison.environment == []
    now = environment_of(tiny_generate())
    assert now == record.environment


@pytest.mark.parametrize("mode", ["instant", "quick"])
def test_an_edit_is_replayed_with_the_threads_that_it_was_made_with(mode: str, tmp_path: Path) -> None:
    settings = EditSettings(
        **{**QUICK, "mode": mode}, image=uri(smooth((24, 20))), source="a cat", prompt="two cats"
    )
    torch.set_num_threads(2)
    result = finished(tiny_edit(), settings)
    list(write_pictures(tmp_path, "a", pipeline="edit", studio=TinyStudio(), result=result))
    record = read_record(tmp_path / "a-1.png", PIPELINES)
    torch.set_num_threads(1)
    again = replay(Image.open(tmp_path / "a-1.png"), record, TinyStudio())
    assert again.record.environment == record.environment and record.environment["threads"] == "2"
    assert again.comparison.environment == [] and again.comparison.identical
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("threads", ["0", "9999", "-1", "²", "2, then 1", ""])
def test_threads_that_cannot_be_are_passed_over(threads: str) -> None:
    torch.set_num_threads(1)
    with as_recorded({"threads": threads, "float32 products": "on", "flash attention": "highest", "x": "on"}):
        assert torch.get_num_threads() == 1
        assert {name: get() for name, (get, _) in SWITCHES.items()}["flash attention"] == "on"


def test_the_verdict_names_what_differs_and_what_is_not_told(tmp_path: Path) -> None:
    path, record = made(tmp_path)
    image, other = Image.open(path).convert("RGB"), Image.new("RGB", (32, 32))
    then = replace(record, environment={**record.environment, "threads": "7", "rounding": "0" * 12})
    said = compare(image, other, then, record)
    assert said.environment == [f"threads was 7, is {record.environment['threads']}"]
    rounded = replace(record, environment={**record.environment, "rounding": "0" * 12})
    assert "rounds in another way" in compare(image, other, rounded, record).sentence()
    before = replace(record, environment={}, versions={"atelier": record.versions["atelier"]})
    told = compare(image, other, before, record)
    assert {"threads", "processor", "instructions", "torch"} < set(told.unknown) and not told.environment
    assert "does not tell" in told.sentence() and "the same" not in told.sentence()
    read = {**record.models, "reader:tiny-tokenizer": {"name": "tiny-tokenizer", "sha256": "ab" * 32}}
    assert compare(image, other, record, replace(record, models=read)).unknown == ["reader:tiny-tokenizer"]
    assert "is the same in all that the record tells" in compare(image, other, record, record).sentence()


def test_a_run_that_went_on_elsewhere_says_so(tmp_path: Path) -> None:
    pipeline, settings = tiny_optimize(), OptimizeSettings(steps=4)
    torch.set_num_threads(1)
    follow(run(pipeline, settings, Journal(tmp_path)), lambda step: step.done == 2, resumable=True)
    torch.set_num_threads(2)
    *_, result = run(pipeline, settings, Journal(tmp_path))
    assert isinstance(result, Result) and result.environment["threads"] == "1, then 2"
    assert result.environment["kernels"] == environment_of(pipeline)["kernels"]
    assert followed_by({"a": "1, then 2"}, {"a": "2", "b": "3"}) == {"a": "1, then 2", "b": "unknown, then 3"}


def test_forged_environments_are_refused(tmp_path: Path) -> None:
    record = made(tmp_path)[1]
    for wrong in ({"threads": 2}, {"a": "x" * 1001}, ["threads"], {str(k): "" for k in range(51)}):
        with pytest.raises(BadInput, match="environment"):
            record_from_json(replace(record, environment=wrong).to_json())  # type: ignore[arg-type]
