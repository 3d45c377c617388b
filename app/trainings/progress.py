"""Reading how a training goes from the lines that it writes, a part at a time, however long it has run."""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_POINTS = 240  # of a curve; twice as many are joined in pairs
RECENT_LINES = 30  # by which the speed is measured

Curve = list[tuple[float, float]]


@dataclass
class Progress:
    """What the lines so far say. `update` reads those that came since."""

    file: Path
    stage: str = ""  # "" before the first step, then "train", at the end "finishing"
    step: int = 0
    total: int = 0
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    figures: dict[str, float] = field(default_factory=dict[str, float])  # of the part that ended last
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])  # metric -> (step, value)
    _offset: int = 0
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT_LINES))

    def update(self) -> None:
        """Read the whole lines that were added. What is no line of a training is passed over."""
        with suppress(OSError), self.file.open("rb") as file:
            if file.seek(0, 2) < self._offset:  # another file
                self._offset, self.facts = 0, {}
                self._part()
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    self._read(json.loads(line))

    @property
    def folder(self) -> str:
        """Where the network's sheets and figures are; "" before it is known."""
        return str(self.facts.get("folder", ""))

    def begin(self) -> None:
        """A process was started: what was told before it is the past."""
        self.stage = ""
        self._recent.clear()

    @property
    def seconds_a_step(self) -> float | None:
        """By the last lines; None while nothing is known."""
        if len(self._recent) < 2:
            return None
        (clock, step), (now, last) = self._recent[0], self._recent[-1]
        return (now - clock) / (last - step) if last > step and now > clock else None

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is spent, at the present speed; None while nothing is known."""
        pace = self.seconds_a_step
        return None if pace is None or self.stage != "train" else max(0, self.total - self.step) * pace

    def _read(self, line: dict[str, Any]) -> None:
        if "facts" in line:  # a process begins, or the next network of a pack
            facts = dict(line["facts"])
            if facts.get("network") != self.facts.get("network"):
                self._part()
            self.facts = facts
            self._recent.clear()
        elif "figures" in line:
            self.figures = {str(name): float(value) for name, value in line["figures"].items()}
        elif "stage" in line:
            self.stage = str(line["stage"])
        else:
            step, clock = int(line["step"]), float(line["clock"])
            if step <= self.step:  # it went on from a state before a crash
                self._forget(step)
            self.stage, self.step, self.total = "train", step, int(line["total"])
            self._recent.append((clock, step))
            for name, value in line["metrics"].items():
                self._add(str(name), step, float(value))

    def _part(self) -> None:
        """Another network: nothing is known of it."""
        self.step, self.total, self.curves, self.figures = 0, 0, {}, {}
        self.begin()

    def _add(self, name: str, step: int, value: float) -> None:
        curve = self.curves.setdefault(name, [])
        curve.append((step, value))
        if len(curve) >= 2 * MOST_POINTS:
            pairs = zip(curve[::2], curve[1::2], strict=False)
            curve[:] = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in pairs]

    def _forget(self, step: int) -> None:
        """Leave out the points from a step on: they are made anew."""
        self._recent.clear()
        for curve in self.curves.values():
            curve[:] = [point for point in curve if point[0] < step]
