"""Running a batch: what is done already is passed over, what comes back is kept, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from app.batch.engines import Engine
from app.batch.results import Results
from app.batch.rows import Row
from app.batch.tools import Task
from pipelines.errors import Message


@dataclass(frozen=True)
class Progress:
    """How far a batch is. Rows that were done before it was started again count as done, and not for its rate."""

    total: int  # rows that can be done
    before: int  # done in an earlier start
    done: int  # of `total`, those of an earlier start too
    failed: tuple[tuple[Row, Message], ...] = ()  # while they were worked on
    seconds: float = 0.0  # since the first row of this start was begun

    @property
    def over(self) -> int:
        """The rows of this start that are done or failed."""
        return self.done - self.before + len(self.failed)

    @property
    def rate(self) -> float:
        """Rows a second, 0 before there is one."""
        return self.over / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None before there is a rate."""
        return (self.total - self.before - self.over) / self.rate if self.rate else None


def run_batch(
    tasks: Sequence[Task], engine: Engine, results: Results, at_once: int
) -> Generator[Progress, None, None]:
    """Work on the tasks that are not done; yields how far it is at the start and after each group of rows.

    Closing the iterator gives up; what is kept stays. CannotSave when a result cannot be written.
    """
    ahead = [task for task in tasks if not results.has(task)]
    progress = Progress(len(tasks), len(tasks) - len(ahead), len(tasks) - len(ahead))
    yield progress
    groups = (ahead[first : first + at_once] for first in range(0, len(ahead), at_once))
    begun = time.monotonic()
    with closing(engine.answers(groups)) as answers:
        for group, given in answers:
            failed = list(progress.failed)
            for task, answer in zip(group, given, strict=True):
                if isinstance(answer, Message):
                    failed.append((task.row, answer))
                else:
                    results.keep(task, answer)
            done = progress.done + sum(not isinstance(answer, Message) for answer in given)
            seconds = time.monotonic() - begun
            progress = replace(progress, done=done, failed=tuple(failed), seconds=seconds)
            yield progress
