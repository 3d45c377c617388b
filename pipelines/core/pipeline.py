"""What every pipeline does: it takes Settings, yields Steps while it works and returns Pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from pipelines.core.settings import Settings
from pipelines.io.images import to_pil

if TYPE_CHECKING:
    from pipelines.core.candidates import Batch
    from pipelines.core.journal import Journal
    from pipelines.io.video import Timelapse


@dataclass(frozen=True)
class Step:
    """One unit of work that is done.

    `draw` returns the pictures at this step as an (n, 3, h, w) tensor in [-1, 1], or is None when there are none. It reads
    the run's live state, so it must be called before the next step. It may take as long as a step.
    """

    stage: str  # what is being done, in a word or two
    done: int  # of `total`, in this stage
    total: int
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    draw: Callable[[], Tensor] | None = None

    def preview(self) -> list[Image.Image]:
        """The pictures at this step as images. Empty when there are none."""
        return [] if self.draw is None else to_pil(self.draw())


@dataclass(frozen=True)
class Picture:
    """One finished picture.

    `score` is its cosine with the prompt, in [-1, 1], by the CLIP that ranks in this pipeline. `settings` are those that
    make the picture again, where they differ from those asked for, as after a run that was stopped early, or in a sheet.
    `models` are those that made it, as `Studio.models` gives them, where they are not the pipeline's own.
    """

    image: Image.Image
    seed: int
    score: float | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])  # of the pipeline's own; JSON values only
    settings: Settings | None = None
    models: dict[str, dict[str, str]] | None = None


@dataclass(frozen=True)
class Result:
    """The end of a run: its pictures, best first, the settings that were used, and the seconds it took.

    `device` is where it ran, where that is not the studio's device, else empty. `environment` is what `environment_of`
    gave in the process that ran it.
    """

    pictures: list[Picture]
    settings: Settings
    seconds: float
    device: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])


S = TypeVar("S", bound=Settings)


class Pipeline(ABC, Generic[S]):
    """A dataclass whose fields are models. Calling it with Settings yields Steps and returns Pictures, best first.

    `with_models`, which a Studio sets, gives the same pipeline with other models in parts of the pack, and what its
    records say of its models.
    """

    Settings: ClassVar[type[Settings]]
    with_models: Callable[[dict[str, str]], tuple[Pipeline[Any], dict[str, dict[str, str]]]] | None = None

    def prepare(self, settings: S) -> S:
        """The settings with pictures that are given by path read in as data URIs, so that a record can be replayed.

        BadInput when a picture cannot be read.
        """
        return settings

    @abstractmethod
    def __call__(self, settings: S) -> Generator[Step, None, list[Picture]]:
        """Yield Steps while working on prepared settings, and return the Pictures, best first."""


class Resumable(Pipeline[S]):
    """A pipeline that saves snapshots in a journal, goes on from the last one, and has pictures when it is stopped."""

    @abstractmethod
    def __call__(self, settings: S, journal: Journal | None = None) -> Generator[Step, None, list[Picture]]:
        """Yield Steps while working on prepared settings, and return the Pictures, best first.

        When Stopped is thrown in at a yield, the run ends and returns its pictures so far. BadInput when the journal
        belongs to another run.
        """


# ------------------------------------------------------------------------------------------------ what some can do


@runtime_checkable
class HasTimelapse(Protocol):
    """A Resumable pipeline that makes a film of a journal."""

    def timelapse(self, settings: Any, journal: Journal) -> Timelapse:
        """The pictures of all steps in the journal, drawn while they are taken."""
        ...


@runtime_checkable
class HasStepImages(Protocol):
    """A Resumable pipeline that draws the picture of any snapshot in its journal."""

    def image_at(self, settings: Any, journal: Journal, step: int) -> Image.Image:
        """The picture at `step`, which is one of `journal.steps()`."""
        ...


@runtime_checkable
class Restyles(Protocol):
    """A pipeline that restyles a film frame by frame."""

    def restyle(self, settings: Any, frame: Image.Image, before: Picture | None) -> Settings:
        """The settings for the next frame of a film; `before` is the result of the frame before."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Candidates that were drawn together and are not ranked yet. It can be pickled once `vectors` are on the CPU.

    `vectors` (n, d) are what CLIP saw; `facts` are those of each picture. `images` are the pictures, or empty where they
    are made from `tokens` (n, ...) when some are chosen. `guesses` (n, d) are what CLIP saw on the way, if it looked.
    `parts` (n,) are the mean cosines of a picture's things with their own words, where they were drawn alone.
    """

    seeds: list[int]
    facts: list[dict[str, Any]]
    vectors: Tensor
    images: list[Image.Image] = field(default_factory=list[Image.Image])
    tokens: Tensor | None = None
    guesses: Tensor | None = None
    parts: Tensor | None = None

    def on(self, device: torch.device | str) -> Drawn:
        """The same with its tensors on another device."""
        names = ("tokens", "guesses", "parts")
        moved = {name: x.to(device) for name in names if (x := getattr(self, name)) is not None}
        return replace(self, vectors=self.vectors.to(device), **moved)


class Splits(Pipeline[S]):
    """A pipeline whose candidates may be drawn in several places, batch by batch, and ranked together in one.

    Batches have one fixed size, so that a candidate does not depend on the other candidates of its batch.
    """

    @torch.no_grad()
    def __call__(self, settings: S) -> Generator[Step, None, list[Picture]]:
        """Draw all batches of prepared settings, and choose: yields Steps and returns the best pictures, best first."""
        drawn = yield from self.draw(settings, range(len(self.batches(settings))))
        return self.choose(settings, drawn)

    @abstractmethod
    def batches(self, settings: S) -> list[Batch]:
        """The batches that prepared settings ask for."""

    @abstractmethod
    def draw(self, settings: S, chosen: Sequence[int]) -> Generator[Step, None, list[Drawn]]:
        """Draw the batches `chosen`, numbers from 0. What a batch gives does not depend on where the others are drawn."""

    @abstractmethod
    def choose(self, settings: S, drawn: Sequence[Drawn]) -> list[Picture]:
        """The best pictures of all batches in their order, best first."""


class Savable(Protocol):
    """An object that can be saved as a file."""

    def save(self, path: str) -> None:
        """Write the file. CannotSave when it cannot be written."""
        ...


@runtime_checkable
class LearnsDirection(Protocol):
    """A Resumable pipeline whose journal holds a direction that other runs can use."""

    @staticmethod
    def check_direction(settings: Any, path: str) -> None:
        """BadInput when a run with these settings learns no direction, or none can be saved as `path`."""
        ...

    def direction(self, settings: Any, journal: Journal) -> Savable:
        """The direction that the run with this journal learned."""
        ...


class StudioLike(Protocol):
    """What a Studio offers to those who run pipelines: the pack in use and its pipelines with their models."""

    @property
    def pack(self) -> str:
        """The name of the pack."""
        ...

    @property
    def device(self) -> str:
        """The device's name in torch, such as "cpu" or "cuda:0"."""
        ...

    def pipeline(self, name: str) -> Pipeline[Any]:
        """The pipeline of this name with its models loaded. BadInput when it cannot be loaded."""
        ...

    def models(self, name: str) -> dict[str, dict[str, str]]:
        """The models of a pipeline: role -> {"name", "sha256"}."""
        ...
