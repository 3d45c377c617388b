"""A pipeline of no models, for tests of everything around pipelines: it keeps the contract and can misbehave on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipelines.core.pipeline import Picture, Pipeline, Step
from pipelines.core.settings import Settings, knob
from pipelines.errors import BadInput
from pipelines.io.images import to_pil


@dataclass(frozen=True, kw_only=True)
class FakeSettings(Settings):
    candidates: int = knob(3, 1, 64, help="how many pictures are drawn")
    keep: int = knob(2, 1, 64, help="how many of them are kept")
    steps: int = knob(4, 1, 100_000, help="steps of drawing", advanced=True)
    guidance: float = knob(1.5, 0.0, 10.0, help="how closely to follow the prompt", advanced=True)
    mirror: bool = knob(False, help="mirror the pictures")
    style: str = knob("plain", help="kind of noise", choices=("plain", "soft"))
    image: str = knob("", help="a picture to begin from", kind="picture")


@dataclass
class FakePipeline(Pipeline[FakeSettings]):
    """Noise from the seed. Prompts choose how it goes: "slow", "crash", "memory", "disk", "refuse", "wait"."""

    Settings: ClassVar[type[Settings]] = FakeSettings
    size: int = 16
    go: threading.Event = field(default_factory=threading.Event)  # "wait" waits for it at its second step
    closed: list[str] = field(default_factory=list)  # prompts whose generator has been closed early
    drawn_on: list[str] = field(default_factory=list)  # names of the threads that drew previews
    ran: list[str] = field(default_factory=list)  # prompts in the order in which they ran

    @torch.no_grad()
    def __call__(self, settings: FakeSettings) -> Generator[Step, None, list[Picture]]:
        self.ran.append(settings.prompt)
        seeds = [(settings.seed + index) % 2**32 for index in range(settings.candidates)]
        pictures = torch.zeros(len(seeds), 3, self.size, self.size)
        noise = torch.stack([self._noise(seed) for seed in seeds])
        finished = False

        def draw() -> Tensor:
            assert not finished, "a preview was drawn after its step"
            self.drawn_on.append(threading.current_thread().name)
            return pictures

        try:
            for done in range(1, settings.steps + 1):
                pictures = noise * done / settings.steps
                self._misbehave(settings.prompt, done)
                yield Step("draw", done, settings.steps, {"level": done / settings.steps}, draw)
        except GeneratorExit:
            self.closed.append(settings.prompt)
            raise
        finished = True
        scores = noise.mean((1, 2, 3)).tolist()
        yield Step("rank", 1, 1)
        if settings.mirror:
            pictures = pictures.flip(3)
        made = [
            Picture(image, seed, score, {"twin": False})
            for image, seed, score in zip(to_pil(pictures), seeds, scores, strict=True)
        ]
        return sorted(made, key=lambda one: -(one.score or 0))[: settings.keep]

    def _noise(self, seed: int) -> Tensor:
        return torch.rand(3, self.size, self.size, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    def _misbehave(self, prompt: str, done: int) -> None:
        if done < 2:
            return
        if prompt == "slow":
            time.sleep(0.02)
        elif prompt == "crash":
            torch.set_grad_enabled(False)
            raise ZeroDivisionError("secret detail")
        elif prompt == "memory":
            raise MemoryError
        elif prompt == "disk":
            raise OSError(28, "No space left on device", "/somewhere/cat.png")
        elif prompt == "refuse":
            raise BadInput("the moon is not available; try a star")
        elif prompt == "wait":
            self.go.wait(20)


class FakeStudio:
    """Stands where Studio stands: one fake pipeline, made once."""

    pack = "fake"
    device = "cpu"

    def __init__(self) -> None:
        self.fake = FakePipeline()

    def pipeline(self, name: str) -> Pipeline[Any]:
        assert name == "fake"
        return self.fake

    def models(self, name: str) -> dict[str, dict[str, str]]:
        return {"painter": {"name": f"{name} painter", "sha256": "ab" * 32}}


FAKES: dict[str, type[Pipeline[Any]]] = {"fake": FakePipeline}
