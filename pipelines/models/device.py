"""Devices: choosing one, its precision, and which networks fit into its memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from pipelines.errors import BadInput
from pipelines.models.spec import SPECS

PRECISIONS = ("auto", "float32", "bfloat16")
# "auto": bfloat16 has nowhere been measured to be faster and as good by the critic
USUAL_PRECISION = "float32"


def precision_on(device: torch.device, asked: str = "auto") -> str:
    """The precision to compute in, "float32" or "bfloat16". "auto" gives USUAL_PRECISION.

    BadInput for bfloat16 on a device that cannot multiply bfloat16 matrices.
    """
    if asked == "bfloat16" and not _can_bfloat16(device):
        raise BadInput("models.no_bfloat16", device=device.type)
    return USUAL_PRECISION if asked == "auto" else asked


def _can_bfloat16(device: torch.device) -> bool:
    """Whether the device can multiply bfloat16 matrices, at any speed. CPUs and CUDA can."""
    matrix = torch.ones(1, 1)
    try:
        return bool(
            (matrix.to(device, torch.bfloat16) @ matrix.to(device, torch.bfloat16)).float().cpu() == 1
        )
    except (RuntimeError, TypeError):  # "BFloat16 is not supported on MPS", for one
        return False


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name; "auto" is the first GPU, or the CPU without one. BadInput when the machine lacks it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput("models.device_missing", device=name) from error
    return device


def dtype_of(kind: str, device: torch.device) -> torch.dtype:
    """The type that a kind of network computes in: on a GPU its `half` in ModelSpec, else float32."""
    half = SPECS[kind].half if device.type == "cuda" and kind in SPECS else ""
    return getattr(torch, half or "float32")


# ----------------------------------------------------------------------------------------------------------------- room

# the share of a GPU's memory that weights may fill; the rest is for what is computed with them
WEIGHTS_SHARE = 0.5


def networks_of(part: Any) -> list[nn.Module]:
    """The networks in a part of a pipeline: the part itself, or the components of a diffusers pipeline, or none."""
    inside = getattr(part, "components", {}).values() if not isinstance(part, nn.Module) else [part]
    return [component for component in inside if isinstance(component, nn.Module)]


def parameter_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def networks_to_offload(parts: list[nn.Module], waiting: list[nn.Module], room: float) -> list[nn.Module]:
    """The networks of `waiting` to move off, largest first, until the weights of all networks are at most `room` bytes."""
    total = sum(parameter_bytes(network) for network in (*parts, *waiting))
    leaving: list[nn.Module] = []
    for network in sorted(waiting, key=parameter_bytes, reverse=True):
        if total <= room:
            break
        leaving.append(network)
        total -= parameter_bytes(network)
    return leaving


def make_room(parts: Iterable[Any], loaded: Iterable[Any], device: torch.device) -> None:
    """Move the networks in `parts` to a GPU. Does nothing on other devices.

    Weights may fill WEIGHTS_SHARE of its memory; beyond that, other networks of `loaded` are first moved to the CPU.
    """
    if device.type != "cuda":
        return
    wanted = [network for part in parts for network in networks_of(part)]
    networks = [network for part in loaded for network in networks_of(part)]
    waiting = [
        network for network in networks if network not in wanted and next(network.parameters()).is_cuda
    ]
    total: int = cast(Any, torch.cuda).get_device_properties(device).total_memory
    for network in networks_to_offload(wanted, waiting, WEIGHTS_SHARE * total):
        network.to("cpu")
    for network in wanted:
        network.to(device)
