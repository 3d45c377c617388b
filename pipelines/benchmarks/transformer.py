"""The sliding window over codes with a cache, beside the window computed anew for each token (taming-transformers)."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pipelines.models.device import choose_device
from pipelines.models.transformer.network import Transformer, TransformerConfig, local_places


def in_the_window(place: int, count: int, grid: int) -> tuple[int, int]:
    """Where the window around a row, or column, of a canvas begins, and the place in it."""
    local = int(local_places(count, grid)[place])
    return place - local, local


def window_logits(
    network: Transformer, text: Tensor, image: Tensor, canvas: tuple[int, int], position: int
) -> Tensor:
    """The logits (n, image_vocabulary) of the token at `position` as taming-transformers gets them.

    A window of the size of a training picture is cut out of the canvas (n, rows * columns), and all before the token
    is computed anew.
    """
    (height, width), grid = canvas, network.config.grid
    top, i = in_the_window(position // width, height, grid)
    left, j = in_the_window(position % width, width, grid)
    window = image.view(-1, height, width)[:, top : top + grid, left : left + grid].flatten(1)
    return network.image_head(network(text, window[:, : i * grid + j])[:, -1]).float()


@torch.no_grad()
def bench_transformer(device: str = "auto", rows: int = 16, rounds: int = 3) -> dict[str, Any]:
    """Tokens a second of the tiny size on a canvas of 16 x 8 tokens, both ways, as many rows as Generate draws."""
    place = choose_device(device)
    torch.manual_seed(0)
    network = Transformer(TransformerConfig(1024)).eval().requires_grad_(False).to(place)
    canvas = network.config.grid, 2 * network.config.grid
    count = canvas[0] * canvas[1]
    text = torch.zeros(rows, 1, dtype=torch.long, device=place)
    wait = torch.cuda.synchronize if place.type == "cuda" else (lambda: None)

    def cached() -> None:
        cache, logits = network.prefill(text[:1], rows, canvas)
        for position in range(count - 1):
            logits = network.decode_step(cache, logits.argmax(1), position)

    def anew() -> None:
        image = torch.zeros(rows, count, dtype=torch.long, device=place)
        for position in range(count):
            image[:, position] = window_logits(network, text, image, canvas, position).argmax(1)

    def seconds(way: Callable[[], None]) -> float:
        begun = time.perf_counter()
        way()
        wait()
        return time.perf_counter() - begun

    times = [(seconds(cached), seconds(anew)) for _ in range(rounds + 1)][1:]  # the first warms up
    fast, slow = (median(column) for column in zip(*times, strict=True))
    return {
        "device": str(place),
        "pictures at once": rows,
        "canvas, tokens": f"{canvas[1]} x {canvas[0]}",
        "with a cache: tokens a second": rows * count / fast,
        "the window anew: tokens a second": rows * count / slow,
        "times as fast with a cache": slow / fast,
    }
