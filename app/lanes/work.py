"""What is asked of lanes for the queue: a whole run, some of its candidates, or the choice among them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.lanes.lane import There
from pipelines.core.environment import environment_of
from pipelines.core.execute import run
from pipelines.core.explain import is_out_of_memory, too_large
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Drawn, Result, Step
from pipelines.core.settings import Settings
from pipelines.errors import Stopped


@dataclass(frozen=True)
class Asked:
    """A run: the name of its pipeline, its settings, and the models in use."""

    pipeline: str
    settings: Settings
    pack: str
    use: dict[str, str]

    def found(self, there: There) -> Any:
        """The pipeline, with its models loaded."""
        return there.studio(self.pack, self.use).pipeline(self.pipeline)


@dataclass(frozen=True)
class WholeRun:
    """A run from its beginning, or from the last snapshot of its journal, to its Result."""

    asked: Asked
    journal: Path | None = None

    def steps(self, there: There) -> Generator[Step, None, Result]:
        """Stopped, thrown in, ends a Resumable run with its Result so far."""
        journal = Journal(self.journal) if self.journal else None
        with closing(run(self.asked.found(there), self.asked.settings, journal)) as events:
            for event in events:
                if isinstance(event, Result):
                    return event
                try:
                    yield event
                except Stopped as stop:
                    kept = events.throw(stop)
                    assert isinstance(kept, Result)
                    return kept
        raise AssertionError("a run ends with a Result")


@dataclass(frozen=True)
class Preparing:
    """What a run comes to on this device: its prepared settings, and how many batches it draws."""

    asked: Asked

    def steps(self, there: There) -> Generator[Step, None, tuple[Settings, int]]:
        """It takes no steps."""
        yield from ()
        pipeline = self.asked.found(there)
        settings = pipeline.prepare(self.asked.settings)
        return settings, len(pipeline.batches(settings))


@dataclass(frozen=True)
class SomeBatches:
    """Some batches of a run with prepared settings."""

    asked: Asked
    chosen: tuple[int, ...]

    def steps(self, there: There) -> Generator[Step, None, list[Drawn]]:
        """Its steps count as those of the whole run do."""
        try:
            drawn = yield from self.asked.found(there).draw(self.asked.settings, self.chosen)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise too_large(self.asked.settings) from error
            raise
        return [part.on("cpu") for part in drawn]


@dataclass(frozen=True)
class Choosing:
    """The end of a run whose batches were drawn in several lanes: ranking, and the pictures that are kept."""

    asked: Asked
    drawn: Sequence[Drawn]
    seconds: float  # that drawing took

    def steps(self, there: There) -> Generator[Step, None, Result]:
        """It takes no steps."""
        yield from ()
        pipeline = self.asked.found(there)
        drawn = [part.on(pipeline.clip.device) for part in self.drawn]
        pictures = pipeline.choose(self.asked.settings, drawn)
        return Result(pictures, self.asked.settings, self.seconds, environment=environment_of(pipeline))
