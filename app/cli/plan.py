"""The verb `plan`: how long people would wait, on paper, and what it takes."""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from app.cli.flags import common_settings, model_flags, parts_in_use, set_flag
from app.cli.progress import say
from pipelines.core.arguments import Parser, number, told
from pipelines.errors import BadInput

if TYPE_CHECKING:
    from app.planning import Load, Waits

MEASURED = 3  # runs, after one that warms up


def _parser() -> Parser:
    parser = Parser(
        prog="launch.py plan",
        description="Tell how long people would wait for their runs, by a simulation with the studio's own fair queue, "
        "from the time that runs take: measured now on --device, or given by --seconds.",
    )
    parser.add_argument(
        "--users", type=number(int, 1, 100_000), default=30, metavar="N", help="people (default: 30)"
    )
    parser.add_argument(
        "--gpus", type=number(int, 1, 1000), default=1, metavar="N", help="lanes, one a device (default: 1)"
    )
    parser.add_argument(
        "--tool", default="generate", metavar="NAME", help="their pipeline (default: generate)"
    )
    set_flag(parser, "their runs")
    parser.add_argument(
        "--seconds",
        type=number(float, 0.001, 86_400),
        metavar="X",
        help="how long a run takes (default: measured now)",
    )
    parser.add_argument(
        "--think",
        type=number(float, 0, 86_400),
        default=120.0,
        metavar="X",
        help="mean seconds from a result to the next question (default: 120)",
    )
    parser.add_argument(
        "--hours", type=number(float, 0.001, 1000), default=2.0, metavar="X", help="how long (default: 2)"
    )
    parser.add_argument(
        "--price",
        type=number(float, 0, 1e6),
        default=0.0,
        metavar="X",
        help="of a lane for an hour, in any currency",
    )
    parser.add_argument(
        "--try",
        dest="tried",
        type=number(float, 1, 86_400),
        metavar="SECONDS",
        help="also run it for so long, with real runs on the lanes of --device, such as cpu:2, and compare the waits",
    )
    model_flags(parser, lanes=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def main(arguments: list[str]) -> int:
    """Print what is expected. Returns the exit code."""
    options = _parser().parse_args(arguments)

    from app.planning import Load, simulate
    from pipelines.studio import PIPELINES
    from pipelines.weights.catalog import memory_needed

    if options.tool not in PIPELINES:
        raise BadInput("cli.command_unknown", command=options.tool[:40], known=", ".join(PIPELINES))
    use = parts_in_use(options.use)
    settings = _settings(options)
    with redirect_stdout(sys.stderr):
        if options.tried:
            figures = _compared(options, use, settings)
        else:
            seconds = [options.seconds] if options.seconds else _measured(options, use, settings)
            load = Load(options.users, options.gpus, seconds, options.think, options.hours * 3600)
            waits = simulate(load)
            figures = {"lanes": options.gpus, "seconds a run (median)": median(seconds), **_told(load, waits)}
            memory = memory_needed(options.pack, options.tool, use)
            figures["GB of memory a lane"] = memory / 1e9 if memory else "less than 1"
            hours = options.gpus * options.hours / max(1, len(waits.waits)) * 1000
            figures["lane-hours for 1,000 runs"] = hours
            if options.price:
                figures["cost of an hour"] = options.price * options.gpus
                figures["cost of 1,000 runs"] = options.price * hours
    print(told(figures, as_json=options.json))
    return 0


def _told(load: Load, waits: Waits) -> dict[str, Any]:
    """What a simulation or a trial comes to."""
    hours = load.length / 3600
    asked = len(waits.waits) + waits.refused
    return {
        "users": load.users,
        "runs an hour": len(waits.waits) / hours,
        "seconds in the queue (mean)": waits.mean,
        "seconds in the queue (half wait less)": waits.share(0.5),
        "seconds in the queue (nine of ten wait less)": waits.share(0.9),
        "seconds in the queue (longest)": waits.share(1.0),
        "share of questions that found the queue full": waits.refused / max(1, asked),
        "share of time that lanes work": min(1.0, sum(waits.runs) / (load.lanes * load.length)),
    }


def _settings(options: Namespace) -> Any:
    """The settings of everybody's runs. BadInput for wrong ones."""
    from app.batch.tools import Draw

    return Draw(options.tool, common_settings(options.set)).ask({"prompt": "a red heart"}, Path.cwd())


def _measured(options: Namespace, use: dict[str, str], settings: Any) -> list[float]:
    """Seconds of runs on the device, now."""
    from app.cli.run import load
    from pipelines.core.execute import result_of

    studio, pipeline, _ = load(options.tool, options.pack, options.device, use)
    times = [result_of(pipeline, settings).seconds for _ in range(MEASURED + 1)][1:]
    say(f"{options.tool} takes {median(times):.2f} s on {studio.device}")
    return times


def _compared(options: Namespace, use: dict[str, str], settings: Any) -> dict[str, Any]:
    """A trial on real lanes, and the simulation of the same visitors from the times that its runs took."""
    from app.jobs.queue import JobQueue
    from app.lanes.pool import Lanes, open_lanes, places_of
    from app.planning import Load, simulate, try_out
    from pipelines.studio import PIPELINES, Studio

    places = places_of(options.device)
    if not places:
        raise BadInput("batch.lanes_form", device=options.device[:60])
    studio = Studio(options.pack, "cpu", use)
    pool = Lanes(open_lanes(places), studio, PIPELINES)
    with tempfile.TemporaryDirectory(prefix="atelier-plan-") as folder:
        queue = JobQueue(studio, folder, lanes=pool.runs())
        try:
            _warm(queue, len(places), options.tool, settings.to_dict())
            load = Load(options.users, len(places), [1.0], options.think, options.tried)
            tried = try_out(queue, load, options.tool, settings.to_dict())
        finally:
            queue.close()
            pool.close()
    if not tried.runs:
        raise BadInput("batch.nothing_tried", seconds=options.tried)
    load = Load(options.users, len(places), tried.runs, options.think, options.tried)
    expected = simulate(load)
    figures: dict[str, Any] = {
        "lanes": len(places),
        "seconds a run (median)": median(tried.runs),
        "users": load.users,
    }
    both = _told(load, tried), _told(load, expected)
    for name in ("runs an hour", "seconds in the queue (mean)", "share of time that lanes work"):
        figures |= {f"{name}, tried": both[0][name], f"{name}, on paper": both[1][name]}
    figures["mean wait, on paper / tried"] = expected.mean / tried.mean if tried.mean else 1.0
    return figures


def _warm(queue: Any, lanes: int, tool: str, settings: dict[str, Any]) -> None:
    """Have every lane load its models: the first runs would take longer than the others."""
    jobs = [queue.submit(tool, settings, f"warm {k}") for k in range(2 * lanes)]
    while not all(queue.job(job).is_over for job in jobs):
        time.sleep(0.05)
