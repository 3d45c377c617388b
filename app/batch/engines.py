"""Where the rows of a batch are worked on. An engine is an iterator of answers, in whatever order they come."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.batch.tools import Task, Tool

Answers = Generator[tuple[Sequence[Task], list[Any]], None, None]


class Engine(Protocol):
    """Works on groups of tasks; each group is answered once. Few are asked for before they can be worked on."""

    def answers(self, groups: Iterable[Sequence[Task]]) -> Answers:
        """Each group with its answers, a Message for a row that failed. Closing the iterator gives up."""
        ...


@dataclass(frozen=True)
class Here:
    """This process and its one device. `studio` has the models, which are loaded once."""

    studio: Any
    tool: Tool

    def answers(self, groups: Iterable[Sequence[Task]]) -> Answers:
        for group in groups:
            yield group, self.tool.work(self.studio, [task.asked for task in group])
