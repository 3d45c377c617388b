"""The benches of many rows and many devices: `batch` beside the bare pipeline, and two lanes beside one."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

from app.batch.engines import Here
from app.batch.results import Results
from app.batch.rows import Row
from app.batch.run import run_batch
from app.batch.tools import Draw, checked
from app.lanes.lane import Lane
from app.lanes.pool import Place, open_lanes
from app.lanes.work import Asked, WholeRun
from pipelines.core.execute import result_of
from pipelines.studio import PIPELINES, Studio


def bench_lanes(device: str = "auto", rounds: int = 4) -> dict[str, Any]:
    """Runs of Generate a second in one processor lane of one thread, and in two at once, by turns in one measurement."""
    asked = Asked("generate", PIPELINES["generate"].Settings(), "tiny", {})
    lanes = open_lanes([Place("cpu", 1)] * 2)
    alone: list[float] = []
    together: list[float] = []
    try:
        _runs(lanes, asked)  # the models are loaded
        for number in range(rounds):
            alone.append(_runs(lanes[:1], asked))
            together.append(_runs(lanes, asked))
            print(f"round {number + 1}: {alone[-1]:.2f} s, {together[-1]:.2f} s", file=sys.stderr)
    finally:
        for lane in lanes:
            lane.close()
    return {
        "one lane of one thread: seconds a run (median)": median(alone),
        "two lanes: seconds of two runs at once (median)": median(together),
        "two lanes are so many times one (median)": median(
            2 * one / two for one, two in zip(alone, together, strict=True)
        ),
        "the best round": max(2 * one / two for one, two in zip(alone, together, strict=True)),
    }


def _runs(lanes: list[Lane], asked: Asked) -> float:
    """Seconds of one run in each lane, all at once."""
    threads = [threading.Thread(target=lane.do, args=(WholeRun(asked),)) for lane in lanes]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def bench_batch(home: Path, device: str = "auto", rows: int = 8) -> dict[str, Any]:
    """What the batch adds to the bare pipeline: the same rows both ways, by turns, in processor time of this process."""
    studio = Studio("tiny", device)
    tool = Draw("generate", {"candidates": 1, "keep": 1, "batch": 1})
    given = [Row(k + 1, {"prompt": "a red heart", "seed": str(k)}) for k in range(rows + 1)]
    tasks, _ = checked(tool, given, home, "tiny")
    pipeline = studio.pipeline("generate")
    results = Results(home, tool, studio)
    bare: list[float] = []
    with closing(run_batch(tasks, Here(studio, tool), results, 1)) as batch:
        next(batch)
        spent: list[float] = []
        for task in tasks:
            begun = time.process_time()
            result_of(pipeline, task.asked)
            bare.append(time.process_time() - begun)
            begun = time.process_time()
            with suppress(StopIteration):
                next(batch)
            spent.append(time.process_time() - begun)
    bare, spent = bare[1:], spent[1:]  # the first warms up
    return {
        "rows": rows,
        "the bare pipeline: processor seconds a row (median)": median(bare),
        "the batch: processor seconds a row (median)": median(spent),
        "the batch takes so much more (median)": median(
            one / other - 1 for one, other in zip(spent, bare, strict=True)
        ),
    }
