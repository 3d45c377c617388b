"""The contract every pipeline keeps: Settings in, Steps while it works, Pictures out, one way to run it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from PIL import Image
from torch import Tensor

from pipelines.core.explain import is_out_of_memory, too_large
from pipelines.core.settings import Settings
from pipelines.io.images import to_pil

if TYPE_CHECKING:
    from pipelines.core.journal import Journal
    from pipelines.io.video import Film


@dataclass(frozen=True)
class Step:
    """One tick of work.

    `draw` gives the present pictures as an (n, 3, h, w) tensor in [-1, 1]; it reads live state, so call it before the
    next step or not at all, and only when somebody is looking: it may cost as much as a step.
    """

    stage: str
    done: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    draw: Callable[[], Tensor] | None = None

    def preview(self) -> list[Image.Image]:
        """The present pictures, or none when this step has nothing to show."""
        return [] if self.draw is None else to_pil(self.draw())


@dataclass(frozen=True)
class Picture:
    """One finished picture. `score` is a CLIP's cosine with the prompt, in [-1, 1]: the judge's that ranks here.

    `settings` are those that make it again, when they are not what was asked for: a run that was stopped early.
    """

    image: Image.Image
    seed: int
    score: float | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])  # of the pipeline's own; JSON values only
    settings: Settings | None = None


@dataclass(frozen=True)
class Result:
    """How a run ended: its pictures, best first, the settings it really used, and the seconds it took.

    `device` is where it ran, when that is not where the studio is.
    """

    pictures: list[Picture]
    settings: Settings
    seconds: float
    device: str = ""


S = TypeVar("S", bound=Settings)


class Pipeline(ABC, Generic[S]):
    """A dataclass whose fields are models. Calling it with Settings yields Steps and returns Pictures, best first."""

    Settings: ClassVar[type[Settings]]

    def prepare(self, settings: S) -> S:
        """The settings with everything outside them (pictures named by path) read in, so that they can be replayed."""
        return settings

    @abstractmethod
    def __call__(self, settings: S) -> Generator[Step, None, list[Picture]]:
        """Work on prepared settings."""


class Resumable(Pipeline[S]):
    """A pipeline that keeps a journal, goes on from what it finds there, and can be stopped without losing its work."""

    @abstractmethod
    def __call__(self, settings: S, journal: Journal | None = None) -> Generator[Step, None, list[Picture]]:
        """Work on prepared settings. Stopped, thrown in at a yield, ends the run with the pictures there are."""


# ------------------------------------------------------------------------------------------------ what some can do


@runtime_checkable
class HasTimelapse(Protocol):
    """A Resumable pipeline that shows its whole journal as a film."""

    def film(self, settings: Any, journal: Journal) -> Film:
        """The pictures of all steps."""
        ...


@runtime_checkable
class HasGlimpses(Protocol):
    """A Resumable pipeline that draws the picture of any snapshot in its journal."""

    def glimpse(self, settings: Any, journal: Journal, step: int) -> Image.Image:
        """The picture at one of `journal.steps()`."""
        ...


class Savable(Protocol):
    """What has a file form."""

    def save(self, path: str) -> None:
        """Write the file. CannotSave when that fails."""
        ...


@runtime_checkable
class LearnsDirection(Protocol):
    """A Resumable pipeline whose journal holds a direction that other runs can use."""

    @staticmethod
    def check_direction(settings: Any, path: str) -> None:
        """BadInput when a run with these settings learns none, or when it cannot be saved under this name."""
        ...

    def direction(self, settings: Any, journal: Journal) -> Savable:
        """What was learned."""
        ...


class StudioLike(Protocol):
    """A Studio, or what stands for one: the pack in use and its pipelines with their models."""

    @property
    def pack(self) -> str:
        """The name of the pack."""
        ...

    @property
    def device(self) -> str:
        """Where it computes, as torch names it."""
        ...

    def pipeline(self, name: str) -> Pipeline[Any]:
        """The pipeline with its models loaded."""
        ...

    def models(self, name: str) -> dict[str, dict[str, str]]:
        """Role -> {"name", "sha256"} of a pipeline's models."""
        ...


def run(
    pipeline: Pipeline[S], settings: S, journal: Journal | None = None
) -> Generator[Step | Result, None, None]:
    """The one way to run anything: every Step, then exactly one Result.

    Close the generator to give up, or throw Stopped into it: a Resumable pipeline then gives its Result at once.
    BadInput when the device's memory is too small for it, with a smaller try to offer.
    """
    started = time.perf_counter()
    settings = pipeline.prepare(settings)
    try:
        if isinstance(pipeline, Resumable):
            pictures = yield from pipeline(settings, journal)
        else:
            pictures = yield from pipeline(settings)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise too_large(settings) from error
        raise
    used = next((picture.settings for picture in pictures if picture.settings is not None), settings)
    yield Result(pictures, used, time.perf_counter() - started)
