"""Several lanes behind one queue: a run is worked on in one, and a large one in those that are idle, too."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from app.lanes.lane import Lane, LaneBusy, LaneDied, on_device
from app.lanes.work import Asked, Choosing, Preparing, SomeBatches, WholeRun
from pipelines.core.execute import Events
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Drawn, Pipeline, Result, Splits, Step, StudioLike
from pipelines.core.settings import Settings
from pipelines.errors import BadInput
from pipelines.models.device import choose_device

MOST = 64  # lanes of one studio
LOOK_SECONDS = 0.05  # between two looks for an idle lane


@dataclass(frozen=True)
class Place:
    """A device, and how many threads torch computes with there; None leaves torch's own choice."""

    device: str
    threads: int | None = None


def places_of(device: str) -> list[Place]:
    """The lanes that a text of --device asks for: `cuda:0,cuda:1`, or `cpu:2` for two on the processor.

    Lanes on the processor share its threads. Empty for the name of one device. BadInput for a text of another form, more
    than MOST lanes, or a device that is not here.
    """
    if not re.search(r",|^cpu:", device):
        return []
    counted = [
        re.fullmatch(r"cpu(?::(\d{1,3}))?|[a-z]+(?::\d+)?", part.strip()) for part in device.split(",")
    ]
    if not all(counted):
        raise BadInput("batch.lanes_form", device=device[:60])
    names = [
        name
        for match in counted
        if match
        for name in (["cpu"] * int(match[1] or 1) if match[0].startswith("cpu") else [match[0]])
    ]
    if not 0 < len(names) <= MOST:
        raise BadInput("batch.lanes_form", device=device[:60])
    for name in set(names):
        choose_device(name)
    share = max(1, torch.get_num_threads() // max(1, names.count("cpu")))
    return [Place(name, share if name == "cpu" else None) for name in names]


def open_lanes(
    places: Sequence[Place], make: Callable[[str], Callable[[str, dict[str, str]], Any]] = on_device
) -> list[Lane]:
    """A lane for each place; `make(device)` gives what makes its studio there."""
    return [Lane(place.device, make(place.device), place.threads) for place in places]


class Lanes:
    """The lanes of a studio. `studio` is the one that the page asks; it names the models in use, and runs nothing.

    `pipelines` is what names of pipelines are looked up in.
    """

    def __init__(
        self, lanes: Sequence[Lane], studio: StudioLike, pipelines: Mapping[str, type[Pipeline[Any]]]
    ) -> None:
        self.lanes, self.studio, self.pipelines = list(lanes), studio, pipelines

    def runs(self) -> list[Callable[..., Events]]:
        """What gives the events of a run, as `core.execute.run` does, for each lane."""

        def on(lane: Lane) -> Callable[..., Events]:
            return lambda pipeline, settings, journal=None: self._run(lane, pipeline, settings, journal)

        return [on(lane) for lane in self.lanes]

    def close(self) -> None:
        """End all processes."""
        for lane in self.lanes:
            lane.close()

    def _run(
        self, lane: Lane, pipeline: Pipeline[Any], settings: Settings, journal: Journal | None
    ) -> Events:
        name = next(name for name, kind in self.pipelines.items() if kind is type(pipeline))
        use = dict(getattr(self.studio, "use", {}))
        asked = Asked(name, settings, self.studio.pack, use)
        others = [other for other in self.lanes if other is not lane and _kind(other) == _kind(lane)]
        if others and isinstance(pipeline, Splits) and not (settings.x or settings.y):
            settings, count = yield from lane.work(Preparing(asked))
            asked = replace(asked, settings=settings)
            if count > 1:
                yield from SplitRun(lane, others, asked, count).events()
                return
        result = yield from lane.work(WholeRun(asked, journal.folder if journal else None))
        yield _named(result, lane)


class SplitRun:
    """One run whose batches are drawn in its own lane and in others while those are idle, and ranked in its own.

    A lane that somebody else waits for gets no further batch. A batch whose lane died is drawn again by another.
    """

    def __init__(self, own: Lane, others: Sequence[Lane], asked: Asked, count: int) -> None:
        self.own, self.asked, self.count = own, asked, count
        self._ahead = deque(range(count))
        self._drawn: dict[int, Drawn] = {}
        self._last = Step("draw", 0, count)
        self._ended = threading.Event()
        self._helpers = [threading.Thread(target=self._help, args=(lane,), daemon=True) for lane in others]

    def events(self) -> Events:
        """The Steps of the run's own lane, counted over all, and the Result. LaneDied when its own lane dies."""
        begun = time.perf_counter()
        for helper in self._helpers:
            helper.start()
        try:
            while len(self._drawn) < self.count:
                number = self._next()
                if number is None:  # the others are drawing the last ones
                    time.sleep(LOOK_SECONDS)
                    yield self._last
                else:
                    self._drawn[number] = yield from self._draw(number)
        finally:
            self._ended.set()
            for helper in self._helpers:
                helper.join()
        drawn = [self._drawn[number] for number in range(self.count)]
        result = yield from self.own.work(Choosing(self.asked, drawn, time.perf_counter() - begun))
        yield _named(result, self.own)

    def _next(self) -> int | None:
        try:
            return self._ahead.popleft()
        except IndexError:
            return None

    def _draw(self, number: int) -> Generator[Step, None, Drawn]:
        """A batch in the run's own lane."""
        steps = self.own.work(SomeBatches(self.asked, (number,)))
        try:
            while True:
                self._last = self._counted(next(steps), number)
                yield self._last
        except StopIteration as end:
            return end.value[0]
        finally:
            steps.close()

    def _help(self, lane: Lane) -> None:
        """Draw batches in another lane as long as nobody else wants it."""
        while not self._ended.is_set() and len(self._drawn) < self.count:
            number = self._next() if lane.free else None
            if number is None:
                self._ended.wait(LOOK_SECONDS)
                continue
            steps = lane.work(SomeBatches(self.asked, (number,)), patient=False)
            try:
                while not self._ended.is_set():
                    next(steps)
            except StopIteration as end:
                (self._drawn[number],) = end.value
            except (LaneBusy, LaneDied):
                self._ahead.append(number)
            except Exception:  # the run's own lane meets it too, and tells it
                self._ahead.append(number)
                return
            finally:
                steps.close()

    def _counted(self, step: Step, number: int) -> Step:
        """A step of batch `number`, counted from the batches that are drawn instead of those before it."""
        size = step.total / self.count
        done = round(len(self._drawn) * size + step.done - number * size)
        return replace(step, done=max(0, min(step.total, done)))


def _kind(lane: Lane) -> str:
    """The kind of device: candidates are the same only where they are drawn on the same kind."""
    return lane.device.split(":")[0]


def _named(result: Result, lane: Lane) -> Result:
    return replace(result, device=lane.device)
