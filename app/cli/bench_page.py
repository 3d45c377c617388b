"""The bench `page`: how soon the line under the prompt answers, and what a sheet costs beside its runs one by one."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from app.jobs.queue import JobQueue
from app.library import Library
from pipelines.benchmarks.machine import timed
from pipelines.core.execute import result_of
from pipelines.core.settings import Settings
from pipelines.generate.settings import GenerateSettings
from pipelines.studio import Studio

TYPED = (  # as somebody types: beginnings of names, words that nobody knows, several parts, Chinese
    "gri", "a gre", "grene frogg", "automobile", "a castle | fo", "woman with red h", "🐱 and 🍕", "小",
    "a zzyzx qwrk vlmp",
    "(cat:1.2), <lora:x:1>, masterpiece, best quality",
)  # fmt: skip
SHEET = GenerateSettings(candidates=1, keep=1, x="seed=1..4", y="guidance=2,3,4,5")


def bench_page(home: Path, device: str = "auto", rounds: int = 3) -> dict[str, Any]:
    """Milliseconds of an answer, in process and over HTTP, once all is loaded; a sheet of 16 over 16 single runs."""
    from app.ui import page
    from app.ui.offering import advisor_of, offers_for

    studio = Studio("tiny", device)
    pipeline: Any = studio.pipeline("generate")
    advisor = advisor_of(pipeline)
    assert advisor is not None
    advisor.prepare()

    def here(prompt: str) -> None:
        offers_for(pipeline, prompt, pipeline.read_prompt(prompt).unknown)

    figures = _answers("in process", here, rounds)
    with closing(JobQueue(studio, home)) as queue, closing(Library(home)) as library:
        blocks = page.build(studio, queue, library)
        _, url = page.launch(blocks)
        try:
            figures |= _answers("over HTTP", _asking(blocks, url), rounds)
        finally:
            blocks.close(verbose=False)
    return figures | _sheets(pipeline, SHEET, rounds)


def _answers(where: str, ask: Callable[[str], None], rounds: int) -> dict[str, float]:
    for prompt in TYPED:  # the first answers warm up
        ask(prompt)
    times = [1000 * timed(lambda prompt=prompt: ask(prompt)) for _ in range(rounds) for prompt in TYPED]
    print(f"answers {where}: {median(times):.1f} ms", file=sys.stderr)
    return {
        f"an answer to a prompt {where}: ms (median)": median(times),
        f"an answer to a prompt {where}: ms (longest)": max(times),
    }


def _asking(blocks: Any, url: str) -> Callable[[str], None]:
    """What asks the page's own address as its script does."""
    (reading,) = (key for key, block in blocks.blocks.items() if block.elem_id == "reading")
    (asked,) = (each["id"] for each in blocks.config["dependencies"] if each["outputs"] == [reading])

    def ask(prompt: str) -> None:
        body = {"data": [prompt, "generate"], "fn_index": asked, "session_hash": "bench"}
        request = urllib.request.Request(
            f"{url}gradio_api/run/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            if "reading" not in json.load(answer)["data"][0]:
                raise RuntimeError("the page gave another answer")

    return ask


def _sheets(pipeline: Any, sheet: Settings, rounds: int) -> dict[str, Any]:
    """A sheet and its cells' runs one after another, by turns in one measurement."""
    cells = [cell.settings for cell in sheet.cells()]
    whole, single = list[float](), list[float]()
    _runs(pipeline, cells[:1])  # warms up
    for number in range(rounds):
        single.append(_runs(pipeline, cells))
        whole.append(_runs(pipeline, [sheet]))
        print(f"round {number + 1}: {whole[-1]:.2f} s, {single[-1]:.2f} s", file=sys.stderr)
    return {
        f"a sheet of {len(cells)}: seconds (median)": median(whole),
        "its runs one by one: seconds (median)": median(single),
        "the sheet over its runs (median)": median(a / b for a, b in zip(whole, single, strict=True)),
    }


def _runs(pipeline: Any, runs: Sequence[Settings]) -> float:
    return timed(lambda: [result_of(pipeline, settings) for settings in runs])
