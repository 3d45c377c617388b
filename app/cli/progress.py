"""What the command line tells while it works: progress and single sentences on standard error, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.core.pipeline import Step

WRONG, FAILED, INTERRUPTED = 2, 1, 130  # exit codes


def say(text: str) -> None:
    print(f"atelier: {text}", file=sys.stderr, flush=True)


class Interrupts:
    """Counts Ctrl+C until closed; the second one is no longer held back."""

    def __init__(self) -> None:
        self.count = 0
        self._before = signal.signal(signal.SIGINT, self._note)

    def _note(self, *_: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt

    def close(self) -> None:
        signal.signal(signal.SIGINT, self._before)


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
            sys.stderr.write("\r\x1b[K" + text[: _terminal_width() - 1])
        else:
            sys.stderr.write(f"{step.stage} {step.done}/{step.total}  {ending}  {numbers}".rstrip() + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self.live and self.stage:
            sys.stderr.write("\n")
            sys.stderr.flush()


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
