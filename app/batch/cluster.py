"""The rows of a batch on Ray (Moritz et al. 2018), an optional extra: here, or on the machines of a cluster.

A worker is an actor, which holds the models; a group of rows is a task. Each worker has one at a time, so nothing is sent
before it can be worked on. Ray's own ActorPool has a fixed number of actors and leaves the rows of a dead one to the
same one's next start; here any worker takes them, and workers come and go with the cluster.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.batch.engines import Answers
from app.batch.tools import Task, Tool
from pipelines.errors import BadInput, Message

ROOT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 1.0  # between two looks at how many workers there could be
CONNECT_SECONDS = 5.0  # that a cluster's address may take to answer
START_SECONDS = 300.0  # that the first worker may take
STORE_BYTES = 256_000_000  # of results on their way, where Ray is started here
TRIES = 4  # of a group whose worker dies


def check_ray() -> None:
    """BadInput when Ray is not installed."""
    if find_spec("ray") is None:
        raise BadInput("batch.no_ray")


class RowWorker:
    """What Ray makes an actor of: a studio on one device, and the tool."""

    def __init__(
        self, make: Callable[[str, dict[str, str]], Any], tool: Tool, pack: str, use: dict[str, str]
    ) -> None:
        self._make, self._tool, self._pack, self._use = make, tool, pack, use
        self._studio: Any = None

    def load(self) -> Message | None:
        """Load the models; says why that cannot be."""
        try:
            self._studio = self._make(self._pack, self._use)
            self._tool.load(self._studio)
        except BadInput as problem:
            return problem.message
        return None

    def work(self, asked: Sequence[Any]) -> list[Any]:
        """The answers to a group of rows."""
        return self._tool.work(self._studio, asked)


class OnRay:
    """Workers on Ray. `address` is a cluster's, "" starts Ray on this machine until `close`.

    `workers` is how many there may be; 0 for as many as the cluster has GPUs, or processors where it has none. A cluster's
    machines need the program in the same folder, with its packages and Ray. BadInput when no cluster answers.
    """

    def __init__(
        self,
        make: Callable[[str, dict[str, str]], Any],
        studio: Any,
        tool: Tool,
        address: str = "",
        workers: int = 0,
    ) -> None:
        self._ray = _started(address, workers)
        self._made = (make, tool, studio.pack, dict(getattr(studio, "use", {})))
        self._asked = workers
        self._free: list[Any] = []
        self._busy: dict[Any, tuple[Any, Sequence[Task]]] = {}  # by what Ray gives for a task
        self._coming: dict[Any, Any] = {}  # workers that load
        self._next_look = 0.0

    def load(self) -> None:
        """Begin the workers, and wait for the first. BadInput when its models are missing, or none can be begun."""
        self._grow()
        end = time.monotonic() + START_SECONDS
        while not self._free:
            self._settle(self._wait())
            self._grow()
            if time.monotonic() > end:
                raise BadInput("batch.no_ray_worker", seconds=int(START_SECONDS))

    def answers(self, groups: Iterable[Sequence[Task]]) -> Answers:
        """As Engine says. The rows of a worker that died are done again by any other."""
        ahead, again = iter(groups), deque[Sequence[Task]]()
        tries: dict[str, int] = {}
        while True:
            self._grow()
            while self._free and (group := again.popleft() if again else next(ahead, None)) is not None:
                worker = self._free.pop()
                task = worker.work.remote([one.asked for one in group])
                self._busy[task] = (worker, group)
            if not (self._busy or again):
                return
            for group, answers in self._settle(self._wait()):
                if answers is not None:
                    yield group, answers
                    continue
                key = group[0].key
                tries[key] = tries.get(key, 0) + 1
                if tries[key] < TRIES:
                    again.append(group)
                else:
                    yield group, [Message("jobs.lane_died")] * len(group)

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        for worker in (*self._free, *self._coming.values(), *(worker for worker, _ in self._busy.values())):
            with suppress(Exception):  # the cluster may be gone
                self._ray.kill(worker)
        self._free, self._coming, self._busy = [], {}, {}
        self._ray.shutdown()

    # ------------------------------------------------------------------------------------------------------- workers

    def _wait(self) -> list[Any]:
        """What is done now, or within LOOK_SECONDS."""
        waiting = [*self._busy, *self._coming]
        if not waiting:
            time.sleep(LOOK_SECONDS)
            return []
        return self._ray.wait(waiting, num_returns=1, timeout=LOOK_SECONDS)[0]

    def _settle(self, done: list[Any]) -> Iterator[tuple[Sequence[Task], list[Any] | None]]:
        """Take up what is done: each group with its answers, None when its worker died."""
        found: list[tuple[Sequence[Task], list[Any] | None]] = []
        for task in done:
            worker, group = self._busy.pop(task, (None, ()))
            worker = worker or self._coming.pop(task)
            try:
                answer = self._ray.get(task)
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError):
                self._next_look = 0.0  # another is begun at once
                if group:
                    found.append((group, None))
                continue
            if isinstance(answer, Message):
                raise BadInput.of(answer)
            self._free.append(worker)
            if group:
                found.append((group, answer))
        return iter(found)

    def _grow(self) -> None:
        """Begin workers until there are as many as are asked for, or as the cluster has room for now."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        resources = self._ray.cluster_resources()
        kind = "num_gpus" if resources.get("GPU", 0) >= 1 else "num_cpus"
        room = int(resources.get("GPU" if kind == "num_gpus" else "CPU", 1))
        there = len(self._free) + len(self._busy) + len(self._coming)
        for _ in range((self._asked or max(1, room)) - there):
            remote = self._ray.remote(**{kind: 1}, max_restarts=0)(RowWorker)
            worker = remote.remote(*self._made)
            self._coming[worker.load.remote()] = worker


def _started(address: str, workers: int) -> Any:
    """The package ray, connected to a cluster, or to a Ray that is started here."""
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is called unless the user asks for it
    # Ray gives its workers the lowest priority but four; beside other programs rows would then hardly be drawn.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray  # pyright: ignore[reportMissingImports]

    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    words: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}}
    if address:
        words["address"] = address
    else:
        words |= {"address": "local", "include_dashboard": False, "object_store_memory": STORE_BYTES}
        words |= {"num_cpus": workers} if workers else {}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **words)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput("batch.ray_unreachable", address=address or "local", reason=str(error)[:200]) from None
    return ray


def _check_answers(address: str) -> None:
    """BadInput at once when nothing listens at HOST:PORT. Ray itself waits for minutes. Other forms are Ray's to read."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BadInput("batch.ray_unreachable", address=address[:60], reason=str(error)[:200]) from None
