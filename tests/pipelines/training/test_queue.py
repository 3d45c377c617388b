"""The queue of trainings: what it reads, in which order it runs, and that it goes on after a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.errors import BadInput
from pipelines.training import queue as queue_module
from pipelines.training.cli import TRAINERS
from pipelines.training.holding import HOLDER
from pipelines.training.queue import Queue, Training, freeze, main, read_queue, run_queue

NAMES = tuple(TRAINERS)
FAKE = """
import pathlib, sys, time
name, arguments = sys.argv[1], sys.argv[2:]
state = pathlib.Path(arguments[arguments.index("--state") + 1])
state.mkdir(parents=True, exist_ok=True)
started = state / "started"
count = len(started.read_text().split()) if started.exists() else 0
started.write_text("x " * (count + 1))
print("begun", name, *arguments, flush=True)
if name == "judge":
    print("the data is of another kind")
    sys.exit(2)
while name == "prior" and count == 0:
    time.sleep(0.05)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A queue's folder whose frozen code is a stand-in that notes its arguments; looked at often."""
    code = tmp_path / "queue" / "code" / "pipelines" / "training"
    code.mkdir(parents=True)
    for package in (code, code.parent):
        (package / "__init__.py").touch()
    (code / "cli.py").write_text(FAKE)
    monkeypatch.setattr(queue_module, "LOOK_SECONDS", 0.02)
    return tmp_path / "queue"


def started(queue: Queue, id: str) -> int:
    file = queue.folder / "states" / id / "started"
    return len(file.read_text().split()) if file.exists() else 0


def test_trainings_run_after_what_they_need_and_only_once(folder: Path) -> None:
    trainings = [
        Training("vqgan", 3, "codec", ("--start", "{pack}/x")),
        Training("dalle", 1, "dalle", after=("codec",)),
    ]
    said: list[str] = []
    assert run_queue(Queue(folder, trainings), said.append) == 0
    log = (folder / "logs" / "codec.txt").read_text()
    assert "--minutes 3 --clock processor --background" in log and f"--start {folder / 'pack'}/x" in log
    assert [line.split(":")[0] for line in said] == ["codec", "codec", "dalle", "dalle"]
    again = Queue(folder, trainings)
    assert run_queue(again, said.append) == 0 and started(again, "codec") == started(again, "dalle") == 1


def test_a_training_that_fails_holds_up_only_what_needs_it(folder: Path) -> None:
    trainings = [
        Training("judge", 1, "judge"),
        Training("prior", 1, "prior", after=("judge",)),
        Training("clip", 1, "clip"),
    ]
    queue = Queue(folder, trainings)
    assert run_queue(queue, lambda line: None) == 1
    assert queue.failed == {"judge": "the data is of another kind"}
    assert started(queue, "clip") == 1 and started(queue, "prior") == 0
    assert queue.status()[0] == "judge: failed: the data is of another kind, 1 minutes"


def test_a_stopped_queue_ends_its_trainings_and_goes_on_with_them(folder: Path) -> None:
    queue = Queue(folder, [Training("prior", 1, "prior")])
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.append(queue.running["prior"].process.pid)
        while started(queue, "prior") == 0:
            pass
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_queue(queue, stop)
    assert not psutil.pid_exists(pids[0]) and not queue.done(queue.trainings[0])
    assert run_queue(queue, lambda line: None) == 0
    assert queue.done(queue.trainings[0]) and started(queue, "prior") == 2


@pytest.mark.skipif(os.name == "nt", reason="priorities have other names there")
def test_a_training_in_the_background_gives_way_in_a_session_of_its_own() -> None:
    program = """
import os
import subprocess
import sys
from pathlib import Path
from pipelines.training.cli import give_way
give_way()
group = Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid(), group.read_text() if group.exists() else "")
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=queue_module.ROOT, capture_output=True, text=True
    )
    niceness, leads, *group = found.stdout.split()
    assert (niceness, leads) == ("15", "True"), found.stderr
    assert not group or group[-1] == "15"


def test_several_processes_share_the_threads_of_a_lane(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module.os, "cpu_count", lambda: 4)
    queue = Queue(folder, [Training("prior", 1, "a", processes=2)])
    queue.start(queue.trainings[0])
    process = psutil.Process(queue.running["a"].process.pid)
    while not ((command := process.cmdline()) and (environment := process.environ())):
        time.sleep(0.01)  # it has only just been started
    queue.stop()
    assert "torch.distributed.run" in command and "--nproc-per-node=2" in command
    assert environment["OMP_NUM_THREADS"] == "2"


def test_two_lanes_train_at_the_same_time_with_half_of_the_cores_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module.os, "cpu_count", lambda: 4)
    queue = Queue(folder, [Training("prior", 1, "a"), Training("prior", 1, "b")], lanes=2)
    for training in queue.trainings:
        queue.start(training)
    assert queue.next() is None and set(queue.running) == {"a", "b"}
    environment = psutil.Process(queue.running["a"].process.pid).environ()
    queue.stop()
    assert environment["OMP_NUM_THREADS"] == "2" and environment["OMP_WAIT_POLICY"] == "passive"


def test_the_copy_is_made_once_and_the_code_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder, data = tmp_path / "root", tmp_path / "queue", tmp_path / "emoji.safetensors"
    (root / "pipelines").mkdir(parents=True)
    (root / "launch.py").write_text("1")
    (root / "assets" / "strings").mkdir(parents=True)
    (root / "assets" / "strings" / "errors.json").write_text("{}")
    (root / "pack").mkdir()
    (root / "pack" / "clip").write_text("old")
    monkeypatch.setattr(queue_module, "ROOT", root)
    monkeypatch.setattr(queue_module, "PACK", root / "pack")
    with pytest.raises(BadInput, match=r"launch\.py data"):
        freeze(folder, data, refresh=False)
    data.write_bytes(b"x")
    freeze(folder, data, refresh=False)
    assert (folder / "code" / "assets" / "strings" / "errors.json").is_file()
    (root / "launch.py").write_text("2")
    (root / "pack" / "clip").write_text("new")
    freeze(folder, data, refresh=False)
    assert (folder / "code" / "launch.py").read_text() == "1"
    freeze(folder, data, refresh=True)
    assert (folder / "code" / "launch.py").read_text() == "2" and (
        folder / "pack" / "clip"
    ).read_text() == "old"


def test_one_queue_a_folder(tmp_path: Path) -> None:
    other = psutil.Process(os.getppid())  # some process that lives
    (tmp_path / HOLDER).write_text(json.dumps([other.pid, other.create_time()]))
    shipped = Path(__file__).parents[3] / "training.toml"
    with pytest.raises(BadInput, match=rf"a queue already runs in .* \(process {other.pid}\)"):
        main([str(shipped), "--folder", str(tmp_path)], NAMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no"),
        ("lanes = 0", "lanes = 0"),
        ("[[training]]\nname = 'gan'\nminutes = 1", "wants to train 'gan'"),
        ("[[training]]\nname = 'clip'\nminutes = 'x'", "minutes = 'x'"),
        ("[[training]]\nname = 'clip'\nminutes = 1\nhours = 2", "'hours'"),
        ("[[training]]\nname = 'clip'\nminutes = 1\nafter = ['vqgan']", "after 'vqgan'"),
        ("[[training]]\nname = 'clip'\nminutes = 1\n" * 2, "two trainings called 'clip'"),
        ("[[training", "no TOML file"),
    ],
)
def test_a_wrong_list_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "list.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=words) as caught:
        read_queue(file, NAMES)
    assert "\n" not in str(caught.value).strip()


def test_the_shipped_list_is_right_and_status_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(__file__).parents[3] / "training.toml"
    assert main([str(shipped), "--folder", str(tmp_path), "--lanes", "1", "--status"], NAMES) == 0
    lines: Any = capsys.readouterr().out.splitlines()
    assert len(lines) == len(read_queue(shipped, NAMES)[0]) and all(": waiting, " in line for line in lines)
    assert list(tmp_path.iterdir()) == []
