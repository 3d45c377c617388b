"""What the processor is good at."""

from __future__ import annotations

import torch

from pipelines.errors import BadInput

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
