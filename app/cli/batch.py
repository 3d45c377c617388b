"""The verb `batch`: a table of rows, each drawn, edited or scored once; it goes on where it was stopped."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.flags import common_settings, model_flags, parts_in_use, set_flag
from app.cli.progress import FAILED, INTERRUPTED, say
from app.cli.run import outputs, picture_folder
from pipelines.core.arguments import Parser, number
from pipelines.errors import BadInput
from pipelines.io.files import check_writable, home_path

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from app.batch.engines import Engine
    from app.batch.results import Results
    from app.batch.run import Progress
    from app.batch.tools import Draw, Judge
    from app.lanes.pool import Place

TOLD_SECONDS = (0.5, 10.0)  # between two lines about how far it is: on a terminal, elsewhere


def _parser() -> Parser:
    parser = Parser(
        prog="launch.py batch",
        description="Draw, edit or score the rows of a table. What is done is not done again: the same command goes on "
        "where it was stopped, and after rows were added or changed it does those.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="csv with a head, or JSON Lines: prompt, seed, image, any other setting"
    )
    parser.add_argument(
        "--tool", default="generate", metavar="NAME", help="a pipeline, or score (default: generate)"
    )
    set_flag(parser, "all rows that do not give their own")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for pictures, results and bad rows (default: batch-NAME in ATELIER_OUTPUTS or outputs/)",
    )
    parser.add_argument(
        "--table",
        metavar="FILE",
        help="the table of results, .csv or .parquet (default: results.csv in the folder)",
    )
    model_flags(parser, lanes=True)
    parser.add_argument(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="here, or ray: workers on a cluster (an extra; default: here)",
    )
    parser.add_argument(
        "--address", default="", metavar="HOST:PORT", help="the cluster of --engine ray (default: none)"
    )
    parser.add_argument(
        "--workers",
        type=number(int, 1, 10_000),
        metavar="N",
        help="of --engine ray (default: a GPU each, or a processor each where there is none)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Do the rows of a table. Exit code 0 when every row has a result, 1 when some have none, 130 after Ctrl+C."""
    options = _parser().parse_args(arguments)

    from app.batch.cluster import check_ray
    from app.batch.results import Results, check_table
    from app.batch.rows import read_rows
    from app.batch.tools import SCORE, checked, tool_of
    from app.jobs.store import claim
    from app.lanes.pool import places_of
    from pipelines.studio import PIPELINES, Studio

    if options.engine == "ray":
        check_ray()
    elif options.address or options.workers:
        raise BadInput("batch.only_ray", flag="--address" if options.address else "--workers")
    if options.tool not in (*PIPELINES, SCORE):
        known = ", ".join([*PIPELINES, SCORE])
        raise BadInput("cli.command_unknown", command=options.tool[:40], known=known)
    file = home_path(options.file)
    tool, rows = tool_of(options.tool, common_settings(options.set)), read_rows(file)
    _check_columns(tool, options.tool, {name for row in rows for name in row.values})
    folder = picture_folder(options.out or str(outputs() / f"batch-{file.stem}"))
    table = check_writable(options.table or folder / "results.csv")
    check_table(table)
    use = parts_in_use(options.use)
    models = json.dumps([options.pack, sorted(use.items())])
    tasks, bad = checked(tool, rows, file.absolute().parent, models)
    if not tasks:
        raise BadInput("batch.no_good_row", count=len(rows), problem=bad[0][1])
    if bad:
        say(f"{len(bad):,} of {len(rows):,} rows cannot be done; the first says: {bad[0][1]}")
    guard = claim(folder / "batch.lock")
    try:
        with redirect_stdout(sys.stderr):
            places = places_of(options.device)
            if places and options.engine == "ray":
                raise BadInput("batch.lanes_or_ray", device=options.device[:60])
            elsewhere = places or options.engine == "ray"
            studio = Studio(pack=options.pack, device="cpu" if elsewhere else options.device, use=use)
            results = Results(folder, tool, studio)
            with _engine(options, places, studio, tool) as engine:
                bad_file = folder / f"bad{file.suffix.lower()}"
                facts, interrupted = _work(engine, results, (tasks, bad), (table, bad_file))
    finally:
        guard.close()
    _tell(facts, options.json)
    if interrupted:
        say("stopped; the same command goes on")
        return INTERRUPTED
    return 0 if facts["done"] == facts["rows"] else FAILED


def _check_columns(tool: Draw | Judge, name: str, columns: set[str]) -> None:
    """BadInput for columns, and settings of all rows, that the tool does not have."""
    if unknown := sorted((columns | set(tool.common)) - tool.columns()):
        listed = ", ".join(repr(column[:40]) for column in unknown[:8])
        raise BadInput(
            "batch.columns_unknown", columns=listed, tool=name, known=", ".join(sorted(tool.columns()))
        )


@contextmanager
def _engine(options: Namespace, places: list[Place], studio: Any, tool: Draw | Judge) -> Iterator[Engine]:
    """Where rows are worked on, with its models loaded."""
    from app.batch.cluster import OnRay
    from app.batch.engines import Here, OnLanes
    from app.lanes.lane import on_device
    from app.lanes.pool import open_lanes

    if options.engine == "here" and not places:
        tool.load(studio)
        yield Here(studio, tool)
        return
    if options.engine == "ray":
        engine = OnRay(on_device(options.device), studio, tool, options.address, options.workers or 0)
    else:
        engine = OnLanes(open_lanes(places), studio, tool)
    try:
        engine.load()
        yield engine
    finally:
        engine.close()


def _work(
    engine: Engine, results: Results, rows: tuple[list[Any], list[Any]], files: tuple[Path, Path]
) -> tuple[dict[str, Any], bool]:
    """Do the rows, and write both tables whatever happens. Returns what there is to tell, and whether it was stopped."""
    from app.batch.rows import write_bad_rows
    from app.batch.run import run_batch

    (tasks, bad), (table, bad_file) = rows, files
    telling, progress, interrupted = Telling(), None, False
    begun = time.monotonic()
    try:
        for progress in run_batch(tasks, engine, results, results.tool.at_once):
            telling.show(progress)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        telling.end()
        problems = sorted([*bad, *(progress.failed if progress else ())], key=lambda pair: pair[0].number)
        results.write_table(table, tasks)
        write_bad_rows(bad_file, problems)
    assert progress is not None
    return {
        "rows": len(tasks) + len(bad),
        "done": progress.done,
        "done_before": progress.before,
        "bad": len(problems),
        "seconds": round(time.monotonic() - begun, 3),
        "rows_a_second": round(progress.rate, 4),
        "table": str(table),
        "bad_rows": str(bad_file) if problems else None,
    }, interrupted


def _tell(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    say(
        f"{facts['done']:,} of {facts['rows']:,} rows are done, {facts['done'] - facts['done_before']:,} of them now"
    )
    print(facts["table"])
    if facts["bad"]:
        say(
            f"{facts['bad']:,} without a result; {facts['bad_rows']} says why, and can be mended and given again"
        )


class Telling:
    """How far a batch is, on standard error: one line redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.next = 0.0
        self.open = False

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        over = progress.before + progress.over >= progress.total
        if now < self.next and not over:
            return
        self.next = now + TOLD_SECONDS[not self.live]
        text = sentence(progress)
        if self.live:
            sys.stderr.write("\r\x1b[K" + text)
            sys.stderr.flush()
            self.open = True
        else:
            say(text)

    def end(self) -> None:
        if self.open:
            sys.stderr.write("\n")


def sentence(progress: Progress) -> str:
    """How far it is, in one line."""
    words = [f"{progress.done:,} of {progress.total:,} rows"]
    if progress.before:
        words.append(f"{progress.before:,} of them before")
    if progress.rate:
        words.append(f"{progress.rate:.3g} rows a second")
    if progress.seconds_left:
        words.append(f"{_duration(progress.seconds_left)} left")
    if progress.failed:
        words.append(f"{len(progress.failed):,} failed")
    return ", ".join(words)


def _duration(seconds: float) -> str:
    """Such as "2 h 5 min", "3 min" or "12 s"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
