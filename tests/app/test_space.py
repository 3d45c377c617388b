"""On a Space: which kind it is, and on ZeroGPU what is asked for, who pays, and that runs come out the same."""

from __future__ import annotations

import contextvars
import html
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from gradio.context import LocalContext
from PIL import Image

from app import space
from app.cli.models import free_memory
from app.jobs.queue import Job, Lane
from app.ui.i18n import both_sentence
from pipelines.core.pipeline import BadInput, Result, Step, run
from pipelines.core.record import read_record
from pipelines.studio import Studio
from tests.support.tiny import tiny_edit, tiny_generate, tiny_optimize
from tests.support.zero_gpu import ZeroGpuPlatform

MAKERS: dict[str, Callable[[], Any]] = {
    "generate": tiny_generate,
    "optimize": tiny_optimize,
    "edit": tiny_edit,
}


class LargeStudio:
    """Stands where Studio stands: the tiny test networks under the name of a pack that needs the GPU."""

    def __init__(self, pack: str = "full", device: str = "cpu") -> None:
        self.pack, self.device, self.use = pack, device, {}
        self.step: Callable[[], object] = lambda: None  # called when the pipeline is asked for on the GPU

    def on(self, device: str) -> LargeStudio:
        there = LargeStudio(self.pack, f"{device} there")
        there.step = self.step
        return there

    def switch(self, pack: str) -> None:
        self.pack = pack

    def pipeline(self, name: str) -> Any:
        if self.device.endswith("there"):
            self.step()
        return MAKERS[name]()

    def models(self, name: str) -> dict[str, dict[str, str]]:
        return {"clip": {"name": "a-large-clip", "sha256": "ab" * 32}}


@dataclass
class Place:
    """A ZeroGPU Space: its platform, studio and lane."""

    platform: ZeroGpuPlatform
    studio: LargeStudio
    zero: space.ZeroGpu
    lane: Lane

    def submit(self, name: str, settings: dict[str, Any], token: str | None = "ann's") -> str:
        """As the page does it: inside a visitor's request."""
        context = contextvars.copy_context()
        if token is not None:
            context.run(LocalContext.request.set, gr.Request(headers={"x-ip-token": token}))
        return context.run(self.lane.submit, name, settings, token or "")

    def resume(self, job_id: str, token: str) -> None:
        context = contextvars.copy_context()
        context.run(LocalContext.request.set, gr.Request(headers={"x-ip-token": token}))
        context.run(self.lane.resume, job_id)

    def finished(self, job_id: str) -> Job:
        self.until(lambda: self.lane.job(job_id).is_over)
        return self.lane.job(job_id)

    def until(self, true: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.005)

    @property
    def seconds(self) -> list[float]:
        return [one.seconds for one in self.platform.asked]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    platform, studio = ZeroGpuPlatform(), LargeStudio()
    zero = space.ZeroGpu(studio, platform, tmp_path, device="cpu")
    lane = Lane(studio, tmp_path, run=zero.run)
    yield Place(platform, studio, zero, lane)
    lane.close()
    platform.close()


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of Optimize is a slice of its own."""
    monkeypatch.setattr(space, "START", 5.0)
    monkeypatch.setattr(space, "SLICE", 4.0)


def pixels(job: Job) -> list[bytes]:
    return [Image.open(one["path"]).convert("RGB").tobytes() for one in job.pictures]


def uncut(name: str, settings: dict[str, Any]) -> list[bytes]:
    """The pictures of the same run without any of this."""
    pipeline = MAKERS[name]()
    *_, result = run(pipeline, pipeline.Settings.from_dict(settings))
    assert isinstance(result, Result)
    return [one.image.tobytes() for one in result.pictures]


def chinese(sentence: str) -> str:
    return html.unescape(re.findall(r'<span class="zh"[^>]*>(.*?)</span>', both_sentence(sentence))[0])


# ------------------------------------------------------------------------------------------------------- which kind


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, ""),
        ({"SPACES_ZERO_GPU": "true", "ACCELERATOR": "a10g"}, ""),
        ({"SPACE_ID": "ann/atelier"}, "cpu"),
        ({"SPACE_ID": "ann/atelier", "ACCELERATOR": "none"}, "cpu"),
        ({"SPACE_ID": "ann/atelier", "ACCELERATOR": "t4", "SPACES_ZERO_GPU": "false"}, "gpu"),
        ({"SPACE_ID": "ann/atelier", "ACCELERATOR": "a10g", "SPACES_ZERO_GPU": "true"}, "zero"),
        ({"SPACE_ID": "ann/atelier", "SPACES_ZERO_GPU": "1"}, "zero"),
    ],
)
def test_kinds_of_places(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], kind: space.Kind
) -> None:
    for name in ("SPACE_ID", "SPACES_ZERO_GPU", "ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert space.kind() == kind


@pytest.fixture
def on_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "ann/atelier")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as the platform pretends


@pytest.mark.usefixtures("on_zero")
def test_zero_gpu_begins_with_a_decorated_function_and_a_studio_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    platform = ZeroGpuPlatform()
    monkeypatch.setitem(sys.modules, "spaces", platform)  # type: ignore[arg-type]
    studio, events = space.open_studio("tiny", "auto", tmp_path, None)
    assert (studio.device, len(platform.decorated)) == ("cpu", 1)
    assert isinstance(events.__self__, space.ZeroGpu)  # type: ignore[attr-defined]
    assert set(free_memory()) == {"RAM"}  # asking the platform's torch for more would end in an error


@pytest.mark.usefixtures("on_zero")
def test_what_zero_gpu_lacks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="without the package spaces"):
        space.open_studio("tiny", "auto", tmp_path, None)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BadInput, match="a build without CUDA; deploy it again with --hardware zero-a10g"):
        space.open_studio("tiny", "auto", tmp_path, None)


def test_a_gpu_space_with_torch_for_processors_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SPACE_ID", "ann/atelier")
    monkeypatch.setenv("ACCELERATOR", "t4")
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    studio, events = space.open_studio("tiny", "auto", tmp_path, None)
    assert (studio.device, events) == ("cpu", run)
    assert "has the GPU t4" in caplog.text


# -------------------------------------------------------------------------------------------------- runs on the GPU


def test_the_tiny_pack_takes_no_quota_and_needs_no_visitor(place: Place) -> None:
    place.studio.pack = "tiny"
    settings = {"prompt": "a red heart", "seed": 3}
    job = place.finished(place.submit("generate", settings, token=None))
    assert (job.state, place.platform.asked) == ("done", [])
    assert pixels(job) == uncut("generate", settings)


def test_another_part_than_the_tiny_packs_needs_the_gpu(place: Place) -> None:
    place.studio.pack, place.studio.use = "tiny", {"clip": "clip-vit-b-32"}
    job = place.finished(place.submit("generate", {"prompt": "a red heart", "candidates": 2}))
    assert (job.state, len(place.platform.asked)) == ("done", 1)


@pytest.mark.parametrize("name", ["generate", "edit"])
def test_one_call_paid_by_the_visitor_gives_the_same_pictures(place: Place, name: str) -> None:
    settings = {"generate": {"prompt": "a red heart", "candidates": 4}, "edit": {"steps": 4, "updates": 2}}[
        name
    ] | {"seed": 3}
    job = place.finished(place.submit(name, settings))
    assert job.state == "done", job.error
    assert [(one.token, one.granted) for one in place.platform.asked] == [("ann's", True)]
    checked = MAKERS[name]().Settings.from_dict(settings)
    assert place.seconds == [int(space.START + space.FIRST_ESTIMATES[name](checked) + 0.999)]
    assert pixels(job) == uncut(name, settings)
    assert job.seconds["run"] > 0 and job.metrics is not None
    record = read_record(job.pictures[0]["path"])
    assert (record.device, record.pack) == ("cpu", "full")


def test_each_visitor_pays_for_himself(place: Place) -> None:
    place.platform.left["bob's"] = 10
    job = place.finished(place.submit("generate", {"candidates": 2}, "bob's"))
    assert job.state == "failed"
    assert job.error.startswith(
        "this needs 36 s of GPU time and 10 s of your daily quota are left; try again"
    )
    assert "3:12:00" in job.error and {"36", "10"} <= set(re.findall(r"\d+", chinese(job.error)))
    assert place.finished(place.submit("generate", {"candidates": 2}, "ann's")).state == "done"
    assert place.platform.left["bob's"] == 10 and place.platform.left["ann's"] < 120
    assert [(one.token, one.granted) for one in place.platform.asked] == [("bob's", False), ("ann's", True)]


def test_a_job_of_nobody_is_refused_before_anything_is_asked_for(place: Place) -> None:
    job = place.finished(place.submit("generate", {}, token=None))
    assert job.state == "failed" and "belongs to the visitor who asks" in job.error
    assert place.platform.asked == []


def test_measured_runs_correct_what_is_asked_for(place: Place, tmp_path: Path) -> None:
    settings = {"prompt": "a red heart", "candidates": 4}
    for seed in range(2):
        assert place.finished(place.submit("generate", settings | {"seed": seed})).state == "done"
    first, second = place.seconds
    assert first == 25 and space.START <= second < first
    kept = space.Paces(tmp_path / "gpu-paces.json")
    assert kept.factor("generate", "full") == place.zero.paces.factor("generate", "full") < 1
    assert kept.factor("generate", "mini") == 1


def test_a_process_that_serves_again_follows_a_change_of_pack(place: Place) -> None:
    assert place.finished(place.submit("generate", {"candidates": 2})).state == "done"
    place.studio.pack = "mini"
    job = place.finished(place.submit("generate", {"candidates": 2}))
    assert job.state == "done", job.error
    assert len(place.platform.processes) == 1
    assert set(json.loads(place.zero.paces.path.read_text())) == {"generate full", "generate mini"}


def test_previews_cross_as_pictures_of_the_processor(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "PREVIEW_SECONDS", 0.0)
    job_id = place.submit("optimize", {"steps": 400, "cutouts": 4})
    place.until(lambda: place.lane.preview(job_id))
    place.lane.stop(job_id)
    assert place.finished(job_id).state == "stopped"
    step = space.carried(Step("draw", 1, 2, {"a": 1.5}, lambda: torch.zeros(1, 3, 4, 4)), with_picture=True)
    assert step.draw is not None and step.preview()[0].size == (4, 4)
    assert space.carried(step, with_picture=False).draw is None


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (BadInput("the moon is not available; try a star"), "the moon is not available; try a star"),
        (ZeroDivisionError("secret detail"), "the run failed inside (ZeroDivisionError)"),
    ],
)
def test_what_goes_wrong_there_is_told_here(place: Place, problem: Exception, words: str) -> None:
    def fail() -> None:
        raise problem

    place.studio.step = fail
    job = place.finished(place.submit("generate", {"candidates": 2}))
    assert job.state == "failed" and words in job.error and "secret" not in job.error


def test_a_call_that_outlasts_its_time_is_taken_away_and_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "START", 0.0)
    monkeypatch.setitem(space.FIRST_ESTIMATES, "generate", lambda _: 0.5)
    place.studio.step = lambda: time.sleep(60)
    job = place.finished(place.submit("generate", {"candidates": 2}))
    assert (job.state, place.platform.killed) == ("failed", 1)
    assert job.error.startswith("this needs 1 s of GPU time, and it was taken away before the end")
    place.studio.step = lambda: None
    monkeypatch.setitem(space.FIRST_ESTIMATES, "generate", lambda _: 30.0)
    assert place.finished(place.submit("generate", {"candidates": 2})).state == "done"


# ------------------------------------------------------------------------------------------------------- in slices

GROWING = {"prompt": "a red heart", "steps": 12, "cutouts": 4, "seed": 5}


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("reuse", [True, False])
def test_optimize_in_slices_is_the_same_run(place: Place, reuse: bool) -> None:
    place.platform.reuse = reuse
    job = place.finished(place.submit("optimize", GROWING))
    assert job.state == "done", job.error
    assert len(place.seconds) == 12 and max(place.seconds) <= 4
    assert {one.token for one in place.platform.asked} == {"ann's"}
    assert len(place.platform.processes) == (1 if reuse else 12)
    assert pixels(job) == uncut("optimize", GROWING)
    assert read_record(job.pictures[0]["path"]).settings["until"] == 0


def test_a_short_run_asks_for_no_more_than_it_needs(place: Place) -> None:
    assert place.finished(place.submit("optimize", GROWING | {"steps": 6})).state == "done"
    assert place.seconds == [5]  # 3 s to begin and 6 steps of 0.2 s
    assert place.finished(place.submit("optimize", GROWING | {"steps": 20_000, "until": 1})).state == "done"
    assert place.seconds[1] <= space.SLICE


@pytest.mark.usefixtures("short_slices")
def test_stop_keeps_the_pictures_and_resume_goes_on(place: Place, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def hold() -> None:
        while len(list(tmp_path.glob("runs/*/step-*"))) >= 3 and not go.exists():
            time.sleep(0.005)

    place.studio.step = hold
    job_id = place.submit("optimize", GROWING)
    place.until(lambda: place.lane.job(job_id).done == 3)
    place.lane.stop(job_id)
    go.touch()
    job = place.finished(job_id)
    assert job.state == "stopped" and job.pictures
    kept = max(place.lane.journal(job_id).steps())
    assert 3 <= kept <= 5
    assert read_record(job.pictures[0]["path"]).settings["until"] == kept
    before = len(place.seconds)
    place.resume(job_id, "bob's")
    job = place.finished(job_id)
    assert job.state == "done", job.error
    assert pixels(job) == uncut("optimize", GROWING)
    assert {one.token for one in place.platform.asked[before:]} == {"bob's"}


@pytest.mark.usefixtures("short_slices")
def test_a_refusal_in_mid_run_keeps_what_there_is(place: Place) -> None:
    place.platform.refusals[3] = "Expired ZeroGPU proxy token"
    job_id = place.submit("optimize", GROWING)
    job = place.finished(job_id)
    assert job.state == "failed"
    assert job.error == (
        "this needs 4 s of GPU time, and your pass to it ran out while this waited; reload the page and go on"
    )
    assert place.lane.journal(job_id).steps()[-1] == 3
    place.resume(job_id, "ann's new one")
    assert pixels(place.finished(job_id)) == uncut("optimize", GROWING)


def test_stop_ends_edits_learning_and_keeps_what_it_learned(place: Place) -> None:
    place.platform.left["ann's"] = 1000
    job_id = place.submit("edit", {"steps": 4, "updates": 200, "mode": "quick"})
    place.until(lambda: place.lane.job(job_id).stage == "learn")
    place.lane.stop(job_id)
    job = place.finished(job_id)
    assert job.state == "stopped" and job.pictures
    assert not place.zero.paces.path.exists()  # half a run tells nothing


def test_stopping_generate_ends_the_call_and_the_next_one_works(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(space.FIRST_ESTIMATES, "generate", lambda _: 50.0)
    job_id = place.submit("generate", {"candidates": 512})
    place.until(lambda: place.lane.job(job_id).done > 0)
    place.lane.stop(job_id)
    assert place.finished(job_id).state == "stopped"
    assert place.finished(place.submit("generate", {"candidates": 2})).state == "done"


# ------------------------------------------------------------------------------------------------------ its words


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "You have exceeded your free ZeroGPU quota (38s requested vs. 12s left). Try again in 3:12:00. ",
            "this needs 38 s of GPU time and 12 s of your daily quota are left; try again in 3:12:00, or ask for less",
        ),
        (
            "You have exceeded your Pro ZeroGPU quota (90s requested vs. -3s left). Try again in 1 day, 0:10:00. Add",
            "this needs 90 s of GPU time and 0 s of your daily quota are left; try again in 1 day, 0:10:00, or ask "
            "for less",
        ),
        ("The requested GPU duration (90s) is larger than the maximum allowed", "more than is given at once"),
        (
            "Space app has reached its GPU limit. Try re-running outside of examples",
            "0 s are left for visitors",
        ),
        ("You have exceeded your ZeroGPU runs limit. ", "your daily number of GPU tasks is used up"),
        ("You have too many ZeroGPU credits allocated to running tasks. Try", "set aside for tasks"),
        ("Expired ZeroGPU proxy token", "your pass to it ran out"),
        ("No GPU was available after 60s. Retry later", "no GPU is free"),
        ("GPU task aborted", "taken away before the end"),
        ("something\nnew", "and it was refused (something new)"),
    ],
)
def test_refusals_are_one_sentence_in_both_languages(said: str, sentence: str) -> None:
    told = space.refusal(gr.Error(said, title="ZeroGPU quota exceeded"), 60)
    assert sentence in told and "\n" not in told
    needed = re.findall(r"needs (\d+) s", told)[0]
    assert chinese(told) != told and needed in chinese(told)
    assert re.search("[一-鿿]", chinese(told))
    assert space.refusal(ValueError(said), 60) == ""


# ---------------------------------------------------------------------------------------------------- moved models


def test_a_studio_on_another_device_takes_the_models_over() -> None:
    home = Studio("tiny", "cpu")
    clip = home.clip()
    with home._lock:  # as when another thread was loading while this process was forked
        there: list[Any] = []
        thread = threading.Thread(target=lambda: there.append(home.on("cpu").clip()))
        thread.start()
        thread.join(30)
        assert there == [clip]


def test_the_precision_is_that_of_the_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import studio as studios

    home = Studio("tiny", "cpu")
    assert {one.dtype for one in home.clip().parameters()} == {torch.float32}
    monkeypatch.setattr(studios, "dtype_of", lambda kind, device: torch.bfloat16)
    moved = home.on("cpu").clip()
    assert {one.dtype for one in moved.parameters()} == {torch.bfloat16}


def test_the_jobs_context_is_that_of_who_asked(tmp_path: Path) -> None:
    seen: list[str] = []
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    def noting(pipeline: Any, settings: Any, journal: Any) -> Any:
        seen.append(name.get())
        return run(pipeline, settings, journal)

    lane = Lane(LargeStudio(), tmp_path, run=noting)
    try:
        for visitor in ("ann", "bob"):
            context = contextvars.copy_context()
            context.run(name.set, visitor)
            job_id = context.run(lane.submit, "generate", {"candidates": 2, "keep": 1}, visitor)
            end = time.monotonic() + 60
            while not lane.job(job_id).is_over:
                assert time.monotonic() < end
                time.sleep(0.005)
    finally:
        lane.close()
    assert seen == ["ann", "bob"]
