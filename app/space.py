"""On a Hugging Face Space: which kind of machine it is, and how a run gets a GPU where one is lent call by call (ZeroGPU).

On ZeroGPU the studio itself stays on the processor. A run that needs the GPU is done in a process that the platform
forks from this one and gives a GPU to, for a number of seconds that is asked for beforehand and taken from the daily
quota of the visitor whose request asked. What that process changes in memory is lost: steps and pictures come back
pickled, and a long run is done in slices, each of which goes on from the journal of the one before.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from pipelines.core.execute import carried, run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Pipeline, Result, Step
from pipelines.core.settings import Settings
from pipelines.errors import BadInput, CannotSave, Message, Stopped
from pipelines.io.files import write_atomically
from pipelines.weights import memory

Kind = Literal["", "cpu", "gpu", "zero"]
Events = Generator[Step | Result, None, None]

START = 3.0  # seconds of a call that are none of the run's: the fork, CUDA's beginning
SLICE = 25.0  # seconds asked for at once by a run that is done in slices
SLICED = ("optimize", "guide")  # those that can stop at any step and lose nothing
PREVIEW_SECONDS = 1.0  # between two previews: drawing them takes GPU time
# Seconds a whole run may take when nothing is known, by its settings; measured runs correct it.
FIRST_ESTIMATES: dict[str, Callable[[Any], float]] = {
    "generate": lambda settings: 20 + 0.5 * settings.candidates,
    "diffuse": lambda settings: (
        5 + 0.2 * (settings.candidates or 4) * (settings.steps or 30) * _windows(settings)
    ),
    "edit": lambda settings: (
        10
        + 0.2 * settings.step_count() * (1 + settings.inversion_iterations + settings.strip)
        + settings.update_count()
    ),
    "guide": lambda settings: 5 + 0.3 * settings.length(),
    "optimize": lambda settings: 0.2 * settings.timeline()[-1][1].steps,
}

log = logging.getLogger(__name__)


def kind() -> Kind:
    """The kind of Space that this process runs on; "" anywhere else."""
    if "SPACE_ID" not in os.environ:
        return ""
    if os.environ.get("SPACES_ZERO_GPU", "").lower() in (
        "1",
        "t",
        "true",
    ):  # as the package `spaces` reads it
        return "zero"
    return "cpu" if os.environ.get("ACCELERATOR", "none").lower() in ("", "none", "cpu") else "gpu"


def free_memory() -> dict[str, int]:
    """Bytes that are free now. On ZeroGPU without the GPU: asking for it outside a run's process ends in an error."""
    return memory.free_memory(gpu=kind() != "zero")


def open_studio(
    pack: str, device: str, folder: Path, use: dict[str, str] | None
) -> tuple[Any, Callable[..., Events]]:
    """The studio of this place, and what gives the events of a run. BadInput where ZeroGPU cannot work."""
    from pipelines.studio import Studio

    if kind() == "zero":
        spaces = spaces_package()  # before anything touches CUDA
        zero = ZeroGpu(Studio(pack, "cpu", use), spaces, folder)
        return zero.studio, zero.run
    if kind() == "gpu" and not torch.cuda.is_available():
        log.warning(
            "this Space has the GPU %s and torch %s cannot use it; deploy it again with --hardware",
            os.environ["ACCELERATOR"],
            torch.__version__,
        )
    return Studio(pack, device, use), run


def spaces_package() -> Any:
    """The platform's package `spaces`, which from now on stands between torch and CUDA. BadInput when it cannot work."""
    if torch.version.cuda is None:
        raise BadInput("space.torch_without_cuda", torch=torch.__version__)
    try:
        return importlib.import_module("spaces")
    except ImportError:
        raise BadInput("space.package_missing") from None


@dataclass(frozen=True)
class Call:
    """What is asked of the GPU's process; it is pickled on its way there."""

    pipeline: str
    settings: Settings
    pack: str
    journal: Path | None
    seconds: int  # asked for
    pause_after: float | None = None  # seconds after which it stops at the next step, to be gone on with


@dataclass(frozen=True)
class Done:
    """What the GPU's process has done: to the end, or until it paused."""

    result: Result
    paused: bool
    seconds: float


class ZeroGpu:
    """Runs on a GPU that the platform lends for some seconds, asked for by the package `spaces`.

    `studio` is on the processor. `folder` keeps how long runs took. `device` is the GPU in the platform's process.
    """

    def __init__(self, studio: Any, spaces: Any, folder: Path, device: str = "cuda") -> None:
        self.studio = studio
        self.device = device
        self.paces = Paces(folder / "gpu-paces.json")
        # the studio on the GPU, in the platform's process only, which may serve several calls
        self._there: Any = None
        self._call = spaces.GPU(self._work, duration=lambda call: call.seconds)

    def run(self, pipeline: Pipeline[Any], settings: Settings, journal: Journal | None = None) -> Events:
        """The events of a run, as `core.execute.run` gives them. BadInput, in a sentence, when a GPU is refused.

        The tiny pack runs here, on the processor, and takes nobody's quota.
        """
        name = _name_of(pipeline)
        if not self._needs_gpu(name):
            yield from run(pipeline, settings, journal)
            return
        _check_visitor()
        folder = journal.folder if journal else None
        if folder:
            _stop_file(folder).unlink(missing_ok=True)
        seconds = 0.0
        while True:
            left = _left(name, settings, journal)
            call = self._asked(name, settings, folder, left)
            done = yield from self._follow(call)
            seconds += done.seconds
            stopped = folder is not None and _stop_file(folder).exists()
            now_left = _left(name, settings, journal) if done.paused else 0.0
            if done.paused and now_left >= left:
                raise RuntimeError(f"{call.seconds} s on the GPU made no step")
            if left > now_left and not stopped:
                self.paces.note(
                    name, call.pack, done.seconds / (_estimate(name, settings) * (left - now_left))
                )
            if stopped or not done.paused:
                yield replace(done.result, seconds=seconds, device=self.device)
                return

    def _needs_gpu(self, name: str) -> bool:
        from pipelines.weights.catalog import checkpoint_of, parts

        names = parts(self.studio.pack, name, self.studio.use).values()
        return any(checkpoint_of(model).pack != "tiny" for model in names)

    def _asked(self, name: str, settings: Settings, journal: Path | None, left: float) -> Call:
        """As few seconds as it should take: what is asked for is checked against the quota that the visitor has left."""
        pack = self.studio.pack
        seconds = START + _estimate(name, settings) * left * self.paces.factor(name, pack)
        if name not in SLICED:
            return Call(name, settings, pack, journal, math.ceil(seconds))
        asked = math.ceil(min(seconds, SLICE))
        return Call(name, settings, pack, journal, asked, asked - START)

    def _follow(self, call: Call) -> Generator[Step, None, Done]:
        """The steps of one call; returns how it ended. Stopped, thrown in, ends the other process with what it has."""
        answer: Any = None
        stopping = False
        events = self._call(call)
        try:
            for event in events:
                if not isinstance(event, Step):
                    answer = event
                elif not stopping:
                    try:
                        yield event
                    except Stopped:
                        if call.journal is None:
                            raise
                        stopping = True
                        _stop_file(call.journal).touch()
        except Exception as problem:
            if message := refusal(problem, call.seconds):
                raise BadInput.of(message) from None
            raise
        finally:
            events.close()
        if isinstance(answer, Exception):
            raise answer
        return answer

    # ------------------------------------------------------------------------------------- in the platform's process

    def _work(self, call: Call) -> Generator[Step | Done | Exception, None, None]:
        """A run, or a slice of one, on the GPU. Everything that is yielded can be pickled and is the processor's."""
        begun = time.monotonic()
        draw_next = 0.0
        stop = _stop_file(call.journal) if call.journal else None
        try:
            pipeline = self._studio_there(call).pipeline(call.pipeline)
            journal = Journal(call.journal) if call.journal else None
            with closing(run(pipeline, call.settings, journal)) as events:
                for event in events:
                    if isinstance(event, Result):
                        yield Done(event, False, time.monotonic() - begun)
                        return
                    drawn = time.monotonic() >= draw_next
                    yield carried(event, with_picture=drawn)
                    draw_next = time.monotonic() + PREVIEW_SECONDS if drawn and event.draw else draw_next
                    stopped = stop is not None and stop.exists()
                    late = call.pause_after is not None and time.monotonic() - begun > call.pause_after
                    if stopped or (late and event.done < event.total):
                        kept = events.throw(Stopped())
                        assert isinstance(kept, Result)
                        yield Done(kept, not stopped, time.monotonic() - begun)
                        return
        except (BadInput, CannotSave, Stopped) as problem:  # others lose their words on the way
            yield problem

    def _studio_there(self, call: Call) -> Any:
        if self._there is None:
            self._there = self.studio.on(self.device)
        if self._there.pack != call.pack:  # this process was forked before the pack was changed
            self._there.switch(call.pack)
        return self._there


class Paces:
    """How long runs took, as multiples of their first estimate, of each pipeline and pack; kept in a file."""

    KEPT = 8  # of the newest runs of a kind
    MARGIN = 1.25

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            contents = json.loads(path.read_text("utf-8"))
            self._found = {str(kind): [float(pace) for pace in paces] for kind, paces in contents.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._found: dict[
                str, list[float]
            ] = {}  # nothing measured yet, or nothing readable: measured again

    def factor(self, pipeline: str, pack: str) -> float:
        """What to multiply an estimate by: by the slowest of the newest runs, and a margin; 1 when nothing is known."""
        paces = self._found.get(f"{pipeline} {pack}")
        return max(paces) * self.MARGIN if paces else 1.0

    def note(self, pipeline: str, pack: str, pace: float) -> None:
        """A run took `pace` times its first estimate. On a full disk only this process knows it."""
        of_kind = self._found.setdefault(f"{pipeline} {pack}", [])
        of_kind.append(pace)
        del of_kind[: -self.KEPT]
        try:
            write_atomically(self.path, json.dumps(self._found).encode())
        except CannotSave as problem:
            log.warning("%s", problem)


def refusal(problem: Exception, seconds: int) -> Message | None:
    """Why the platform gave no GPU for `seconds`, or took it away; None when that is not what happened."""
    from gradio import Error

    if not isinstance(problem, Error):
        return None
    text = str(problem.message)
    if match := re.search(r"\((\d+)s requested vs\. (-?\d+)s left\)\. Try again in (.+?)\.(?:\s|$)", text):
        left = max(int(match[2]), 0)
        return Message("space.quota", {"seconds": int(match[1]), "left": left, "wait": match[3]})
    for words, message in (
        ("larger than the maximum", Message("space.too_much", {"seconds": seconds})),
        ("reached its GPU limit", Message("space.sign_in", {"seconds": seconds})),
        ("runs limit", Message("space.tasks_used_up", {"seconds": seconds})),
        ("allocated to running tasks", Message("space.set_aside", {"seconds": seconds})),
        ("Expired ZeroGPU proxy token", Message("space.pass_ran_out", {"seconds": seconds})),
        ("No GPU was available", Message("space.no_gpu_free", {"seconds": seconds})),
        ("GPU task aborted", Message("space.taken_away", {"seconds": seconds})),
    ):
        if words in text:
            return message
    if getattr(problem, "title", "") == "ZeroGPU worker error":  # `text` is the name of an exception's class
        return Message("core.broke", {"kind": text})
    return Message("space.refused", {"seconds": seconds, "reason": " ".join(text.split())[:200]})


def _windows(settings: Any) -> float:
    """About how many windows of 512 x 512, overlapping by half, a canvas of Diffuse has; twice a picture where not set."""
    unset = 1024 if settings.place != "fill" else 512
    sides = ((settings.width or unset), (settings.height or unset))
    return math.prod(max(2 * side / 512 - 1, 1) for side in sides)


def _estimate(name: str, settings: Settings) -> float:
    return FIRST_ESTIMATES[name](settings)


def _left(name: str, settings: Any, journal: Journal | None) -> float:
    """The share of a run that its journal does not hold yet."""
    if name not in SLICED or journal is None:
        return 1.0
    return 1 - max(journal.steps(), default=0) / settings.timeline()[-1][1].steps


def _stop_file(journal: Path) -> Path:
    """Its being there asks the other process to stop."""
    return journal / "stop"


def _name_of(pipeline: Pipeline[Any]) -> str:
    from pipelines.studio import PIPELINES

    return next(name for name, pipeline_type in PIPELINES.items() if pipeline_type is type(pipeline))


def _check_visitor() -> None:
    """BadInput when nobody is there to whom GPU time could be charged."""
    from gradio.context import LocalContext

    if LocalContext.request.get(None) is None:
        raise BadInput("space.no_visitor")
