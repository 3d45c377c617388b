"""The verb `soak`: a studio under clients, kills, mutated pictures, a full disk and slow lines; its memory is watched."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.cli.progress import FAILED, say
from app.cli.run import ROOT
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput

SERVE = ("ui", "--no-browser", "--port", "{port}", "--out", "{folder}")
EXAMPLE = ROOT / "assets" / "examples" / "01-a-red-heart.png"
# Settings that make a run of the tiny pack short.
SMALL: dict[str, dict[str, Any]] = {
    "generate": {"candidates": 1, "keep": 1, "finish": "drawn"},
    "diffuse": {"candidates": 1, "keep": 1, "steps": 2},
    "optimize": {"steps": 3, "size": "64x64", "cutouts": 2, "start": "white", "coarse": 0},
}


def main(arguments: list[str]) -> int:
    """Run the trials one after another until the time is over; exit code 1 when anything went wrong."""
    parser = Parser(
        prog="launch.py soak",
        description="Try a studio for a while: many clients, kills, mutated pictures, odd requests, a full disk, "
        "slow lines. It works in a folder of its own and prints a table.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="how long (default: 10)")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="programs at once (default: 8)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is tried (default: 0)")
    options = parser.parse_args(arguments)
    if not 0.1 <= options.minutes <= 10_000 or not 1 <= options.clients <= 200:
        raise BadInput("cli.soak_range")

    from app.soak import Server, Soak

    folder = Path(tempfile.mkdtemp(prefix="atelier-soak-"))
    server = Server([sys.executable, str(ROOT / "launch.py"), *SERVE], folder / "outputs", folder / "log.txt")
    soak = Soak(server, SMALL, EXAMPLE.read_bytes(), options.seed)
    try:
        server.start()
        rounds(soak, options.minutes * 60, options.clients)
    except KeyboardInterrupt:
        say("stopped; the table holds what was tried until now")
    finally:
        server.kill()
    print(soak.table(), end="")
    for words in soak.wrong[:20]:
        say(f"wrong: {words}")
    if soak.wrong:
        say(f"the server's log and pictures are in {folder}")
        return FAILED
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def rounds(soak: Any, seconds: float, clients: int) -> None:
    """All trials, then clients alone, whose memory is watched, until the time is over."""
    end = time.monotonic() + seconds
    soak.mutated_pictures(50)
    soak.strangers(600)
    soak.slow_lines(20, 3.0)
    soak.stop(4)
    soak.full_disk()
    soak.kill()
    number = 0
    while time.monotonic() < end:
        soak.clients(clients, 3)
        number += 1
        if number % 20 == 0 and end - time.monotonic() > seconds / 2:
            soak.mutated_pictures(50)
            soak.full_disk()
            soak.kill()
