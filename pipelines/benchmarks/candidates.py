"""Speed of the pipelines that draw many candidates and rank them: by stage, and against the machine's limit."""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any, cast

import torch

from pipelines.benchmarks.machine import matmul_rate, memory_bandwidth
from pipelines.core.execute import run
from pipelines.core.pipeline import Pipeline, Result, Step
from pipelines.core.settings import Settings
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.generate.pipeline import Generate
from pipelines.generate.settings import GenerateSettings
from pipelines.models.dalle_semantic.network import SemanticDalle
from pipelines.studio import Studio

RANKED = "decode, judge, rank"  # what follows a stage's last step


def bench_generate(device: str = "auto", candidates: int = 16, rounds: int = 3) -> dict[str, Any]:
    """Seconds of a run with the default finish, by stage; tokens a second, and the distance to the machine's limit."""
    studio = Studio("tiny", device)
    pipeline = studio.pipeline("generate")
    assert isinstance(pipeline, Generate)
    seconds, stages = stage_seconds(studio, pipeline, GenerateSettings(candidates=candidates), rounds)
    flops, traffic = drawing_cost(pipeline, candidates)
    rate, bandwidth = matmul_rate(studio.torch_device), memory_bandwidth(studio.torch_device)
    limit = max(flops / rate, traffic / bandwidth)
    return {
        "device": studio.device,
        "candidates": candidates,
        "seconds in all (median)": seconds,
        **{f"seconds of {stage}": share for stage, share in stages.items()},
        "image tokens a second": candidates * pipeline.dalle.config.image_length / stages["draw"],
        "drawing: GFLOP": flops / 1e9,
        "drawing: GB of weights and keys read": traffic / 1e9,
        "machine: GFLOP/s (float32 matmul)": rate / 1e9,
        "machine: GB/s (copy, read and write)": bandwidth / 1e9,
        "drawing: seconds at the machine's limit": limit,
        "drawing: times the limit": stages["draw"] / limit,
    }


def bench_diffuse(device: str = "auto", candidates: int = 16, rounds: int = 3) -> dict[str, Any]:
    """Seconds of a run as the page does it, by stage."""
    studio = Studio("tiny", device)
    settings = DiffuseSettings(candidates=candidates)
    seconds, stages = stage_seconds(studio, studio.pipeline("diffuse"), settings, rounds)
    return {
        "device": studio.device,
        "candidates": candidates,
        "seconds in all (median)": seconds,
        **{f"seconds of {stage}": share for stage, share in stages.items()},
    }


def stage_seconds(
    studio: Studio, pipeline: Pipeline[Any], settings: Settings, rounds: int
) -> tuple[float, dict[str, float]]:
    """The median seconds of a run, and those of its stages (what comes after a candidate's last step is RANKED)."""
    wait = torch.cuda.synchronize if studio.torch_device.type == "cuda" else (lambda: None)
    times = list[tuple[float, dict[str, float]]]()
    for number in range(rounds + 1):
        stages, last = dict[str, float](), time.perf_counter()
        for event in run(pipeline, settings):
            wait()
            now = time.perf_counter()
            stage = event.stage if isinstance(event, Step) and event.stage != "rank" else RANKED
            stages[stage] = stages.get(stage, 0.0) + now - last
            last = now
            if isinstance(event, Result) and number:  # the first round warms up
                times.append((event.seconds, stages))
                print(f"round {number}: {event.seconds:.2f} s", file=sys.stderr)
    names = times[0][1]
    return median(total for total, _ in times), {
        name: median(stages[name] for _, stages in times) for name in names
    }


def drawing_cost(pipeline: Generate, candidates: int) -> tuple[float, float]:
    """FLOPs, and bytes read, of drawing with guidance: weights once a step, keys and values once a row.

    A step is a token: at each, every layer attends to all places before it.
    """
    dalle = cast(SemanticDalle, pipeline.dalle)  # the tiny pack's
    config = dalle.config
    batches = -(-candidates // pipeline.batch_size)
    rows = 2 * pipeline.batch_size
    weights = sum(p.numel() for p in dalle.blocks.parameters())
    weights += dalle.image_head.weight.numel()
    steps = config.semantic_length + config.image_length
    keys = config.layer_count * sum(config.prefix_length + step for step in range(steps))
    flops = batches * rows * (2 * weights * steps + 4 * config.width * keys)
    traffic = 4 * batches * (weights * steps + 2 * rows * config.width * keys)
    return float(flops), float(traffic)
