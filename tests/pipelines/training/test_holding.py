"""One process works in a folder: what holds it, what does not, and that a killed one holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipelines.errors import BadInput
from pipelines.training.holding import HOLDER, held, holder

HOLDING = """
import sys, time
from pathlib import Path
from pipelines.training.holding import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_another_process_is_refused_until_it_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    other = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE)
    with other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(BadInput, match=rf"already runs .* \(process {other.pid}\)"), held(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
    with held(tmp_path):
        process = holder(tmp_path)
        assert process is not None and process.pid == os.getpid()
    assert not (tmp_path / HOLDER).exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "[0, 0]", "null", "{", "[PID, 1.0]"]
)  # PID: begun at another time
def test_what_names_no_living_process_holds_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text(text.replace("PID", str(os.getpid())))
    assert holder(tmp_path) is None
    with held(tmp_path):
        pass


def test_a_process_is_known_by_when_it_was_begun(tmp_path: Path) -> None:
    begun = psutil.Process(os.getppid()).create_time()
    (tmp_path / HOLDER).write_text(json.dumps([os.getppid(), begun - 100]))
    assert holder(tmp_path) is None
    (tmp_path / HOLDER).write_text(json.dumps([os.getppid(), begun]))
    assert holder(tmp_path) is not None
