"""The process that reads pickled checkpoints: how it is started, how it limits itself, and how it answers.

After `lock`, the process cannot open a file, import a module, start a program or reach the network, whatever the pickle
says. It writes the tensors as safetensors, with the plain values as JSON in the metadata "numbers". It ends with 0, or
with EXIT_REFUSED and a message as JSON on standard output that says what is wrong with the file, after "it".
"""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pipelines.errors import Message, templates
from pipelines.weights.pickle_file import Contents, write
from pipelines.weights.unpickle import Refused

EXIT_REFUSED = 3  # exit code
MOST_SAID = 4000  # bytes of its answer that are read
ROOT = Path(__file__).resolve().parents[2]
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from pipelines.weights.sandbox import main; main(*sys.argv[1:])"
)
KEPT_VARIABLES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # without which Python may not start


def start(source: Path, output: Path, folder: Path, memory: int, seconds: float) -> tuple[int, Message]:
    """Convert the pickled checkpoint `source` to `output` in a process of its own; its exit code and what it said.

    `folder` is where the process runs. `memory` (bytes) limits what it uses and writes. It is ended after `seconds`,
    with subprocess.TimeoutExpired.
    """
    program = [sys.executable, "-I", "-B", "-c", START, str(ROOT)]
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    done = subprocess.run(
        [*program, str(source.absolute()), str(output.absolute()), str(memory), str(math.ceil(seconds))],
        cwd=folder,
        env={**environment, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
    )
    text = done.stdout[:MOST_SAID].decode("utf-8", "replace")
    return done.returncode, Message.from_text(text) or Message.from_json("")


# ------------------------------------------------------------------------------------------ inside the process


def lock(memory: int, seconds: int) -> None:
    """Limit memory (bytes) and processor time, leave the network, and refuse whatever Python would audit."""
    if sys.platform != "win32":
        import resource

        hard = {"AS": memory, "CPU": seconds, "FSIZE": memory, "CORE": 0}
        for name, value in hard.items():
            with suppress(ValueError, OSError):  # a machine may set a lower one, or know none
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if sys.platform == "linux":
        import ctypes

        new_user, new_network = 0x10000000, 0x40000000
        ctypes.CDLL(None).unshare(new_user | new_network)  # where it is allowed: a network without any device
    "".encode("cp437")  # what zipfile will want, while modules can still be imported
    templates()  # what a message will want, while files can still be opened

    def doorkeeper(event: str, _: Any) -> None:
        if event != "pickle.find_class":
            raise Refused("weights.tried_something", event=event)

    sys.addaudithook(doorkeeper)


def _leave(problem: Refused) -> NoReturn:
    """End at once, without Python's own tidying, which a hostile object could be part of."""
    os.write(1, problem.message.to_text().encode())
    os._exit(EXIT_REFUSED)


def _line(problem: BaseException) -> str:
    return " ".join(str(problem)[:100].split())


def main(source: str, output: str, memory: str, seconds: str) -> NoReturn:
    """Convert one file; never returns."""
    with open(source, "rb") as file, open(output, "xb") as out:
        lock(int(memory), int(seconds))
        try:
            write(Contents(file, int(memory)), out)
            out.flush()
        except Refused as problem:
            _leave(problem)
        except MemoryError:
            _leave(Refused("weights.needs_memory", gigabytes=int(memory) / 1e9))
        except OSError as problem:
            reason = (problem.strerror or str(problem)).lower()[:100]
            _leave(Refused("weights.not_unpacked", reason=reason))
        except (EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as problem:
            _leave(Refused("weights.damaged", reason=_line(problem)))
        except BaseException as problem:
            _leave(Refused("weights.no_checkpoint", kind=type(problem).__name__, reason=_line(problem)))
        os._exit(0)
