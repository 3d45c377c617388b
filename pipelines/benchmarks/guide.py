"""Guide's speed, beside Optimize's in the same run."""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

from pipelines.core.execute import run
from pipelines.core.pipeline import Pipeline, Step
from pipelines.core.settings import Settings
from pipelines.guide.settings import GuideSettings
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import Studio

STEPS = 24


def bench_guide(device: str = "auto", rounds: int = 3) -> dict[str, Any]:
    """Steps a second with the text model guided, with the model under no text, without CLIP, and times Optimize's step."""
    studio = Studio("tiny", device)
    guide, optimize = studio.pipeline("guide"), studio.pipeline("optimize")
    cases: dict[str, tuple[Pipeline[Any], Settings]] = {
        "text and CLIP": (guide, GuideSettings(steps=STEPS)),
        "CLIP alone": (guide, GuideSettings(steps=STEPS, guidance=0.0)),
        "text alone": (guide, GuideSettings(steps=STEPS, clip_guidance_scale="0")),
        "Optimize": (optimize, OptimizeSettings(steps=STEPS, start="white", coarse=0, diffusion_weight=0)),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):  # by turns, so that all see the same machine; the first round warms up
        for name, (pipeline, settings) in cases.items():
            seconds = _seconds(pipeline, settings)
            print(f"{name} {seconds:.2f} s", file=sys.stderr)
            if number:
                times[name].append(seconds)
    each = {name: median(seconds) / STEPS for name, seconds in times.items()}
    figures: dict[str, Any] = {"device": studio.device}
    for name, seconds in each.items():
        figures[f"{name}: steps a second"] = 1 / seconds
    for name in list(each)[:-1]:
        figures[f"{name}: times Optimize's step"] = each[name] / each["Optimize"]
    return figures


def _seconds(pipeline: Pipeline[Any], settings: Settings) -> float:
    """The seconds from the end of preparation to the last step."""
    settings = pipeline.prepare(settings)
    begun = time.perf_counter()
    for event in run(pipeline, settings):
        if not isinstance(event, Step):
            break
    return time.perf_counter() - begun
