"""Ctrl+C ends a served studio soon, whatever it does then; what was running can go on at the next start."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.jobs.queue import JobQueue
from app.soak import Caller, Server
from pipelines.core.pipeline import Picture
from pipelines.core.record import record_of, write_png
from pipelines.optimize.settings import OptimizeSettings
from tests.support.painter import PAINTERS, PainterStudio
from tests.support.pictures import noise

LIMIT = 30.0  # seconds; an idle machine takes less than 2, and what goes on would take more than a minute

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal for one process")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    picture = Picture(noise(16), 1, 0.5)
    record = record_of(
        pipeline="optimize", pack="tiny", device="cpu", models={}, settings=OptimizeSettings(prompt="a cup"),
        picture=picture, rank=1,
    )  # fmt: skip
    for number in range(150):  # 75 s of work for the search
        write_png(tmp_path / "outputs" / "2026-01-01" / f"{number}.png", picture.image, record)
    command = [sys.executable, "-m", "tests.support.painted_server", "{port}", "{folder}", "slow"]
    one = Server(command, tmp_path / "outputs", tmp_path / "log.txt")
    one.start()
    yield one
    one.kill()


def asked(server: Server, tool: str, **values: Any) -> threading.Thread:
    caller = Caller(server.url)
    thread = threading.Thread(target=caller.call, args=(tool,), kwargs=values, daemon=True)
    thread.start()
    return thread


def interrupted_in(server: Server) -> float:
    """The seconds that it takes after Ctrl+C."""
    assert server.process is not None
    begun = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(2 * LIMIT) == 0, server._log.read_text()
    return time.monotonic() - begun


def test_during_a_search_a_run_and_a_waiting_run(server: Server) -> None:
    asked(server, "optimize", prompt="a slow tower", steps=300)
    asked(server, "generate", prompt="a slow cup")
    asked(server, "search", text="red")
    end = time.monotonic() + 20
    while not list((server.folder / "runs").glob("*/*")) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    assert interrupted_in(server) < LIMIT
    queue = JobQueue(PainterStudio(), server.folder, PAINTERS)
    try:
        states = {job.pipeline: job.state for job in queue.jobs(count=5)}
        assert states["optimize"] == "interrupted" and states["generate"] in ("queued", "running", "done")
    finally:
        queue.close()


def test_with_open_lines_and_nothing_to_do(server: Server) -> None:
    """A page keeps a line open, and one is cut off in the middle of a request."""
    import socket
    from urllib.parse import urlsplit

    address = urlsplit(server.url)
    lines = [socket.create_connection((address.hostname, address.port), 5) for _ in range(3)]
    lines[0].sendall(b"GET /gradio_api/queue/data?session_hash=abc HTTP/1.1\r\nHost: localhost\r\n\r\n")
    lines[1].sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n--x")
    time.sleep(0.3)
    assert interrupted_in(server) < LIMIT
    for line in lines:
        line.close()
