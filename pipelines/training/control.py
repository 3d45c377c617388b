"""What a training and the studio that watches it tell each other: files in one folder, looked at between two steps.

Files, not signals: they mean the same on every system, a training asked to pause saves first, and a studio that was
started again finds the training that another one left. Waiting is a lease that the studio renews, so a studio that dies
holds up nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from pipelines.core.explain import explain
from pipelines.core.pipeline import Step
from pipelines.errors import CannotSave, Message, Stopped
from pipelines.io.files import write_atomically
from pipelines.training.holding import held, holder
from pipelines.training.state import State

Ending = Literal["done", "kept", "paused", "failed"]

LEASE_SECONDS = 5.0  # that a training waits after the lease was renewed
LOOK_SECONDS = 0.1  # between two looks of one that waits
TOLD_SECONDS = 1.0  # between two lines about its steps


class Control:
    """The folder. The training calls the first methods, the studio the others."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder = Path(folder)
        self.progress, self._ending = folder / "progress.jsonl", folder / "ended.json"
        self._lease, self._asked = folder / "wait", folder / "asked"
        self._told = 0.0
        self._begun = time.monotonic()  # moved on by what was waited

    # ------------------------------------------------------------------------------------------------ the training

    @contextmanager
    def held(self) -> Generator[None]:
        """This process is the training, and how it ends is written: done, kept, paused, or failed and why.

        Inside, Stopped ends it as it was asked for. BadInput when another process that is alive trains here.
        """
        with held(self.folder):
            self._ending.unlink(missing_ok=True)
            try:
                yield
            except Stopped:
                self._end("paused" if self.asked() == "pause" else "kept")
            except (Exception, KeyboardInterrupt) as error:
                sentence = isinstance(error, (FileNotFoundError, ArithmeticError)) and str(error)
                problem = Message("training.said", {"reason": sentence}) if sentence else explain(error)
                self._end("failed", problem=problem.to_json())
                raise
            else:
                self._end("done")

    def begin_network(self, name: str, folder: Path, facts: dict[str, Any]) -> None:
        """A network is about to be trained; `folder` is where its sheets and figures are written."""
        self._add({"facts": {"network": name, "folder": str(folder.absolute()), **facts}})

    def end_network(self, figures: dict[str, float]) -> None:
        """A network was exported. Stopped when that was because of `ask("stop")`."""
        self._add({"figures": figures})
        if self.asked() == "stop":
            raise Stopped

    def tell(self, step: Step, last: bool = False) -> None:
        """A line about a step, at most one a TOLD_SECONDS but for the last: {"clock", "step", "total", "metrics"}.

        The clock counts this process's seconds without those that it waited.
        """
        clock = time.monotonic() - self._begun
        if clock - self._told < TOLD_SECONDS and step.done != step.total and not last:
            return
        self._told = clock
        metrics = {name: float(f"{value:.5g}") for name, value in step.metrics.items()}
        self._add({"clock": round(clock, 2), "step": step.done, "total": step.total, "metrics": metrics})

    def finishing(self) -> None:
        """The steps are over: figures are taken, and the weights are exported."""
        self._add({"stage": "finishing"})

    def wait(self) -> Literal["", "pause", "stop"]:
        """Wait for as long as the studio wants it; then what it asks for."""
        asked, begun = self.asked(), time.monotonic()
        if not asked and self._leased() and torch.cuda.is_available():
            torch.cuda.empty_cache()  # for whom it waits
        while not asked and self._leased():
            time.sleep(LOOK_SECONDS)
            asked = self.asked()
        self._begun += time.monotonic() - begun
        return asked

    # -------------------------------------------------------------------------------------------------- the studio

    def ask(self, what: Literal["pause", "stop"]) -> None:
        """Ask for it at the next step: "pause" saves and ends the process, "stop" saves, measures and exports."""
        write_atomically(self._asked, what.encode())

    def asked(self) -> Literal["", "pause", "stop"]:
        """What was asked for last."""
        with suppress(OSError):
            text = self._asked.read_text("ascii")
            return text if text in ("pause", "stop") else ""
        return ""

    def lease(self, wanted: bool) -> None:
        """Have the training wait for LEASE_SECONDS more, or let it go on."""
        with suppress(OSError):
            if wanted:
                self._lease.touch()
            else:
                self._lease.unlink(missing_ok=True)

    def clear(self) -> None:
        """Take back what was asked for and how it ended, before the training is started again."""
        for file in (self._asked, self._lease, self._ending):
            file.unlink(missing_ok=True)

    def process(self) -> psutil.Process | None:
        """The training's process, when it is alive."""
        return holder(self.folder)

    def alive(self) -> bool:
        """Whether a process other than this one trains here."""
        process = self.process()
        return process is not None and process.pid != os.getpid()

    def ended(self) -> dict[str, Any]:
        """What `end` was told; {} while it runs and after a kill."""
        with suppress(OSError, ValueError):
            facts = json.loads(self._ending.read_text("utf-8"))
            return facts if isinstance(facts, dict) else {}
        return {}

    def _leased(self) -> bool:
        with suppress(OSError):
            return -60 < time.time() - self._lease.stat().st_mtime < LEASE_SECONDS
        return False

    def _add(self, line: dict[str, Any]) -> None:
        """A line of progress.jsonl. One that cannot be written is not missed."""
        with suppress(OSError), self.progress.open("a+b") as file:
            torn = file.tell() and not self._ends(file)
            file.write((b"\n" if torn else b"") + json.dumps(line).encode() + b"\n")

    def _end(self, how: Ending, **facts: Any) -> None:
        """How it ended; a process that was killed writes none, nor can one on a full disk."""
        with suppress(CannotSave):
            write_atomically(self._ending, json.dumps({"how": how, **facts}).encode())

    @staticmethod
    def _ends(file: Any) -> bool:
        """Whether the file's last line is whole; a kill may have cut it."""
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def follow(training: Generator[Step, None, State], name: str, control: Control | None) -> State:
    """Run a training to its end, or as far as `control` lets it; tells how it goes unless `name` is empty.

    Returns its state. Stopped after a pause.
    """
    asked = ""
    while True:
        try:
            step = training.throw(Stopped()) if asked else next(training)
        except StopIteration as end:
            if asked == "pause":
                raise Stopped from None
            if control is not None:
                control.finishing()
            return end.value
        if control is not None:
            control.tell(step)
            if asked := control.wait():
                control.tell(step, last=True)
        if name and (step.done % 25 == 0 or step.done == step.total):
            words = "  ".join(f"{key} {value:.4g}" for key, value in step.metrics.items())
            print(f"{name} step {step.done:,} of about {step.total:,}  {words}", file=sys.stderr, flush=True)
