"""What the command line tells while it works: progress and single sentences on standard error, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.core.pipeline import Step

WRONG, FAILED, INTERRUPTED = 2, 1, 130  # exit codes
# Signals by which a run is ended from outside: Ctrl+C, a system that shuts down, a terminal that is closed.
ENDINGS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def say(text: str) -> None:
    _write(f"atelier: {text}\n")


@contextmanager
def one_ending() -> Iterator[None]:
    """Within, all of ENDINGS are KeyboardInterrupt, but for those that are ignored, as `nohup` has it."""
    here = threading.current_thread() is threading.main_thread()
    mine = [one for one in ENDINGS if here and signal.getsignal(one) == signal.SIG_DFL]
    before = {one: signal.signal(one, signal.default_int_handler) for one in mine}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class Interrupts:
    """Counts ENDINGS until closed; the second one is no longer held back. `first` is called at the first one."""

    def __init__(self, first: Callable[[], object] = bool) -> None:
        self.count, self._first = 0, first
        self._before = {
            one: signal.signal(one, self._note)
            for one in ENDINGS
            if one == signal.SIGINT or callable(signal.getsignal(one))
        }

    def _note(self, *_: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self._first()

    def close(self) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)


class ProgressLine:
    """Progress on standard error: one line redrawn on a terminal, a few lines elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.stage = ""
        self.begun = self.shown = 0.0

    def show(self, step: Step) -> None:
        now = time.monotonic()
        new = step.stage != self.stage
        if new:
            self.end()
            self.stage, self.begun = step.stage, now
        last = step.done >= step.total
        if not new and not last and now - self.shown < (0.1 if self.live else 5.0):
            return
        if not self.live and new and not last:
            return  # elsewhere a stage is told when it ends, or every five seconds
        self.shown = now
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in list(step.metrics.items())[:4])
        left = (step.total - step.done) * (now - self.begun) / max(step.done, 1)
        ending = f"{now - self.begun:.1f} s" if last else f"{left:.0f} s left" if now > self.begun else ""
        if self.live:
            full = 24 * step.done // max(step.total, 1)
            bar = "━" * full + "·" * (24 - full)
            text = f"{step.stage:<10} {bar} {step.done}/{step.total}  {ending}  {numbers}"
            _write("\r\x1b[K" + text[: _terminal_width() - 1])
        else:
            _write(f"{step.stage} {step.done}/{step.total}  {ending}  {numbers}".rstrip() + "\n")

    def end(self) -> None:
        if self.live and self.stage:
            _write("\n")


def _write(text: str) -> None:
    with suppress(OSError):  # the terminal is gone, and the run goes on
        sys.stderr.write(text)
        sys.stderr.flush()


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
