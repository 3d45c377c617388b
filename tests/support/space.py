"""A ZeroGPU Space of our own."""

from __future__ import annotations

import contextvars
import html
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from PIL import Image

from app import space
from app.jobs.queue import Job, JobQueue
from app.ui.i18n import both_sentence
from pipelines.core.execute import run
from pipelines.core.pipeline import Result
from pipelines.errors import Message
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
    queue: JobQueue

    def submit(self, name: str, settings: dict[str, Any], token: str | None = "ann's") -> str:
        """As the page does it: inside a visitor's request."""
        context = contextvars.copy_context()
        if token is not None:
            context.run(LocalContext.request.set, gr.Request(headers={"x-ip-token": token}))
        return context.run(self.queue.submit, name, settings, token or "")

    def resume(self, job_id: str, token: str) -> None:
        context = contextvars.copy_context()
        context.run(LocalContext.request.set, gr.Request(headers={"x-ip-token": token}))
        context.run(self.queue.resume, job_id)

    def finished(self, job_id: str) -> Job:
        self.until(lambda: self.queue.job(job_id).is_over)
        return self.queue.job(job_id)

    def until(self, true: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.005)

    @property
    def seconds(self) -> list[float]:
        return [one.seconds for one in self.platform.asked]


def pixels(job: Job) -> list[bytes]:
    return [Image.open(picture["path"]).convert("RGB").tobytes() for picture in job.pictures]


def uncut(name: str, settings: dict[str, Any]) -> list[bytes]:
    """The pictures of the same run without any of this."""
    pipeline = MAKERS[name]()
    *_, result = run(pipeline, pipeline.Settings.from_dict(settings))
    assert isinstance(result, Result)
    return [picture.image.tobytes() for picture in result.pictures]


def chinese(message: Message) -> str:
    return html.unescape(re.findall(r'<span class="zh"[^>]*>(.*?)</span>', both_sentence(message))[0])
