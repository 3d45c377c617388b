"""What the processor is good at."""

from __future__ import annotations

import torch


def bf16_pays(device: torch.device) -> bool:
    """Whether convolutions are faster in bfloat16 here: on CUDA, and on CPUs with matrix units for it (AMX).

    Asked of the hardware, not measured, so that the answer, and with it every pixel, is the same in every process.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()
