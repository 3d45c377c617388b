"""The one loop that trains everything: on one process or several (started by torchrun), on CPUs or GPUs.

A Trainer brings networks, optimizers and what one update is. `fit` brings the budget, the learning rates, the moving
average of the weights, saving, resuming and reports. Several processes share one clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate.utils import broadcast
from torch import Tensor

from pipelines.core.pipeline import Step
from pipelines.errors import Stopped
from pipelines.training.batches import batches
from pipelines.training.data.stream import Rates
from pipelines.training.report import (
    Sampling,
    averaged_networks,
    draw_curves,
    draw_pictures,
    draw_sample,
    ema_weights,
    report,
    write_picture,
)
from pipelines.training.sharding import local
from pipelines.training.state import State, keep_earlier_states, load_state, save_state
from pipelines.training.trainer import Trainer, broadcast_weights


@dataclass
class Budget:
    """How long to train: minutes of this machine, or a number of steps when `steps` is given (then exactly resumable).

    With `processor` the minutes are of computing, not of waiting: processor time divided by torch's threads. A training
    beside other work then does as much as one that has the machine for itself, only later.
    """

    minutes: float = 20.0
    steps: int | None = None
    processor: bool = False

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        return min(1.0, step / self.steps if self.steps else seconds / (60 * self.minutes))

    def clock(self) -> float:
        """Seconds since some moment, by this budget's kind of time."""
        return time.process_time() / torch.get_num_threads() if self.processor else time.perf_counter()


def fit(
    trainer: Trainer,
    folder: Path,
    budget: Budget,
    save_every: float = 300.0,
    workers: int = 0,
    report_every: float = 1200.0,
    sample_every: float | None = None,
) -> Generator[Step, None, State]:
    """Train until the budget is spent, yielding a Step per update; resumes from `folder` when it holds a state.

    Writes into `folder`, which all processes see: state.safetensors (everything, every `save_every` seconds of wall
    time); every `report_every` seconds of the budget's time, by the averaged weights, curves.png, sheet.png,
    sheets/STEP.png and a line of figures.jsonl, and the state before becomes state-1.safetensors, that one state-2. With
    `sample_every` seconds of wall time it draws sheets in between, of which few are kept (`Sampling`).

    Throwing Stopped into it ends it early: the state is saved and returned. What the caller takes between two steps is
    none of the budget's time.
    """
    broadcast_weights(trainer.accelerator, trainer.networks.values())
    average, file = _copied_weights(trainer), folder / "state.safetensors"
    state = load_state(file, trainer, average) if file.exists() else State()
    main = trainer.accelerator.is_main_process
    base_rates = {
        name: [group.setdefault("base_lr", group["lr"]) for group in optimizer.param_groups]
        for name, optimizer in trainer.optimizers.items()
    }
    ahead = batches(trainer, state, workers)
    begun, seconds_before = budget.clock(), state.seconds
    rates = Rates()
    keeping = _Keeping(folder, trainer, average, state, save_every, report_every, sample_every)
    while (progress := budget.progress(state.step, state.seconds)) < 1.0:
        factor = trainer.rate_factor(progress)
        for name, optimizer in trainer.optimizers.items():
            for group, rate in zip(optimizer.param_groups, base_rates[name], strict=True):
                group["lr"] = rate * factor
        metrics = trainer.update(next(ahead), progress)
        _update_ema(trainer, average, state.step)
        state.step += 1
        state.samples += trainer.samples_per_step()
        seconds = seconds_before + budget.clock() - begun
        numbers, state.seconds = _agreed(trainer, metrics, seconds)
        _note(state, numbers, folder)
        total = budget.steps or round(state.step / max(budget.progress(state.step, state.seconds), 1e-6))
        given_away = budget.clock()
        try:
            yield Step("train", state.step, max(total, state.step), numbers | rates.of(state.journey))
        except Stopped:
            break
        begun += budget.clock() - given_away
        keeping.after_step()
    if main or trainer.sharded:
        save_state(file, trainer, average, state)
    if trainer.sharded:
        trainer.networks.update(averaged_networks(trainer, average))
    else:
        for name, values in average.items():
            trainer.networks[name].load_state_dict(values, strict=False)
    if main:
        draw_pictures(folder, trainer, state)
    return state


class _Keeping:
    """What of a training is written in its course, and when: states, reports, and sheets in between.

    The first process says when. The others take part where networks are divided among them.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        average: dict[str, dict[str, Tensor]],
        state: State,
        save_every: float,
        report_every: float,
        sample_every: float | None,
    ) -> None:
        self._folder, self._trainer, self._average, self._state = folder, trainer, average, state
        self._save_every, self._report_every = save_every, report_every
        self._saved, self._reported = time.perf_counter(), state.seconds
        self._sampling = None if sample_every is None else Sampling(sample_every)
        self._main = trainer.accelerator.is_main_process

    def after_step(self) -> None:
        """Write what is due."""
        folder, trainer, state = self._folder, self._trainer, self._state
        saving, reporting, drawing = self._due()
        if saving:
            self._save()
            if self._main:
                write_picture(folder / "curves.png", draw_curves(state.curves))
        if reporting:
            if self._main:
                keep_earlier_states(folder / "state.safetensors")
            self._save()
            with ema_weights(trainer, self._average):
                if self._main:
                    report(folder, trainer, state)
            self._saved, self._reported = time.perf_counter(), state.seconds
        elif drawing:
            with ema_weights(trainer, self._average):
                if self._main and self._sampling is not None:
                    with self._sampling.timed():
                        draw_sample(folder, trainer, state)

    def _due(self) -> tuple[bool, bool, bool]:
        """Whether to save, to report, and to draw."""
        due = False, False, False
        if self._main:
            saving = time.perf_counter() - self._saved > self._save_every
            reporting = self._state.seconds - self._reported > self._report_every
            due = saving, reporting, self._sampling is not None and self._sampling.due()
        if self._trainer.sharded:
            told = torch.tensor(due, dtype=torch.uint8, device=self._trainer.accelerator.device)
            saving, reporting, drawing = cast(Tensor, broadcast(told)).tolist()
            due = bool(saving), bool(reporting), bool(drawing)
        return due

    def _save(self) -> None:
        save_state(self._folder / "state.safetensors", self._trainer, self._average, self._state)
        self._saved = time.perf_counter()


def _copied_weights(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    """What the moving average begins with: a copy of the weights of every averaged network."""
    average = {}
    for name in trainer.ema_networks:
        values = trainer.networks[name].state_dict().items()
        average[name] = {k: v.detach().clone() for k, v in values if v.is_floating_point()}
    return average


def _note(state: State, numbers: dict[str, float], folder: Path) -> None:
    """Add every tenth step's metrics to the curves. ArithmeticError when a metric is not finite."""
    for key, value in numbers.items():
        if not math.isfinite(value):
            raise ArithmeticError(
                f"{key} became {value} at step {state.step}; the last good state is in {folder}"
            )
        if state.step % 10 == 0:
            state.curves.setdefault(key, []).append((state.step, value))


def _agreed(trainer: Trainer, metrics: dict[str, Tensor], seconds: float) -> tuple[dict[str, float], float]:
    """Metrics and clock as their means over all processes, so that none stops, or fails, without the others."""
    values = torch.stack([value.detach().float() for value in metrics.values()])
    if trainer.accelerator.num_processes > 1:
        clock = torch.tensor([seconds], device=values.device)
        values, clock = trainer.mean_over_processes(torch.cat([values, clock])).split([len(metrics), 1])
        seconds = clock.item()
    return dict(zip(metrics, values.tolist(), strict=True)), seconds


@torch.no_grad()
def _update_ema(trainer: Trainer, average: dict[str, dict[str, Tensor]], step: int) -> None:
    """Move the average of the weights towards the weights; fast in the beginning."""
    weight = 1 - min(trainer.ema_decay, (1 + step) / (10 + step))
    for name, values in average.items():
        now = trainer.networks[name].state_dict()
        torch._foreach_lerp_(
            [local(value) for value in values.values()], [local(now[key]) for key in values], weight
        )
