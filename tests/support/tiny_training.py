"""`python tests/support/tiny_training.py NAME ...`: the command `train` with networks small enough for a test."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def main() -> int:
    """The UNet at a tiny size, each step at least TINY_STEP_SECONDS long, told of ten times a second."""
    from pipelines.training import control, processes
    from pipelines.training.cli import main as train
    from pipelines.training.unet import UnetTrainer
    from tests.support.training import SIZES

    UnetTrainer.SIZES["tiny"] = {**SIZES["unet"], "image_size": 32, "rate": 1e-3}
    UnetTrainer.sheet_steps = UnetTrainer.trip_steps = 2
    control.TOLD_SECONDS = 0.1
    seconds, update = float(os.environ.get("TINY_STEP_SECONDS", "0")), UnetTrainer.update

    def slow(self: UnetTrainer, *given: object) -> dict[str, object]:
        time.sleep(seconds)
        return update(self, *given)  # type: ignore[arg-type, return-value]

    UnetTrainer.update = slow  # type: ignore[method-assign, assignment]
    processes.run.__defaults__ = ((__file__,),)
    given = [word for word in sys.argv[1:] if word != "--background"]  # tests wait for it
    return train([*given, "--precision", "no"])


if __name__ == "__main__":
    raise SystemExit(main())
