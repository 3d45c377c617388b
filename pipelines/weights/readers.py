"""Reads the file formats of published checkpoints. Pickles are read by another process, `unpickle.py`."""

from __future__ import annotations

import json
import math
import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.tensors import open_tensors
from pipelines.io.values import is_dict
from pipelines.models.source import Original
from pipelines.weights.flax import is_flax, read_flax
from pipelines.weights.unpickle import REFUSED

EXPECTED = "expected weights as safetensors, as PyTorch's .pt, .ckpt or TorchScript, or as Flax's msgpack"
KEPT_VARIABLES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # without which Python may not start


def read_original(
    path: Path, seconds: float = 600, memory: int = 16 * 2**30, folder: Path | None = None
) -> Original:
    """Read a published file of weights from an untrusted source. Its first bytes tell the format, not its name.

    Args:
        path: The file.
        seconds: The time that the process which reads pickles may take.
        memory: The bytes that the process may use, and the largest file that is read.
        folder: Where that process writes its temporary copy. None is the system's temporary folder.

    Returns:
        The tensors and plain values in the file.

    Raises:
        BadInput: When the file is of none of the formats, damaged, cut off or too large, or when a pickle holds anything
            but tensors and plain values.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            form = _form(file, size)
            if size > memory:
                raise BadInput(
                    f"{path.name} has {size / 1e9:.1f} GB, more than the {memory / 1e9:.1f} GB allowed"
                )
            if form == "flax":
                return _read_flax(path, file)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"{path.name} cannot be opened ({reason}); give the path of a checkpoint") from None
    if form == "safetensors":
        return _read_safetensors(path, path.name)
    if form == "pickle":
        return _read_pickle(path, seconds, memory, folder)
    raise BadInput(f"{path.name} is {form}; {EXPECTED}")


def _form(file: BinaryIO, size: int) -> str:
    """The format: "safetensors", "pickle" (plain or in PyTorch's zip) or "flax". For others, what the file is in words."""
    start = file.read(512)
    file.seek(0)
    if start[:4] == b"PK\x03\x04" or (
        start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    ):
        return "pickle"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return "safetensors"
    if is_flax(start):
        return "flax"
    if not start:
        return "empty"
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return "a packed archive; unpack it and give the file of weights inside"
    if start[:1] in b"<{" or start.startswith(b"version https://git-lfs"):
        return "a text, perhaps the page or the pointer of a download that failed"
    return "no checkpoint by its first bytes"


def _read_safetensors(path: Path, name: str) -> Original:
    try:
        with open_tensors(path) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return Original(name, tensors, dict(file.metadata() or {}))
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise BadInput(f"{name} is damaged or cut off ({_short(error)}); download it again") from None


def _read_flax(path: Path, file: BinaryIO) -> Original:
    try:
        tree = read_flax(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (
        ValueError,
        OverflowError,
        RuntimeError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise BadInput(
            f"{path.name} is damaged or no Flax checkpoint ({_short(error)}); {EXPECTED}"
        ) from None
    tensors, numbers = _flat(tree)
    if not tensors:
        raise BadInput(f"{path.name} holds no tensors; {EXPECTED}")
    return Original(path.name, tensors, numbers)


def _flat(tree: dict[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a tree by their names joined with ".", and its plain values as a tree."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value
        elif is_dict(value):
            inside, plain = _flat(value, f"{prefix}{key}.")
            tensors |= inside
            numbers |= {str(key): plain} if plain else {}
        else:
            numbers[str(key)] = value
    return tensors, numbers


def _read_pickle(path: Path, seconds: float, memory: int, folder: Path | None) -> Original:
    """Let the other process write a pickle's tensors as safetensors, and read those. BadInput when it fails."""
    with tempfile.TemporaryDirectory(prefix=".atelier-", dir=folder, ignore_cleanup_errors=True) as work:
        copy = Path(work) / "tensors.safetensors"
        inside = Path(work) / "empty"
        inside.mkdir()
        program = Path(__file__).with_name("unpickle.py")
        limits = [str(memory), str(math.ceil(seconds))]
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-I",
                    "-B",
                    str(program),
                    str(path.absolute()),
                    str(copy.absolute()),
                    *limits,
                ],
                cwd=inside,
                env={**environment, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise BadInput(
                f"{path.name} took more than {seconds:g} s to read and was given up; {EXPECTED}"
            ) from None
        if done.returncode == REFUSED:
            phrase = " ".join(done.stdout.decode("utf-8", "replace").split())[:240]
            raise BadInput(f"{path.name} {phrase}; {EXPECTED}")
        if done.returncode != 0:  # a limit of the system, or a crash
            raise BadInput(
                f"{path.name} could not be read within {seconds:g} s and {memory / 1e9:.1f} GB "
                f"(exit code {done.returncode}); {EXPECTED}"
            )
        original = _read_safetensors(copy, path.name)
        return Original(path.name, original.tensors, json.loads(original.numbers["numbers"]))


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
