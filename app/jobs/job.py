"""What a job is: its facts as they are shown, and what the server keeps of it beside them."""

from __future__ import annotations

import contextvars
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from pipelines.errors import Message

State = Literal["queued", "running", "done", "stopped", "failed", "interrupted"]
FINISHED = ("done", "stopped", "failed", "interrupted")


@dataclass(frozen=True)
class Job:
    """How a job stands at one moment."""

    id: str
    session: str
    pipeline: str
    settings: dict[str, Any]
    state: State
    position: int = 0  # in the queue: 1 is next; 0 when it is not waiting
    eta_seconds: float | None = None  # until it is finished; None when nothing is known or nothing remains
    stage: str = ""
    done: int = 0  # steps of this stage
    total: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    pictures: list[dict[str, Any]] = field(default_factory=list)  # best first: path, score, seed, rank, facts
    problem: Message | None = None  # when it failed
    created: float = 0.0  # seconds since 1970, as are the next two
    started: float | None = None
    finished: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # {"load", "run"} once done
    preview_version: int = 0  # grows with each preview drawn

    @property
    def is_over(self) -> bool:
        return self.state in FINISHED

    @property
    def error(self) -> str:
        """The problem in English; "" without one."""
        return str(self.problem or "")

    def with_files(self) -> Job:
        """The job without pictures whose files somebody has deleted."""
        return replace(
            self, pictures=[picture for picture in self.pictures if Path(picture["path"]).is_file()]
        )


@dataclass
class ActiveJob:
    """What a job has besides its snapshot while this process knows it. Touched under the queue's lock."""

    job: Job
    sequence: int  # order of arrival
    turn: str = ""  # whose turn it takes: a visitor's session, or all programs at one address
    party: str = ""  # with whom it shares its part of the queue; "" where nobody's address is known
    context: contextvars.Context = field(default_factory=contextvars.copy_context)  # of who asked for it
    stop: bool = False
    given_back: int = 0  # how often the lane that ran it died
    asked: float = -1e9  # when somebody last asked for a preview, monotonic seconds
    preview: list[Image.Image] | None = None
    draw_next: float = 0.0  # the earliest time for the next preview, monotonic seconds
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=24))  # of the present stage
    last_step: float = 0.0  # monotonic
