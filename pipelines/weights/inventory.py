"""What this machine has room for."""

from __future__ import annotations


def free_memory(*, gpu: bool = True) -> dict[str, int]:
    """Bytes that are free now: {"RAM": ...} and, where this process has a GPU, {"GPU": ...}.

    With `gpu=False` CUDA is not asked at all.
    """
    import psutil
    import torch

    free = {"RAM": psutil.virtual_memory().available}
    if gpu and torch.cuda.is_available():
        free["GPU"] = torch.cuda.mem_get_info()[0]
    return free
