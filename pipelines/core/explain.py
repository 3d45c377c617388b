"""Why a run failed, for the user."""

from __future__ import annotations

import torch

from pipelines.core.settings import Settings
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.io.files import cannot_save

# what memory grows with, in the order in which it is halved
MEMORY_KNOBS = ("batch", "cutouts", "candidates")


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that the memory of the processor or of a GPU was too small."""
    return (
        isinstance(problem, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in str(problem).lower()
    )


def too_large(settings: Settings) -> BadInput:
    """The BadInput for a run that needed too much memory. Its sentence proposes a smaller value of a setting."""
    advice = Message("core.smaller_picture")
    for name in MEMORY_KNOBS:
        value = getattr(settings, name, None) or 0
        if value > 1:
            advice = Message("core.ask_for_less", {"setting": name, "value": value, "less": value // 2})
            break
    return BadInput("core.no_memory", advice=advice)


def explain(problem: BaseException) -> Message:
    """Why a run failed, for the user. Unexpected exceptions are named by their class only; the log has the traceback."""
    if isinstance(problem, (BadInput, CannotSave)):
        return problem.message
    if is_out_of_memory(problem):
        return Message("core.out_of_memory")
    if isinstance(problem, OSError) and problem.errno is not None and problem.filename:
        return cannot_save(problem.filename, problem).message
    return Message("core.broke", {"kind": type(problem).__name__})
