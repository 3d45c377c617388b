"""Where the rows of a batch are worked on. An engine is an iterator of answers, in whatever order they come."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from app.batch.tools import Task, Tool
from app.lanes.lane import Lane, LaneDied, There
from pipelines.core.pipeline import Step
from pipelines.errors import Message

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


@dataclass(frozen=True)
class RowsWork:
    """Rows for a lane's process, with the models that they are done with. Without rows it loads them."""

    tool: Tool
    asked: tuple[Any, ...]
    pack: str
    use: dict[str, str]

    def steps(self, there: There) -> Generator[Step, None, list[Any]]:
        """It takes no steps; returns the answers."""
        yield from ()
        studio = there.studio(self.pack, self.use)
        if not self.asked:
            self.tool.load(studio)
        return self.tool.work(studio, self.asked) if self.asked else []


class OnLanes:
    """Several lanes: each takes the next group when it is free. A group whose lane died is done again.

    `studio` names the models in use.
    """

    TRIES = 3  # of a group

    def __init__(self, lanes: Sequence[Lane], studio: Any, tool: Tool) -> None:
        self.lanes, self.tool = list(lanes), tool
        self.pack, self.use = studio.pack, dict(getattr(studio, "use", {}))

    def load(self) -> None:
        """Load the models in all lanes. BadInput when they are missing."""
        for _ in self._in_threads(iter([()] * len(self.lanes)), once=True):
            pass

    def answers(self, groups: Iterable[Sequence[Task]]) -> Answers:
        """As Engine says. Giving up ends the lanes' processes."""
        yield from self._in_threads(iter(groups))

    def close(self) -> None:
        """End the lanes' processes."""
        for lane in self.lanes:
            lane.close()

    def _in_threads(self, groups: Any, once: bool = False) -> Answers:
        """Each group with its answers; a thread a lane asks for groups. `once` gives each lane one."""
        taking, answered, ended = threading.Lock(), SimpleQueue[Any](), threading.Event()

        def follow(lane: Lane) -> None:
            try:
                while not ended.is_set():
                    with taking:
                        group = next(groups, None)
                    if group is None:
                        break
                    answered.put((group, self._answer(lane, group, ended)))
                    if once:
                        break
            except BaseException as problem:
                answered.put(problem)
            answered.put(None)

        threads = [threading.Thread(target=follow, args=(lane,), daemon=True) for lane in self.lanes]
        for thread in threads:
            thread.start()
        try:
            left = len(threads)
            while left:
                given = answered.get()
                if isinstance(given, BaseException):
                    raise given
                if given is None:
                    left -= 1
                else:
                    yield given
        finally:
            if any(thread.is_alive() for thread in threads):
                ended.set()
                self.close()
            for thread in threads:
                thread.join()

    def _answer(self, lane: Lane, group: Sequence[Task], ended: threading.Event) -> list[Any]:
        work = RowsWork(self.tool, tuple(task.asked for task in group), self.pack, self.use)
        for _ in range(self.TRIES):
            with suppress(LaneDied):
                return lane.do(work)
            if ended.is_set():
                break
        return [Message("jobs.lane_died")] * len(group)
