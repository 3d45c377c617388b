"""Why a run failed, as one sentence for the user."""

from __future__ import annotations

import torch

from pipelines.core.settings import Settings
from pipelines.errors import BadInput, CannotSave
from pipelines.io.files import cannot_save

MEMORY_KNOBS = (
    "batch",
    "cutouts",
    "candidates",
)  # what memory grows with, in the order in which it is halved


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that the memory of the processor or of a GPU was too small."""
    return (
        isinstance(problem, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in str(problem).lower()
    )


def too_large(settings: Settings) -> BadInput:
    """The BadInput for a run that needed too much memory. Its sentence proposes a smaller value of a setting."""
    advice = "try a smaller picture, or close other programs"
    for name in MEMORY_KNOBS:
        value = getattr(settings, name, None) or 0
        if value > 1:
            advice = f"try {name} {value // 2} instead of {value}"
            break
    return BadInput(f"the memory of the device is too small for this; {advice}")


def explain(problem: BaseException) -> str:
    """One sentence for the user on why a run failed. Unexpected exceptions are named by their class only."""
    if isinstance(problem, (BadInput, CannotSave)):
        return str(problem)
    if is_out_of_memory(problem):
        return "there was not enough memory; ask for fewer or smaller pictures"
    if isinstance(problem, OSError) and problem.errno is not None and problem.filename:
        return cannot_save(problem.filename, problem)
    return f"the run failed inside ({type(problem).__name__}); the server's log says where"
