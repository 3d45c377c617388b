"""One device and its process: what is asked of it, and how its steps come back.

The number of threads that torch computes with belongs to a process, and an error of a GPU ends one; so each lane is a
process of its own. A lane's process waits after each step for the next word: to go on, to show its pictures, or to stop.
So a preview is drawn only when somebody looks, before the next step changes what it shows.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from pipelines.core.execute import carried
from pipelines.core.explain import explain
from pipelines.core.generators import finished
from pipelines.core.pipeline import Step
from pipelines.errors import BadInput, CannotSave, Stopped

GO, SHOW, STOP, LEAVE = "go", "show", "stop", "leave"  # what is said after a step

log = logging.getLogger(__name__)


class LaneDied(Exception):
    """The process of a lane ended in the middle of its work; the next work begins another."""


class LaneBusy(Exception):
    """Somebody else works on a lane, or waits for it."""


class Work(Protocol):
    """Something that can be pickled, to be done in a lane's process."""

    def steps(self, there: There) -> Generator[Step, None, Any]:
        """Do it: yields Steps, at which Stopped may be thrown in, and returns what can be pickled."""
        ...


@dataclass
class There:
    """What a lane's process holds: a studio, which `make(pack, use)` made for these models."""

    make: Callable[[str, dict[str, str]], Any]
    chosen: tuple[str, dict[str, str]] | None = None
    made: Any = None

    def studio(self, pack: str, use: dict[str, str]) -> Any:
        """The studio with these models; those of another choice are let go first. BadInput as Studio raises it."""
        if self.chosen != (pack, use):
            self.made, self.chosen = None, None
            self.made, self.chosen = self.make(pack, use), (pack, use)
        return self.made


@dataclass(frozen=True)
class Told:
    """A step on its way, without its pictures."""

    step: Step
    shows: bool  # whether it has some


@dataclass(frozen=True)
class Answer:
    """How the work ended."""

    value: Any = None
    problem: Exception | None = None


class Lane:
    """A device, and the process that works on it. It is begun by the first work, and again after it died.

    `device` is its name in torch. `make(pack, use)` is called in the process and gives its studio. `threads` is how many
    torch computes with there; None leaves torch's own choice. Any thread may ask for work; one does it at a time.
    """

    def __init__(
        self, device: str, make: Callable[[str, dict[str, str]], Any], threads: int | None = None
    ) -> None:
        self.device, self.threads = device, threads
        self._make = make
        self._turn = threading.Lock()  # held by whoever's work is done
        self._wanting = 0
        self._count = threading.Lock()
        self._process: Any = None
        self._line: Connection | None = None

    @property
    def free(self) -> bool:
        """Whether nobody works here or waits to."""
        return not (self._wanting or self._turn.locked())

    @property
    def pid(self) -> int | None:
        """The number of its process; None before the first work."""
        return self._process.pid if self._process is not None else None

    def work(self, work: Work, *, patient: bool = True) -> Generator[Step, None, Any]:
        """Wait for the lane's turn, then do `work` in its process: yields its Steps and returns what it returns.

        Stopped, thrown in, is handed on; closing the generator gives up at the next step. LaneDied when the process ends,
        LaneBusy when the lane is not free and this is not `patient`.
        """
        if patient:
            with self._count:
                self._wanting += 1
            try:
                self._turn.acquire()
            finally:
                with self._count:
                    self._wanting -= 1
        elif self._wanting or not self._turn.acquire(blocking=False):
            raise LaneBusy
        try:
            return (yield from self._talk(work))
        finally:
            self._turn.release()

    def do(self, work: Work) -> Any:
        """`work` to its end, for work whose steps nobody follows."""
        return finished(self.work(work))

    def close(self) -> None:
        """End the process; what it does is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.join(10)
        if self._line is not None:
            self._line.close()

    # -------------------------------------------------------------------------------------------------- its process

    def _talk(self, work: Work) -> Generator[Step, None, Any]:
        ended = False
        try:
            self._begin()
            self._say(work)
            while True:
                event = self._hear()
                if isinstance(event, Answer):
                    ended = True
                    if event.problem is not None:
                        raise event.problem
                    return event.value
                step = event.step
                word = GO
                try:
                    yield Step(
                        step.stage,
                        step.done,
                        step.total,
                        step.metrics,
                        self._picture if event.shows else None,
                    )
                except Stopped:
                    word = STOP
                self._say(word)
        except LaneDied:
            ended = True
            self.close()
            raise
        finally:
            if not ended:
                self._leave()

    def _leave(self) -> None:
        """Give up the work at its next step."""
        try:
            self._say(LEAVE)
            while not isinstance(self._hear(), Answer):
                pass
        except LaneDied:
            self.close()

    def _picture(self) -> torch.Tensor:
        self._say(SHOW)
        return torch.from_numpy(self._hear())

    def _say(self, word: Any) -> None:
        assert self._line is not None
        try:
            # Not `send`: torch has taught it to pass tensors as shared memory, which goes with the process.
            self._line.send_bytes(pickle.dumps(word))
        except (OSError, ValueError) as error:
            raise LaneDied(self.device) from error

    def _hear(self) -> Any:
        assert self._line is not None
        try:
            return self._line.recv()
        except (EOFError, OSError) as error:
            raise LaneDied(self.device) from error

    def _begin(self) -> None:
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        context = multiprocessing.get_context("spawn")
        self._line, far = context.Pipe()
        self._process = context.Process(
            target=serve, args=(far, self._make, self.threads), name=f"lane {self.device}", daemon=True
        )
        self._process.start()
        far.close()


def serve(line: Connection, make: Callable[[str, dict[str, str]], Any], threads: int | None) -> None:
    """The process of a lane: does what it hears on the line until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches both; the other process decides
    if threads is not None:
        torch.set_num_threads(threads)
    there = There(make)
    with suppress(EOFError, OSError):  # the other process closed the line, or is gone
        while True:
            work = line.recv()
            if not isinstance(work, str):  # else a word that came after the work had ended
                _say(line, _done(work, there, line))


def _done(work: Work, there: There, line: Connection) -> Answer:
    steps = work.steps(there)
    try:
        step = next(steps)
        while True:
            _say(line, Told(carried(step, with_picture=False), step.draw is not None))
            while (word := line.recv()) == SHOW:
                assert step.draw is not None
                with torch.no_grad():
                    _say(line, step.draw().float().cpu().numpy())
            if word == LEAVE:
                steps.close()
                return Answer()
            step = steps.throw(Stopped()) if word == STOP else next(steps)
    except StopIteration as end:
        return Answer(end.value)
    except (BadInput, CannotSave, Stopped) as problem:
        return Answer(problem=problem)
    except (EOFError, OSError) as problem:
        if isinstance(problem, (EOFError, ConnectionError)):
            raise
        return Answer(problem=BadInput.of(explain(problem)))
    except Exception as problem:  # its words may not survive the way
        log.exception("work on a lane failed")
        return Answer(problem=BadInput.of(explain(problem)))


def _say(line: Connection, value: Any) -> None:
    line.send_bytes(pickle.dumps(value))


def in_studio(device: str, pack: str, use: dict[str, str]) -> Any:
    """A Studio on a device, made where it is called: in a lane's process."""
    from pipelines.studio import Studio

    return Studio(pack, device, use)


def on_device(device: str) -> Callable[[str, dict[str, str]], Any]:
    """What makes a lane's studio on this device."""
    return partial(in_studio, device)
