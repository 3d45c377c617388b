"""`python -m tests.support.painted_server PORT FOLDER [slow]`: the page over pipelines without networks, until Ctrl+C.

With "slow" the CLIP takes half a second a picture.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from app.jobs.queue import JobQueue
from app.library import Library
from app.serving import Serving
from app.ui import page
from tests.support.painter import PAINTERS, PainterClip, PainterStudio


class SlowClip(PainterClip):
    def encode_image(self, images: Tensor) -> Tensor:
        time.sleep(0.5 * len(images))
        return super().encode_image(images)


class SlowStudio(PainterStudio):
    def clip(self) -> Any:
        return SlowClip()


def main(port: int, folder: Path, slow: bool = False) -> None:
    studio = SlowStudio() if slow else PainterStudio()
    queue = JobQueue(studio, folder, PAINTERS)
    page.serve(studio, queue, Library(folder), serving=Serving(port=port), open_browser=False)


if __name__ == "__main__":
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # which a shell takes from what it starts beside itself
    main(int(sys.argv[1]), Path(sys.argv[2]), "slow" in sys.argv[3:])
