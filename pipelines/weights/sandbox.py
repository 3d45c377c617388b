"""The process that reads pickled checkpoints: how it is started, how it limits itself, and how it answers.

After `lock`, the process cannot open a file, import a module, start a program or reach the network, whatever the pickle
says. It writes the tensors as safetensors, with the plain values as JSON in the metadata "numbers". It ends with 0, or
with REFUSED and one phrase on standard output that says what is wrong with the file.
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

from pipelines.weights.pickle_file import Contents, write
from pipelines.weights.unpickle import Refused

REFUSED = 3  # exit code
ROOT = Path(__file__).resolve().parents[2]
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from pipelines.weights.sandbox import main; main(*sys.argv[1:])"
)
KEPT_VARIABLES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # without which Python may not start


def start(source: Path, output: Path, folder: Path, memory: int, seconds: float) -> tuple[int, str]:
    """Convert the pickled checkpoint `source` to `output` in a process of its own; its exit code and its phrase.

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
    return done.returncode, " ".join(done.stdout.decode("utf-8", "replace").split())[:240]


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

    def doorkeeper(event: str, _: Any) -> None:
        if event != "pickle.find_class":
            raise Refused(f"tried to do something that no checkpoint does ({event})")

    sys.addaudithook(doorkeeper)


def _leave(phrase: str) -> NoReturn:
    """End at once, without Python's own tidying, which a hostile object could be part of."""
    os.write(1, phrase.encode("utf-8", "replace"))
    os._exit(REFUSED)


def main(source: str, output: str, memory: str, seconds: str) -> NoReturn:
    """Convert one file; never returns."""
    with open(source, "rb") as file, open(output, "xb") as out:
        lock(int(memory), int(seconds))
        try:
            write(Contents(file, int(memory)), out)
            out.flush()
        except Refused as problem:
            _leave(str(problem))
        except MemoryError:
            _leave(f"needs more than {int(memory) / 1e9:.1f} GB of memory")
        except OSError as problem:
            _leave(f"could not be unpacked ({(problem.strerror or str(problem)).lower()[:100]})")
        except (EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as problem:
            _leave(f"is damaged or cut off ({str(problem)[:100]})")
        except BaseException as problem:
            _leave(f"is damaged or not a checkpoint ({type(problem).__name__}: {str(problem)[:100]})")
        os._exit(0)
