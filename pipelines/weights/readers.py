"""Reads the file formats of published checkpoints. Pickles are read by another process, `sandbox.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from safetensors import SafetensorError
from torch import Tensor

from pipelines.errors import BadInput, Message, one_line, reason_of
from pipelines.io.values import is_dict
from pipelines.models.source import SourceCheckpoint
from pipelines.weights import sandbox
from pipelines.weights.flax import is_flax, read_flax
from pipelines.weights.mapped import Mapped, map_safetensors


def read_original(
    path: Path, seconds: float = 600, memory: int = 16 * 2**30, folder: Path | None = None
) -> SourceCheckpoint:
    """Read a published file of weights from an untrusted source. Its first bytes tell the format, not its name.

    Args:
        path: The file.
        seconds: The time that the process which reads pickles may take.
        memory: The bytes that the process may use, and the largest file that is read.
        folder: Where that process writes its temporary copy. None is the system's temporary folder.

    Returns:
        The tensors and plain values in the file. The tensors lie in the file, or in a temporary copy, until they are used.

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
                    "weights.file_too_large", file=path.name, gigabytes=size / 1e9, most=memory / 1e9
                )
            if form == "flax":
                return _read_flax(path)
    except OSError as error:
        raise BadInput("weights.file_unreadable", file=path.name, reason=reason_of(error)) from None
    if form == "safetensors":
        return _read_safetensors(path, path.name)
    if form == "pickle":
        return _read_pickle(path, seconds, memory, folder)
    raise _no_weights(path, form)


def _no_weights(path: Path, problem: Message) -> BadInput:
    return BadInput("weights.not_weights", file=path.name, problem=problem)


def _form(file: BinaryIO, size: int) -> Literal["safetensors", "pickle", "flax"] | Message:
    """The file's form by its first bytes ("pickle": plain or in PyTorch's zip archive), or else what the file is."""
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
        return Message("weights.is_empty")
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return Message("weights.is_archive")
    if start[:1] in b"<{" or start.startswith(b"version https://git-lfs"):
        return Message("weights.is_text")
    return Message("weights.is_unknown")


def _read_safetensors(path: Path, name: str) -> SourceCheckpoint:
    try:
        tensors, metadata, mapped = map_safetensors(path)
    except (
        SafetensorError,
        OSError,
        LookupError,
        ValueError,
        RuntimeError,
        TypeError,
        AttributeError,
    ) as error:
        if strange := re.search(
            r"unknown variant `(\w{1,20})`", str(error)
        ):  # a type of numbers in the header
            raise BadInput("weights.number_type", name=name, type=strange[1]) from None
        raise BadInput("weights.file_damaged", file=name, reason=one_line(error, 120)) from None
    return SourceCheckpoint(name, tensors, dict(metadata), mapped.release if mapped else None)


def _read_flax(path: Path) -> SourceCheckpoint:
    mapped = Mapped(path)
    try:
        tree = read_flax(memoryview(mapped.map))
    except (
        ValueError,
        OverflowError,
        RuntimeError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise _no_weights(
            path,
            Message("weights.flax_damaged", {"reason": one_line(error, 120)}),
        ) from None
    tensors, numbers = _flat(tree)
    if not tensors:
        raise _no_weights(path, Message("weights.no_tensors"))
    return SourceCheckpoint(path.name, tensors, numbers, mapped.release)


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


def _read_pickle(path: Path, seconds: float, memory: int, folder: Path | None) -> SourceCheckpoint:
    """Let the other process write a pickle's tensors as safetensors, and read those. BadInput when it fails."""
    with tempfile.TemporaryDirectory(prefix=".atelier-", dir=folder, ignore_cleanup_errors=True) as work:
        copy = Path(work) / "tensors.safetensors"
        inside = Path(work) / "empty"
        inside.mkdir()
        try:
            code, problem = sandbox.start(path, copy, inside, memory, seconds)
        except subprocess.TimeoutExpired:
            raise _no_weights(path, Message("weights.too_slow", {"seconds": seconds})) from None
        if code == sandbox.EXIT_REFUSED:
            raise _no_weights(path, problem)
        if code != 0:  # a limit of the system, or a crash
            limits = Message(
                "weights.not_read", {"seconds": seconds, "gigabytes": memory / 1e9, "exit_code": code}
            )
            raise _no_weights(path, limits)
        original = _read_safetensors(copy, path.name)
        return replace(original, metadata=json.loads(original.metadata["numbers"]))
