"""Devices: which one, what it computes in, what it has room for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pipelines.errors import BadInput
from pipelines.models.spec import SPECS

PRECISIONS = ("auto", "float32", "bfloat16")
USUAL_PRECISION = (
    "float32"  # "auto": bfloat16 has nowhere been measured to be faster and as good by the critic
)


def precision_on(device: torch.device, asked: str = "auto") -> str:
    """ "float32" or "bfloat16": what was asked for, USUAL_PRECISION for "auto".

    BadInput when the device cannot compute in bfloat16 at all.
    """
    if asked == "bfloat16" and not _can_bfloat16(device):
        raise BadInput("models.no_bfloat16", device=device.type)
    return USUAL_PRECISION if asked == "auto" else asked


def _can_bfloat16(device: torch.device) -> bool:
    """Whether a product of bfloat16 matrices can be computed there, however slowly. CPUs and CUDA can."""
    one = torch.ones(1, 1)
    try:
        return bool((one.to(device, torch.bfloat16) @ one.to(device, torch.bfloat16)).float().cpu() == 1)
    except (RuntimeError, TypeError):  # "BFloat16 is not supported on MPS", for one
        return False


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the first GPU when there is one; BadInput for a device this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput("models.device_missing", device=name) from error
    return device


def dtype_of(kind: str, device: torch.device) -> torch.dtype:
    """What a kind of network computes in: half precision only on a GPU, and only those that bear it."""
    half = SPECS[kind].half if device.type == "cuda" and kind in SPECS else ""
    return getattr(torch, half or "float32")


# ----------------------------------------------------------------------------------------------------------------- room

ROOM = 0.5  # the share of a GPU's memory that weights may fill; the rest is for what is computed with them


def networks_of(part: Any) -> list[nn.Module]:
    """The networks in a part of a pipeline: itself, those of a diffusers pipeline, or none."""
    inside = getattr(part, "components", {}).values() if not isinstance(part, nn.Module) else [part]
    return [one for one in inside if isinstance(one, nn.Module)]


def weight(network: nn.Module) -> int:
    """Bytes of a network's parameters."""
    return sum(one.numel() * one.element_size() for one in network.parameters())


def to_move_off(parts: list[nn.Module], waiting: list[nn.Module], room: float) -> list[nn.Module]:
    """Which of the waiting networks must leave so that all weights are at most `room` bytes: the heaviest first."""
    total = sum(weight(one) for one in (*parts, *waiting))
    leaving: list[nn.Module] = []
    for one in sorted(waiting, key=weight, reverse=True):
        if total <= room:
            break
        leaving.append(one)
        total -= weight(one)
    return leaving


def make_room(parts: Iterable[Any], loaded: Iterable[Any], device: torch.device) -> None:
    """Bring the networks in `parts` to a GPU; before it is full, others of those loaded go to the processor's memory."""
    if device.type != "cuda":
        return
    wanted = [network for part in parts for network in networks_of(part)]
    networks = [network for part in loaded for network in networks_of(part)]
    waiting = [one for one in networks if one not in wanted and next(one.parameters()).is_cuda]
    total = torch.cuda.get_device_properties(device).total_memory
    for network in to_move_off(wanted, waiting, ROOM * total):
        network.to("cpu")
    for network in wanted:
        network.to(device)
