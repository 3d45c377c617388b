"""`python launch.py bench NAME`: speed, as ratios to what this very machine can do, measured in the same run."""

from __future__ import annotations

import copy
import math
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.flop_counter import FlopCounterMode

from pipelines.benchmarks.candidates import bench_diffuse, bench_generate
from pipelines.benchmarks.dalle import bench_dalle
from pipelines.benchmarks.edit import bench_edit
from pipelines.benchmarks.guide import bench_guide
from pipelines.benchmarks.machine import matmul_rate
from pipelines.benchmarks.transformer import bench_transformer
from pipelines.clip.losses import great_circle
from pipelines.core.arguments import Parser, told
from pipelines.core.execute import run
from pipelines.core.pipeline import Step
from pipelines.models.device import choose_device, dtype_of
from pipelines.models.openai_clip.network import OpenaiClip, OpenaiClipConfig
from pipelines.models.taming_vqgan.network import TamingVqgan, TamingVqganConfig
from pipelines.optimize.canvas import canvas_size, clamp_with_gradient
from pipelines.optimize.pipeline import Optimize
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import Studio


def main(argv: list[str], benches: Mapping[str, Callable[[str], dict[str, Any]]] | None = None) -> int:
    """Print a table, or with --json one object; returns the exit code. `benches` are those there are, else BENCHES."""
    benches = benches or BENCHES
    parser = Parser(prog="launch.py bench", description="Measure speed.")
    parser.add_argument("name", choices=sorted(benches))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(argv)
    print(told(benches[options.name](options.device), as_json=options.json))
    return 0


def bench_optimize(device: str = "auto", steps: int = 24, rounds: int = 3) -> dict[str, Any]:
    """Steps a second in both precisions beside the plain loop of the scripts, what a preview costs, and the distance to
    the machine.

    Runs begin white, so that only steps are measured; what choosing among splashes costs is told by itself.
    """
    studio = Studio("tiny", device)
    pipeline = studio.pipeline("optimize")
    assert isinstance(pipeline, Optimize)
    settings = pipeline.prepare(OptimizeSettings(steps=steps, start="white", diffusion_weight=0))
    names = ("float32", "bfloat16", "watched", "plain")
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):  # by turns, so that all see the same machine; the first round warms up
        seconds = {
            "float32": _optimize(pipeline, replace(settings, precision="float32")),
            "bfloat16": _optimize(pipeline, replace(settings, precision="bfloat16")),
            "watched": _optimize(pipeline, settings, watched=True),
            "plain": _plain_optimize(pipeline, settings),
        }
        print("  ".join(f"{name} {duration:.2f} s" for name, duration in seconds.items()), file=sys.stderr)
        if number:
            for name, duration in seconds.items():
                times[name].append(duration)
    float32, bfloat16, watched, plain = (median(times[name]) for name in names)
    ours = bfloat16 if settings.precision == "bfloat16" else float32
    with FlopCounterMode(display=False) as counter:
        _optimize(pipeline, replace(settings, until=1))
    flops, rate = counter.get_total_flops(), matmul_rate(studio.torch_device)
    splash, white = (
        _optimize(pipeline, replace(settings, start=start, until=1)) for start in ("splash", "white")
    )
    return {
        "device": studio.device,
        "precision": settings.precision,
        "cutouts": settings.cutouts,
        "canvas": "x".join(map(str, canvas_size(settings.size, settings.image, pipeline.vqgan))),
        "steps a second": steps / ours,
        "bfloat16: times float32": float32 / bfloat16,
        "plain loop: steps a second": steps / plain,
        "times the plain loop": plain / ours,
        "choosing a start, seconds": splash - white,
        "watched: more time than unwatched": max(0.0, watched / ours - 1),
        "GFLOP of one step and the last look": flops / 1e9,
        "GFLOP/s": flops * steps / ours / 1e9,
        "machine: GFLOP/s (float32 matmul)": rate / 1e9,
        "times the machine's limit": ours / steps * rate / flops,
        "peak memory of the process, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


VIT_B_32 = OpenaiClipConfig(
    image_size=224,
    image_width=768,
    image_head_count=12,
    embedding_size=512,
    text_width=512,
    text_layer_count=12,
    text_head_count=8,
    text_inner_width=2048,
    patch_size=32,
    image_layer_count=12,
    image_inner_width=3072,
)


def bench_vqgan_clip(device: str = "auto", cutouts: int = 32) -> dict[str, Any]:
    """Optimize at the usual published sizes, VQGAN f16-16384 and ViT-B/32 at 256 x 256, with random weights."""
    place = choose_device(device)
    torch.manual_seed(0)
    vqgan = TamingVqgan(TamingVqganConfig()).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    clip: Any = OpenaiClip(VIT_B_32, Studio("tiny", "cpu").load("tiny-tokenizer"))
    clip.to(dtype_of("openai-clip", place))  # as the studio loads it
    for network in (vqgan, clip):
        network.eval().requires_grad_(False).to(place)
    target = torch.nn.functional.normalize(torch.randn(1, VIT_B_32.embedding_size), dim=-1).to(place)
    clip.encode_text = lambda prompts: target.expand(len(prompts), -1)  # random weights read nothing
    pipeline = Optimize(vqgan, clip, clip)  # pyright: ignore[reportArgumentType]
    steps = 100 if place.type == "cuda" else 2
    settings = pipeline.prepare(
        OptimizeSettings(steps=steps, cutouts=cutouts, cutout_size="full", start="white", diffusion_weight=0)
    )
    _optimize(pipeline, replace(settings, until=1))  # warms up
    seconds = _optimize(pipeline, settings)
    with FlopCounterMode(display=False) as counter:
        _optimize(pipeline, replace(settings, until=1))
    flops, rate = counter.get_total_flops(), matmul_rate(place)
    return {
        "device": str(place),
        "precision": settings.precision,
        "cutouts": cutouts,
        "steps a second": steps / seconds,
        "GFLOP of one step and the last look": flops / 1e9,
        "machine: GFLOP/s (float32 matmul)": rate / 1e9,
        "share of the machine's matmul rate": flops * steps / seconds / rate,
    }


def _optimize(pipeline: Optimize, settings: OptimizeSettings, watched: bool = False) -> float:
    """Seconds of one run, looked at four times a second as the page does, or not at all."""
    begun = looked = time.perf_counter()
    for event in run(pipeline, settings):
        if watched and isinstance(event, Step) and time.perf_counter() - looked > 0.25:
            event.preview()
            looked = time.perf_counter()
    return time.perf_counter() - begun


def _plain_optimize(pipeline: Optimize, settings: OptimizeSettings) -> float:
    """Seconds of the loop as it is usually written: float32, the default memory layout, codes by a one-hot product, and
    every view cropped, resized and turned by itself. The same networks, loss, optimizer and number of views."""
    vqgan, clip = copy.deepcopy(pipeline.vqgan), copy.deepcopy(pipeline.clip)
    networks: Any = (vqgan, clip)
    for network in networks:
        convert_conv2d_weight_memory_format(network, torch.contiguous_format)
    target, size, codes = clip.encode_text([settings.prompt])[0], clip.config.image_size, vqgan.codes
    begun = time.perf_counter()
    grid = vqgan.config.image_size // vqgan.config.factor
    z = vqgan.embed(torch.randint(len(codes), (1, grid, grid), device=codes.device)).clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=settings.step_size)
    for _ in range(settings.steps):
        flat = z.permute(0, 2, 3, 1)
        distance = flat.square().sum(-1, keepdim=True) + codes.square().sum(1) - 2 * flat @ codes.T
        chosen = F.one_hot(distance.argmin(-1), len(codes)).to(codes.dtype) @ codes
        quantized = flat + (chosen - flat).detach()
        picture = clamp_with_gradient(vqgan.decode(quantized.permute(0, 3, 1, 2)), -1.0, 1.0)
        side, views = min(picture.shape[-2:]), []
        for _ in range(settings.cutouts):
            length = int(side * (0.6 + 0.4 * random.random()))
            top, left = (random.randint(0, whole - length) for whole in picture.shape[-2:])
            view = F.interpolate(
                picture[:, :, top : top + length, left : left + length], (size, size), mode="area"
            )
            angle = random.uniform(-0.2, 0.2)
            turn = [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
            points = F.affine_grid(
                torch.tensor([turn], device=z.device), list(view.shape), align_corners=False
            )
            view = F.grid_sample(view, points, padding_mode="border", align_corners=False)
            view = view * random.uniform(0.9, 1.1) + random.uniform(-0.1, 0.1)
            views.append(view + 0.1 * random.random() * torch.randn_like(view))
        loss = great_circle(clip.encode_image(torch.cat(views)), target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            z.copy_(
                torch.minimum(torch.maximum(z, codes.amin(0)[:, None, None]), codes.amax(0)[:, None, None])
            )
    return time.perf_counter() - begun


BENCHES: dict[str, Callable[[str], dict[str, Any]]] = {
    "generate": bench_generate,
    "diffuse": bench_diffuse,
    "optimize": bench_optimize,
    "guide": bench_guide,
    "edit": bench_edit,
    "dalle": bench_dalle,
    "transformer": bench_transformer,
    "vqgan-clip": bench_vqgan_clip,
}
