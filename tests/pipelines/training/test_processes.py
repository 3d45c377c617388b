"""Several processes that are started and watched together: they end together, and fewer go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.errors import BadInput
from pipelines.models.checkpoint import read_header
from pipelines.training import processes
from tests.support.training import write_data

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "support" / "tiny_training.py"
RANK = "import os, sys, time; rank = int(os.environ['RANK']); "


def run(code: str, tmp_path: Path, count: int = 3) -> int:
    return processes.run(["x"], count, tmp_path, ("-c", RANK + code))


def test_all_end_well_or_with_the_sentence_that_one_told(tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    code = f"open({str(tmp_path / 'seen')!r} + '/' + os.environ['WORLD_SIZE'] + sys.argv[1] + str(rank), 'w')"
    assert run(code, tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["3x0", "3x1", "3x2"]
    assert run("sys.exit(2 if rank == 1 else 0)", tmp_path) == 2


@pytest.mark.parametrize(("code", "told"), [(2, 2), (processes.UNSAVED, 1)])
@pytest.mark.parametrize(
    "others", [processes.LOST, 9]
)  # 9: as some libraries end a process without the others
def test_a_sentence_that_one_told_is_the_only_one(code: int, told: int, others: int, tmp_path: Path) -> None:
    mark = str(tmp_path / "told")
    first = f"open({mark!r}, 'w').close(), sys.exit({code})"
    later = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({mark!r}), True)], os._exit({others})"
    assert run(f"({first}) if rank == 1 else ({later})", tmp_path) == told


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_one_that_is_lost_ends_the_others_with_a_sentence(tmp_path: Path) -> None:
    code = "os.kill(os.getpid(), 9) if rank == 1 else sys.exit(75) if rank == 0 else time.sleep(60)"
    begun, others = time.monotonic(), set(psutil.Process().children())
    with pytest.raises(BadInput, match=r"process 2 of 3 was lost \(exit code -9\).*--processes 2"):
        run(code, tmp_path)
    assert time.monotonic() - begun < 50 and set(psutil.Process().children()) <= others


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_none_outlives_the_one_that_watches(how: signal.Signals, tmp_path: Path) -> None:
    watched = (
        "from pipelines.training.processes import end_with_watcher; end_with_watcher(); print(flush=True); "
    )
    code = f"{RANK}{watched}time.sleep(60)"
    watches = f"from pipelines.training.processes import run; run([], 2, None, ('-c', {code!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", watches], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == process.stdout.readline() == b"\n"
        children = psutil.Process(process.pid).children()
        process.send_signal(how)
        assert len(children) == 2 and psutil.wait_procs(children, timeout=50)[1] == []


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_a_training_that_lost_a_process_goes_on_with_fewer(tmp_path: Path) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    write_data(data)
    command = [sys.executable, str(TINY), "unet", "--batch", "2", "--save-every", "1", "--data", str(data)]
    command += ["--state", str(tmp_path / "state"), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TINY_STEP_SECONDS": "0.05"}
    two = subprocess.Popen(
        [*command, "--processes", "2", "--steps", "100000"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    state = tmp_path / "state" / "unet" / "state.safetensors"
    until = time.monotonic() + 240
    while not state.is_file() and two.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    second = next(child for child in psutil.Process(two.pid).children() if child.environ().get("RANK") == "1")
    second.send_signal(signal.SIGKILL)
    _, said = two.communicate(timeout=60)
    assert two.returncode == 2 and "atelier: process 2 of 2 was lost (exit code -9)" in said
    assert "Traceback" not in said
    from safetensors import safe_open

    with safe_open(state, "pt") as file:
        learned = file.metadata()["facts"]
    steps = int(learned.split('"step": ')[1].split(",")[0])
    one = subprocess.run(
        [*command, "--steps", str(steps + 3)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert one.returncode == 0, one.stderr
    _, facts = read_header(out / "unet.safetensors")
    assert facts["steps"] == steps + 3 and facts["processes"] == 1
    assert facts["samples"] == 2 * 2 * steps + 2 * 3
