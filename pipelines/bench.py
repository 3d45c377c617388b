"""`python launch.py bench NAME`: speed, as ratios to what this very machine can do, measured in the same run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from pipelines.arguments import Parser
from pipelines.base import Result, Step, run
from pipelines.dalle import Generate, GenerateSettings
from pipelines.studio import Studio


def main(argv: list[str]) -> int:
    """Print a table, or with --json one object; returns the exit code."""
    parser = Parser(prog="launch.py bench", description="Measure speed.")
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(argv)
    figures = BENCHES[options.name](options.device)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:44} {value:,.4g}" if isinstance(value, float) else f"{name:44} {value}")
    return 0


def bench_generate(device: str = "auto", candidates: int = 16, rounds: int = 3) -> dict[str, Any]:
    """Tokens a second, the share of each stage, and the distance to the machine's limit for the same work."""
    studio = Studio("tiny", device)
    pipeline = studio.pipeline("generate")
    assert isinstance(pipeline, Generate)
    wait = torch.cuda.synchronize if studio.torch_device.type == "cuda" else (lambda: None)
    settings = GenerateSettings(candidates=candidates)
    times = []
    for round_number in range(rounds + 1):
        stages = {"draw": 0.0, "decode, judge": 0.0, "rank, finish": 0.0}
        last = time.perf_counter()
        for event in run(pipeline, settings):
            wait()
            now = time.perf_counter()
            draws = isinstance(event, Step) and event.stage == "draw"
            stage = "draw" if draws else "decode, judge" if isinstance(event, Step) else "rank, finish"
            stages[stage] += now - last
            last = now
            if isinstance(event, Result) and round_number > 0:  # the first round warms up
                times.append((event.seconds, stages))
                print(f"round {round_number}: {event.seconds:.2f} s", file=sys.stderr)
    seconds = median(total for total, _ in times)
    drawing = median(stages["draw"] for _, stages in times)
    tokens = candidates * pipeline.dalle.config.image_length
    flops, traffic = drawing_cost(pipeline, candidates)
    rate, bandwidth = matmul_rate(studio.torch_device), memory_bandwidth(studio.torch_device)
    limit = max(flops / rate, traffic / bandwidth)
    figures: dict[str, Any] = {
        "device": studio.device,
        "candidates": candidates,
        "seconds in all (median)": seconds,
        "image tokens a second": tokens / drawing,
    }
    for stage in times[0][1]:
        figures[f"share of {stage}"] = median(stages[stage] / total for total, stages in times)
    return {
        **figures,
        "drawing: GFLOP": flops / 1e9,
        "drawing: GB of weights and keys read": traffic / 1e9,
        "machine: GFLOP/s (float32 matmul)": rate / 1e9,
        "machine: GB/s (copy, read and write)": bandwidth / 1e9,
        "drawing: seconds at the machine's limit": limit,
        "drawing: times the limit": drawing / limit,
    }


def drawing_cost(pipeline: Generate, candidates: int) -> tuple[float, float]:
    """FLOPs, and bytes read, of drawing with guidance: weights once a step, allowed keys and values once a row."""
    config = pipeline.dalle.config
    batches = -(-candidates // pipeline.batch_size)
    rows = 2 * pipeline.batch_size
    weights = sum(p.numel() for p in pipeline.dalle.blocks.parameters())
    weights += pipeline.dalle.image_head.weight.numel()
    keys = pipeline.dalle.masks[:, config.text_length :].sum().item()  # over all layers and positions
    steps = config.image_length
    flops = batches * rows * (2 * weights * steps + 4 * config.width * keys)
    traffic = 4 * batches * (weights * steps + 2 * rows * config.width * keys)
    return float(flops), float(traffic)


def matmul_rate(device: torch.device, size: int = 2048) -> float:
    """FLOP/s of a float32 matrix product."""
    a = torch.randn(size, size, device=device)
    return 2 * size**3 / _fastest(lambda: a @ a, device)


def memory_bandwidth(device: torch.device, count: int = 64_000_000) -> float:
    """Bytes a second of a large copy, read and written."""
    a = torch.zeros(count, device=device)
    b = torch.empty_like(a)
    return 8 * count / _fastest(lambda: b.copy_(a), device)


def _fastest(work: Callable[[], Any], device: torch.device, times: int = 5) -> float:
    best = float("inf")
    for _ in range(times + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return best


BENCHES: dict[str, Callable[[str], dict[str, Any]]] = {"generate": bench_generate}
