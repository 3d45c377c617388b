"""`python launch.py train queue FILE`: a list of trainings, run one after another beside other work.

The trainings run at low priority, with threads that sleep while they wait, from a frozen copy of code, data and pack, so
that the checkout may change under them. Whatever ends the queue, the same command goes on from the last saved states.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipelines.core.arguments import Parser, number
from pipelines.errors import BadInput
from pipelines.training.data.dataset import DATA_FILE
from pipelines.training.holding import held

ROOT = Path(__file__).parents[2]
PACK = ROOT / "assets" / "tiny"
FROZEN = ("launch.py", "pipelines", "assets/strings")  # what a training imports, and the words of its errors
MOST_LANES = 64
LOOK_SECONDS = 2.0
TOLD_SECONDS = 1200.0


@dataclass(frozen=True)
class Training:
    """One entry of the list: `name` is a network of `train`, `minutes` are of computing, `after` names what it needs.

    `{pack}` in a flag stands for the queue's own pack. `processes` share the lane's threads and the training.
    """

    name: str
    minutes: float
    id: str
    flags: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    processes: int = 1


@dataclass
class Running:
    """A training's process and the file that takes what it says."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]


@dataclass
class Queue:
    """The list and the folder with its frozen copy (code, data, pack), states and logs."""

    folder: Path
    trainings: list[Training]
    lanes: int = 1
    running: dict[str, Running] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def pack(self) -> Path:
        """Where finished weights go, and where later trainings find them."""
        return self.folder / "pack"

    def done(self, training: Training) -> bool:
        return self._mark(training).exists()

    def state(self, training: Training) -> Path:
        return self.folder / "states" / training.id

    def log(self, training: Training) -> Path:
        return self.folder / "logs" / f"{training.id}.txt"

    def _mark(self, training: Training) -> Path:
        return self.state(training) / "done"

    def next(self) -> Training | None:
        """The first training that is neither done, failed nor running, and whose needs are done."""
        finished = {training.id for training in self.trainings if self.done(training)}
        for training in self.trainings:
            if training.id not in finished | self.running.keys() | self.failed.keys() and finished.issuperset(
                training.after
            ):
                return training
        return None

    def start(self, training: Training) -> None:
        """Begin a training, or go on with it, in a process of its own."""
        threads = max(1, (os.cpu_count() or 1) // self.lanes // training.processes)
        several = ["torch.distributed.run", "--standalone", f"--nproc-per-node={training.processes}", "-m"]
        command = [sys.executable, "-m", *several[: 4 * (training.processes > 1)]]
        command += ["pipelines.training.cli", training.name]
        command += ["--minutes", str(training.minutes), "--clock", "processor", "--background"]
        command += ["--data", str(self.folder / "data.safetensors"), "--state", str(self.state(training))]
        command += ["--out", str(self.pack)]
        command += [flag.replace("{pack}", str(self.pack)) for flag in training.flags]
        environment = {
            **os.environ,
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join([str(self.folder / "code"), os.environ.get("PYTHONPATH", "")]),
        }
        self.log(training).parent.mkdir(parents=True, exist_ok=True)
        log = self.log(training).open("ab")
        process = subprocess.Popen(
            command,
            cwd=self.folder / "code",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self.running[training.id] = Running(process, log)

    def collect(self, training: Training) -> bool:
        """Whether a running training has ended; it is then done, or failed with its last words."""
        running = self.running[training.id]
        code = running.process.poll()
        if code is None:
            return False
        running.log.close()
        del self.running[training.id]
        if code == 0:
            self._mark(training).touch()
        else:
            self.failed[training.id] = last_line(self.log(training))
        return True

    def stop(self) -> None:
        """End what runs; the last saved states stay."""
        for running in self.running.values():
            running.process.terminate()
        for running in self.running.values():
            running.process.wait()
            running.log.close()
        self.running.clear()

    def status(self) -> list[str]:
        """A line a training: how it stands, minutes of computing so far, the newest figures."""
        lines = []
        for training in self.trainings:
            if self.done(training):
                word = "done"
            elif training.id in self.failed:
                word = f"failed: {self.failed[training.id]}"
            else:
                word = "running" if training.id in self.running else "waiting"
            facts = newest_figures(self.state(training) / training.name / "figures.jsonl")
            figures = "  ".join(f"{name} {value:.4g}" for name, value in facts.get("figures", {}).items())
            progress = f", {facts['seconds'] / 60:.0f} at step {facts['step']:,}: {figures}" if facts else ""
            lines.append(f"{training.id}: {word}, {training.minutes:g} minutes{progress}")
        return lines


def read_queue(file: Path, names: Collection[str]) -> tuple[list[Training], int]:
    """The trainings and lanes of a TOML file; `names` are the networks there are.

    BadInput when a name, number or need in it is wrong.
    """
    try:
        book = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput("training.queue_missing", file=file) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput("training.queue_not_toml", file=file, reason=error) from None
    lanes = book.get("lanes", 1)
    if not isinstance(lanes, int) or not 1 <= lanes <= MOST_LANES:
        raise BadInput("training.queue_lanes", file=file, lanes=lanes, most=MOST_LANES)
    trainings: list[Training] = []
    for entry in book.get("training", []):
        trainings.append(read_training(entry, file, names, {training.id for training in trainings}))
    if not trainings:
        raise BadInput("training.queue_empty", file=file)
    return trainings, lanes


def read_training(entry: dict[str, Any], file: Path, names: Collection[str], earlier: set[str]) -> Training:
    """One [[training]] table, checked against the networks there are and the ids that stand before it."""
    name, minutes = entry.get("name"), entry.get("minutes")
    if not isinstance(name, str) or name not in names:
        raise BadInput("training.queue_network", file=file, network=name, known=", ".join(sorted(names)))
    if not isinstance(minutes, (int, float)) or not 0 < minutes <= 100_000:
        raise BadInput("training.queue_minutes", file=file, network=name, minutes=minutes)
    unknown = set(entry) - {"name", "minutes", "id", "flags", "after", "processes"}
    if unknown:
        raise BadInput("training.queue_unknown_key", file=file, key=min(unknown), network=name)
    flags, after = tuple(entry.get("flags", ())), tuple(entry.get("after", ()))
    processes = entry.get("processes", 1)
    if not isinstance(processes, int) or not 1 <= processes <= MOST_LANES:
        raise BadInput(
            "training.queue_processes", file=file, network=name, processes=processes, most=MOST_LANES
        )
    training = Training(name, minutes, str(entry.get("id", name)), flags, after, processes)
    if training.id in earlier:
        raise BadInput("training.queue_same_id", file=file, id=training.id)
    if missing := set(training.after) - earlier:
        raise BadInput("training.queue_after", file=file, id=training.id, missing=min(missing))
    return training


def freeze(folder: Path, data: Path, refresh: bool) -> None:
    """Copy code, data and the shipped pack into `folder`, once; with `refresh` the code again."""
    code = folder / "code"
    if code.exists() and not refresh:
        return
    if not data.exists():
        raise BadInput("training.data_missing", file=data)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / "code-new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name in FROZEN:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, fresh / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, fresh / name)
    if not (folder / "pack").exists():
        shutil.copytree(PACK, folder / "pack")
    if not (folder / "data.safetensors").exists():
        shutil.copy2(data, folder / "data.safetensors")
    shutil.rmtree(code, ignore_errors=True)
    os.replace(fresh, code)


def _queue_runs(folder: Path, number: int) -> BadInput:
    return BadInput("training.queue_running", folder=folder, pid=number)


def run_queue(queue: Queue, say: Callable[[str], None]) -> int:
    """Run everything that can run. Returns the exit code: 1 when a training failed."""
    reported_at = time.monotonic()
    try:
        while True:
            for training in queue.trainings:
                if training.id in queue.running and queue.collect(training):
                    say(next(line for line in queue.status() if line.startswith(f"{training.id}:")))
            while len(queue.running) < queue.lanes and (next_training := queue.next()):
                queue.start(next_training)
                say(f"{next_training.id}: running; what it says is in {queue.log(next_training)}")
            if not queue.running:
                break
            if time.monotonic() - reported_at > TOLD_SECONDS:
                reported_at = time.monotonic()
                for line in queue.status():
                    say(line)
            time.sleep(LOOK_SECONDS)
    finally:
        queue.stop()
    return 1 if queue.failed else 0


def last_line(file: Path) -> str:
    """The last line of a log that is not empty, cut to 200 characters."""
    lines = [line for line in file.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def newest_figures(file: Path) -> dict[str, Any]:
    """The last whole line of a figures.jsonl; {} when there is none."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_text("utf-8").strip().rsplit("\n", 1)[-1])
    return {}


def main(argv: list[str], names: Collection[str]) -> int:
    """`python launch.py train queue`: run a list of trainings of the networks `names`, or tell how it stands."""
    parser = Parser(
        prog="launch.py train queue",
        description="Run a list of trainings at low priority from a frozen copy. The same command goes on after any stop.",
    )
    parser.add_argument("file", type=Path, help="the list, a TOML file: training.toml has the pack's")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/queue"), help="copy, states, logs (runs/queue)"
    )
    parser.add_argument("--data", type=Path, default=DATA_FILE, help=f"made by launch.py data ({DATA_FILE})")
    parser.add_argument(
        "--lanes", type=number(int, 1, MOST_LANES), help="trainings at the same time (the file's own)"
    )
    parser.add_argument(
        "--refresh", action="store_true", help="copy the code anew; states, data and pack stay"
    )
    parser.add_argument("--status", action="store_true", help="tell how it stands, and run nothing")
    options = parser.parse_args(argv)
    trainings, lanes = read_queue(options.file, names)
    queue = Queue(options.folder.absolute(), trainings, options.lanes or lanes)

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M')}  {text}", file=sys.stderr, flush=True)

    if options.status:
        for line in queue.status():
            print(line)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl+C, and the trainings with it
    try:
        with held(queue.folder, _queue_runs):
            freeze(queue.folder, options.data, options.refresh)
            return run_queue(queue, say)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from the last saved states")
        return 130
