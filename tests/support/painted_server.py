"""`python -m tests.support.painted_server PORT FOLDER`: the page over pipelines without networks, until it is killed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from app.jobs.queue import JobQueue
from app.library import Library
from app.ui import page
from tests.support.painter import PAINTERS, PainterStudio


def main(port: int, folder: Path) -> None:
    studio = PainterStudio()
    queue = JobQueue(studio, folder, PAINTERS)
    page.launch(page.build(studio, queue, Library(folder), folder / "none"), port=port)
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
