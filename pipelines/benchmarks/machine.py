"""What the machine can do at most, which the benchmarks divide by; and the time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def matmul_rate(device: torch.device, size: int = 2048) -> float:
    """FLOP/s of a float32 matrix product."""
    a = torch.randn(size, size, device=device)
    return 2 * size**3 / _fastest(lambda: a @ a, device)


def memory_bandwidth(device: torch.device, count: int = 64_000_000) -> float:
    """Bytes a second of a large copy, read and written."""
    a = torch.zeros(count, device=device)
    b = torch.empty_like(a)
    return 8 * count / _fastest(lambda: b.copy_(a), device)


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _fastest(work: Callable[[], Any], device: torch.device, times: int = 5) -> float:
    best = float("inf")
    for _ in range(times + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return best
