"""Stands where the package `spaces` stands on a ZeroGPU Space, with the same habits: durations checked against what a
visitor has left, real forked processes that serve several calls, pickled ways in and out, errors without their words."""

from __future__ import annotations

import contextlib
import inspect
import io
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import torch
from gradio.context import LocalContext

FORK = multiprocessing.get_context("fork")
FACTOR = 1.5  # what is asked for counts so many times
DEFAULT = 60


class _Pickler(pickle.Pickler):
    """Refuses tensors: on the platform they are the GPU's, and end with the process."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            raise pickle.PicklingError("a tensor cannot leave the process")
        return NotImplemented


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


@dataclass
class Asked:
    """One call that the platform was asked for."""

    token: str | None
    seconds: float  # as asked for
    granted: bool


class _Worker:
    """A forked process that does call after call, each in a thread of its own."""

    def __init__(self, task: Callable[..., Any]) -> None:
        self.calls, self.answers, self.stop = FORK.Pipe(), FORK.Pipe(False), FORK.Event()
        self.process = FORK.Process(target=self._serve, args=(task,), daemon=True)
        self.process.start()
        self.answers[1].close()  # the child has it

    def _serve(self, task: Callable[..., Any]) -> None:
        while True:
            arguments = pickle.loads(self.calls[0].recv_bytes())  # noqa: S301
            self.stop.clear()
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._iterate, task, arguments).result()
            self._answer("end", None)

    def _iterate(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        events = task(*arguments)
        try:
            for event in events:
                if self.stop.is_set():
                    events.close()
                    return
                self._answer("value", event)
        except gr.Error as problem:
            self._answer("refused", (problem.message, problem.title))
        except Exception as problem:
            self._answer("refused", (type(problem).__name__, "ZeroGPU worker error"))

    def _answer(self, what: str, value: Any) -> None:
        self.answers[1].send_bytes(_pickled((what, value)))


@dataclass
class ZeroGpuPlatform:
    """`left`: seconds of quota by token; a visitor who is not there yet has 120."""

    left: dict[str, float] = field(default_factory=dict)
    refusals: dict[int, str] = field(default_factory=dict)  # number of a call, from 0 -> why it is refused
    asked: list[Asked] = field(default_factory=list)
    decorated: list[Callable[..., Any]] = field(default_factory=list)
    processes: set[int] = field(default_factory=set)  # that were forked
    killed: int = 0
    reuse: bool = True
    _worker: _Worker | None = None

    def GPU(self, task: Callable[..., Any] | None = None, *, duration: Any = DEFAULT) -> Any:
        if task is None:
            return lambda task: self.GPU(task, duration=duration)
        assert inspect.isgeneratorfunction(task)

        def handler(*arguments: Any) -> Generator[Any, None, None]:
            seconds = duration(*arguments) if callable(duration) else duration
            token = self._schedule(seconds)
            begun = time.monotonic()
            try:
                yield from self._run(task, arguments, seconds * FACTOR)
            finally:
                self.left[token] -= time.monotonic() - begun

        self.decorated.append(handler)
        return handler

    def close(self) -> None:
        if self._worker is not None:
            self._worker.process.kill()
            self._worker.process.join()

    def _schedule(self, seconds: float) -> str:
        assert isinstance(seconds, int) and seconds > 0
        request = LocalContext.request.get(None)
        token = None if request is None else request.headers.get("x-ip-token")
        problem = None
        if reason := self.refusals.get(len(self.asked)):
            problem = gr.Error(reason, title="ZeroGPU client error")
        elif token is None:
            problem = gr.Error("Space app has reached its GPU limit. Try re-running outside of examples")
        elif (left := self.left.setdefault(token, 120)) < round(seconds * FACTOR):
            problem = gr.Error(
                f"You have exceeded your free ZeroGPU quota ({round(seconds * FACTOR)}s requested vs. {left:.0f}s left). "
                "Try again in 3:12:00. Subscribe to Hugging Face PRO",
                title="ZeroGPU quota exceeded",
            )
        self.asked.append(Asked(token, seconds, problem is None))
        if problem is not None:
            raise problem
        return token or ""

    def _run(
        self, task: Callable[..., Any], arguments: tuple[Any, ...], limit: float
    ) -> Generator[Any, None, None]:
        worker = self._worker if self.reuse and self._worker else _Worker(task)
        self._worker = worker
        self.processes.add(worker.process.pid or 0)
        worker.calls[1].send_bytes(_pickled(arguments))
        timer = threading.Timer(limit, self._kill, (worker,))
        timer.start()
        try:
            while (answer := self._next(worker))[0] != "end":
                if answer[0] == "refused":
                    self._drain(worker)
                    raise gr.Error(answer[1][0], title=answer[1][1], print_exception=False)
                try:
                    yield answer[1]
                except GeneratorExit:
                    worker.stop.set()
                    self._drain(worker)
                    raise
                except BaseException as problem:
                    raise AssertionError("what is thrown in does not reach the other process") from problem
        finally:
            timer.cancel()

    def _next(self, worker: _Worker) -> tuple[str, Any]:
        try:
            return pickle.loads(worker.answers[0].recv_bytes())  # noqa: S301
        except EOFError:
            self._worker = None
            raise gr.Error("GPU task aborted", title="ZeroGPU worker error") from None

    def _drain(self, worker: _Worker) -> None:
        """Until the process is ready for the next call."""
        with contextlib.suppress(gr.Error):
            while self._next(worker)[0] != "end":
                pass

    def _kill(self, worker: _Worker) -> None:
        self.killed += 1
        os.kill(worker.process.pid or 0, 9)
