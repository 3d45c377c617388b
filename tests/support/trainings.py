"""A manager of tiny trainings for tests: a data file, a studio's folder, and an artist who is busy or not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.trainings.manager import Standing, Trainings
from app.trainings.order import Order
from tests.support.training import write_data

COMMAND = (sys.executable, str(Path(__file__).with_name("tiny_training.py")))


class Artist:
    """Whether a picture is being made."""

    def __init__(self) -> None:
        self.busy = False

    def __call__(self) -> bool:
        return self.busy


def manager(folder: Path, artist: Artist | None = None) -> Trainings:
    """The trainings of a studio whose pictures lie in `folder`."""
    return Trainings(folder, artist or Artist(), COMMAND)


def order(folder: Path, **changes: Any) -> Order:
    """A training of the tiny UNet on sixteen shapes, for 60 steps unless said otherwise."""
    data = folder / "data.safetensors"
    if not data.exists():
        write_data(data)
    values = {"network": "unet", "data": str(data), "pack": "mine", "out": str(folder / "packs" / "mine")}
    return Order(**{**values, "steps": 60, "batch": 2, **changes})


def until(trainings: Trainings, true: Callable[[Standing], bool], seconds: float = 240.0) -> Standing:
    """How it stands as soon as something is true of it."""
    end = time.monotonic() + seconds
    while True:
        now = trainings.now()
        assert now is not None
        if true(now):
            return now
        assert now.state != "failed" and time.monotonic() < end, (now.problem, now.last_words, now)
        time.sleep(0.05)
