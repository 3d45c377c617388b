"""What the processor is good at."""

from __future__ import annotations

import torch

from pipelines.errors import BadInput

PRECISIONS = ("auto", "float32", "bfloat16")


def precision_on(device: torch.device, asked: str = "auto") -> str:
    """ "float32" or "bfloat16": what was asked for, or for "auto" what is usual there.

    BadInput when the device cannot compute in bfloat16 at all.
    """
    if asked == "bfloat16" and not _can_bfloat16(device):
        raise BadInput(f"precision bfloat16 does not work on this device ({device.type}); try float32")
    return ("bfloat16" if bfloat16_pays(device) else "float32") if asked == "auto" else asked


def bfloat16_pays(device: torch.device) -> bool:
    """Whether "auto" is bfloat16 there: on GPUs of NVIDIA that have it, and on no CPU.

    On CPUs with matrix units (AMX) a step is faster in it, the more so the larger the canvas, but the critic likes the
    pictures less. So all CPUs compute alike. Asked of the hardware, not measured, so that the answer,
    and with it every pixel, is the same in every process.
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _can_bfloat16(device: torch.device) -> bool:
    """Whether a product of bfloat16 matrices can be computed there, however slowly. CPUs and CUDA can."""
    one = torch.ones(1, 1)
    try:
        return bool((one.to(device, torch.bfloat16) @ one.to(device, torch.bfloat16)).float().cpu() == 1)
    except (RuntimeError, TypeError):  # "BFloat16 is not supported on MPS", for one
        return False
