"""The memory that is free on this machine."""

from __future__ import annotations


def free_memory(*, gpu: bool = True) -> dict[str, int]:
    """The bytes that are free now: {"RAM": ...} and, where torch has a GPU, {"GPU": ...}.

    With `gpu=False` CUDA is not used at all, and only "RAM" is returned.
    """
    import psutil
    import torch

    free = {"RAM": psutil.virtual_memory().available}
    if gpu and torch.cuda.is_available():
        free["GPU"] = torch.cuda.mem_get_info()[0]
    return free
