"""The one training of a studio: starting, pausing and ending it, and letting it wait while a picture is made.

Everything is in files below `trainings` of the folder of pictures, so a studio that starts again finds it as it stands.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.trainings.order import Order
from app.trainings.progress import Curve, Progress
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.io.files import cannot_save, write_atomically
from pipelines.training.control import Control
from pipelines.training.queue import last_line, newest_figures
from pipelines.training.report import sheet_steps

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "pipelines.training.cli")
TICK_SECONDS = 0.25  # between two looks whether a picture is being made
# that a closing studio waits for a training; it saves itself and ends, also without the studio
CLOSING_SECONDS = 1.5

State = Literal["running", "paused", "ended", "failed"]


@dataclass(frozen=True)
class Standing:
    """How a training stands at one moment."""

    id: str
    order: Order
    network: str  # the one that is trained now, where it is all of a pack
    state: State
    began: float  # seconds since 1970
    stage: str = ""  # of a running one: "" while it reads its data, "train", "finishing"
    waits: bool = False  # for a picture that is being made
    asked: str = ""  # "pause" or "stop", until it does that
    step: int = 0
    total: int = 0
    seconds_left: float | None = None
    steps_a_second: float | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])
    sheets: tuple[int, ...] = ()  # steps
    part: tuple[int, int] = (1, 1)  # which of how many networks
    figures: dict[str, float] = field(default_factory=dict[str, float])  # the newest
    problem: Message | None = None  # when it failed
    last_words: str = ""  # of its log, when it failed

    share: float = 0.0  # of all that was asked for that is done


class Trainings:
    """The training in `folder`/trainings. `busy` says whether a picture is being made. Any thread may ask.

    `command` runs a training with the arguments of an Order.
    """

    def __init__(self, folder: Path, busy: Callable[[], bool], command: Sequence[str] = COMMAND) -> None:
        self.folder, self._busy, self._command = folder / "trainings", busy, tuple(command)
        self.state = self.folder / "state"
        self.data = self.state / "data"  # folders that were read, which other trainings use too
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._progress: Progress | None = None
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        self.id = self._newest()
        if self._alive():
            self._watch()

    # ------------------------------------------------------------------------------------------------------ steering

    def start(self, order: Order) -> str:
        """Begin a training: its id. BadInput when there is one that runs or is not over."""
        with self._lock:
            if (now := self.now()) is not None:
                if now.state in ("running", "paused"):
                    raise BadInput("training.one_at_a_time", network=now.order.network)
                self.forget()
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
            facts = {"began": time.time(), "order": order.to_dict()}
            write_atomically(self.folder / name / "training.json", json.dumps(facts).encode())
            self.id, self._progress = name, None
            self._run(order)
            return name

    def pause(self) -> None:
        """Have it save its state and end at its next step. Nothing for one that does not run."""
        with self._lock:
            if self._alive():
                self._control.ask("pause")

    def resume(self) -> None:
        """Go on with a training that was paused or failed, from its last saved state."""
        with self._lock:
            if (now := self.now()) is not None and now.state in ("paused", "failed"):
                self._control.clear()
                self._run(now.order)

    def stop(self) -> None:
        """Have it measure and keep what it learned, and end. One that does not run is started for that."""
        with self._lock:
            if (now := self.now()) is None or now.state == "ended":
                return
            if now.state != "running":
                self._control.clear()
            self._control.ask("stop")
            if now.state != "running":
                self._run(now.order)

    def forget(self) -> None:
        """Delete what a training that does not run has left but its pack. BadInput for one that runs."""
        with self._lock:
            if self._alive():
                raise BadInput("training.one_at_a_time", network=self._facts()[0].network)
            for place in (self._place, *self.state.glob("*")) if self.id else ():
                if place != self.data:
                    shutil.rmtree(place, ignore_errors=True)
            self.id, self._progress = self._newest(), None

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """The studio closes: a running training is asked to pause, and waited for a little."""
        with suppress(CannotSave):
            self.pause()
        self._closing.set()
        until = time.monotonic() + seconds
        while self._alive() and time.monotonic() < until:
            time.sleep(0.05)

    # ------------------------------------------------------------------------------------------------------- looking

    def now(self) -> Standing | None:
        """How the training stands, the last one when none runs; None when there is none."""
        with self._lock:
            if not self.id:
                return None
            try:
                order, began = self._facts()
            except (OSError, ValueError, TypeError, KeyError):  # deleted, or of another version
                return None
            control, alive = self._control, self._alive()
            ended = {} if alive else control.ended()
            progress = self._read()
            state = self._state(alive, ended)
            asked = control.asked() if alive else ""
            plan = order.plan()
            network = str(progress.facts.get("network", next(iter(plan))))
            return Standing(
                id=self.id,
                order=order,
                network=network,
                state=state,
                began=began,
                stage=progress.stage if alive else "",
                waits=alive and not asked and progress.stage == "train" and self._busy(),
                asked=asked,
                step=progress.step,
                total=progress.total,
                part=_part(plan, network),
                share=1.0 if state == "ended" else _share(plan, network, progress),
                seconds_left=_seconds_left(plan, network, progress) if alive else None,
                steps_a_second=1 / pace if alive and (pace := progress.seconds_a_step) else None,
                facts=progress.facts,
                curves=progress.curves,
                sheets=tuple(sheet_steps(Path(progress.folder))) if progress.folder else (),
                figures=progress.figures or self._newest_figures(progress),
                problem=self._problem(ended) if state == "failed" else None,
                last_words=self._last_words() if state == "failed" else "",
            )

    def needed(self) -> str:
        """The folder of pictures that a training which is not over learns from; "" where there is none."""
        now = self.now()
        return "" if now is None or now.state == "ended" else os.path.abspath(now.order.data)

    def sheet(self, training: str, step: int) -> Path:
        """The file of a sheet. BadInput when there is none."""
        with self._lock:
            if training and training == self.id:
                file = Path(self._read().folder) / "sheets" / f"{step:08}.png"
                if file.is_file():
                    return file
        raise BadInput("training.no_sheet", step=step)

    # ------------------------------------------------------------------------------------------------- under the lock

    @property
    def _place(self) -> Path:
        return self.folder / self.id

    @property
    def _control(self) -> Control:
        return Control(self._place)

    def _newest(self) -> str:
        """The id of the training that was begun last, "" when there is none."""
        with suppress(OSError):
            return max((file.parent.name for file in self.folder.glob("*/training.json")), default="")
        return ""

    def _facts(self) -> tuple[Order, float]:
        facts = json.loads((self._place / "training.json").read_text("utf-8"))
        return Order.from_dict(facts["order"]), float(facts["began"])

    def _alive(self) -> bool:
        """Whether the process runs: by its handle, or when another studio started it, by what it wrote."""
        if self._process is not None and self._process.poll() is None:
            return True
        return bool(self.id) and self._control.alive()

    def _state(self, alive: bool, ended: dict[str, Any]) -> State:
        if alive:
            return "running"
        how = ended.get("how")
        return "paused" if how == "paused" else "ended" if how in ("done", "kept") else "failed"

    def _problem(self, ended: dict[str, Any]) -> Message:
        """Why it failed; a process that was killed has not told it."""
        told = ended.get("problem")
        return Message.from_json(told) if told else Message("training.cut_off")

    def _newest_figures(self, progress: Progress) -> dict[str, float]:
        """Those of the last report in the middle of a training."""
        return newest_figures(Path(progress.folder) / "figures.jsonl").get("figures", {})

    def _last_words(self) -> str:
        with suppress(OSError):
            return last_line(self._place / "log.txt")
        return ""

    def _read(self) -> Progress:
        if self._progress is None:
            self._progress = Progress(self._control.progress)
        self._progress.update()
        return self._progress

    def _run(self, order: Order) -> None:
        """Start the process; what it says goes into log.txt."""
        self._read().begin()
        arguments = order.arguments(self.state, self._place)
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        try:
            with (self._place / "log.txt").open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command, *arguments],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    creationflags=flags,
                )
        except OSError as error:
            raise cannot_save(self._place / "log.txt", error) from error
        self._watch()

    def _watch(self) -> None:
        """See to it that a training waits while a picture is made, for as long as it lives."""
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(target=self._look, daemon=True, name="training")
            self._watcher.start()

    def _look(self) -> None:
        while not self._closing.wait(TICK_SECONDS):
            with self._lock:
                if not self._alive():
                    self._watcher = None
                    return
                self._control.lease(self._busy())


def _part(plan: dict[str, float], network: str) -> tuple[int, int]:
    """Which of a plan's networks it is, from 1, and how many there are."""
    names = list(plan)
    return (names.index(network) + 1 if network in names else 1), len(names)


def _share(plan: dict[str, float], network: str, progress: Progress) -> float:
    """How much of a plan's minutes is spent, in [0, 1]."""
    place, _ = _part(plan, network)
    done = progress.step / progress.total if progress.total else 0.0
    minutes = sum(list(plan.values())[: place - 1]) + plan.get(network, 0.0) * min(1.0, done)
    return minutes / sum(plan.values())


def _seconds_left(plan: dict[str, float], network: str, progress: Progress) -> float | None:
    """Until all of a plan is trained; None while nothing is known."""
    place, _ = _part(plan, network)
    left = progress.seconds_left
    return None if left is None else left + 60 * sum(list(plan.values())[place:])
