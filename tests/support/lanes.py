"""What the processes of lanes make in tests. It is imported there by its name."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.batch.tools import Draw
from tests.support.fakes import FakeStudio


def tiny_studio(pack: str, use: dict[str, str]) -> Any:
    """A studio of the small test networks, each pipeline made once."""
    from tests.support.tiny import TinyStudio  # what a process imports takes seconds

    class Once(TinyStudio):
        made: dict[str, Any] = {}  # noqa: RUF012 -- of this class alone

        def pipeline(self, name: str) -> Any:
            if name not in self.made:
                self.made[name] = super().pipeline(name)
            return self.made[name]

    return Once()


def mortal_studio(folder: str, pack: str, use: dict[str, str]) -> Any:
    """A studio of fakes whose process kills itself when a run begins and finds a file `kill`, which it takes away."""
    return Mortal(Path(folder) / "kill")


class Mortal(FakeStudio):
    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def pipeline(self, name: str) -> Any:
        try:
            self.mark.unlink()
        except FileNotFoundError:
            return super().pipeline(name)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True)
class Deadly(Draw):
    """Draw, whose process kills itself before a row while there is a file in the folder `marks`, which it takes away."""

    marks: str = ""

    def work(self, studio: Any, asked: Sequence[Any]) -> list[Any]:
        for mark in Path(self.marks).iterdir():
            mark.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work(studio, asked)
