"""What studies share: where they keep what they have, and how they train. The same command again goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.core.generators import finished, mapped
from pipelines.core.pipeline import Step
from pipelines.io.files import write_atomically
from pipelines.training.data.dataset import Dataset
from pipelines.training.data.icons import SIZE
from pipelines.training.loop import Budget, fit
from pipelines.training.trainer import Trainer


@dataclass(frozen=True)
class Study:
    """One run of a study. `minutes` are of all its trainings together; `steps`, if given, are of each instead."""

    folder: Path
    data: Path
    pack: Path  # whose CLIP, critic and vocabulary are used
    minutes: float
    steps: int | None = None
    processor: bool = True  # minutes of computing, so that waits do not favour anybody
    seed: int = 0
    sizes: dict[str, Any] = field(default_factory=dict)  # that replace those of the trainers

    def emoji(self, size: int = SIZE) -> Dataset:
        """The data."""
        return Dataset(self.data, size)

    def train(self, trainer: Trainer, name: str, budget: Budget, reports: int = 10) -> list[dict[str, Any]]:
        """Train to the end of the budget, from where an earlier run stopped. The trainer has the averaged weights then.

        Returns the lines of figures.jsonl, about `reports` of them and the last, by step: "step", "seconds", "figures".
        """
        folder = self.folder / name
        every = 60 * budget.minutes / reports
        training = fit(trainer, folder, budget, save_every=60.0, report_every=every)

        def tell(step: Step) -> None:
            if step.done % 25 == 0:
                words = "  ".join(f"{key} {value:.4g}" for key, value in step.metrics.items())
                print(f"{name} step {step.done:,} of about {step.total:,}  {words}", file=sys.stderr)

        state = finished(mapped(training, tell))
        file = folder / "figures.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        rows = {line["step"]: line for line in lines if line["step"] < state.step}
        last = {"step": state.step, "seconds": round(state.seconds), "figures": trainer.evaluate()}
        return [*(rows[step] for step in sorted(rows)), last]

    def write(self, figures: dict[str, Any]) -> None:
        """Write figures.json."""
        write_atomically(self.folder / "figures.json", json.dumps(figures, indent=1).encode())
