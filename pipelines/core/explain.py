"""Why a run failed, for the user."""

from __future__ import annotations

import torch

from pipelines.core.settings import Settings
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.io.files import cannot_save

MEMORY_KNOBS = (
    "batch",
    "cutouts",
    "candidates",
)  # what memory grows with, in the order in which it is halved


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether the processor's or a GPU's memory was too small."""
    return (
        isinstance(problem, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in str(problem).lower()
    )


def too_large(settings: Settings) -> BadInput:
    """What is said of a run for which the memory was too small, with a smaller try."""
    advice = Message("core.smaller_picture")
    for name in MEMORY_KNOBS:
        value = getattr(settings, name, None) or 0
        if value > 1:
            advice = Message("core.ask_for_less", {"setting": name, "value": value, "less": value // 2})
            break
    return BadInput("core.no_memory", advice=advice)


def explain(problem: BaseException) -> Message:
    """Why a run failed. What is not foreseen stays general; its traceback is for the log."""
    if isinstance(problem, (BadInput, CannotSave)):
        return problem.message
    if is_out_of_memory(problem):
        return Message("core.out_of_memory")
    if isinstance(problem, OSError) and problem.errno is not None and problem.filename:
        return cannot_save(problem.filename, problem).message
    return Message("core.broke", {"kind": type(problem).__name__})
