"""Tensors that lie in a file until they are used: the file is mapped, and what was read can leave memory again."""

from __future__ import annotations

import json
import math
import mmap
import warnings
from pathlib import Path

import torch
from torch import Tensor

from pipelines.io.tensors import open_tensors

DTYPES = {  # safetensors' names
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Mapped:
    """A file mapped for reading. Its tensors must not be written to. They keep the map alive."""

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def tensor(self, dtype: torch.dtype, shape: list[int], begin: int) -> Tensor:
        """The tensor whose bytes begin at `begin`. ValueError when the file ends before it."""
        return view(memoryview(self.map), dtype, shape, begin)

    def release(self) -> None:
        """Let the pages that were read leave this process's memory. They are read again when they are used again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


def view(data: memoryview, dtype: torch.dtype, shape: list[int], begin: int = 0) -> Tensor:
    """A tensor over the bytes of `data` from `begin` on, without a copy. ValueError when there are too few."""
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is not writable
        return torch.frombuffer(data, dtype=dtype, count=count, offset=begin).reshape(shape)


def map_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], Mapped | None]:
    """The tensors of a safetensors file, the texts in its header, and the map that the tensors lie in.

    There is no map when a dtype is not one of DTYPES; the tensors are then the library's. The library checks the file
    first: its SafetensorError passes through, and so do OSError and ValueError.
    """
    with open_tensors(path) as file:
        names, metadata = list(file.keys()), dict(file.metadata() or {})
        with open(path, "rb") as plain:
            length = int.from_bytes(plain.read(8), "little")
            header = json.loads(plain.read(length))
        if any(header[name]["dtype"] not in DTYPES for name in names):
            return {name: file.get_tensor(name) for name in names}, metadata, None
    mapped = Mapped(path)
    tensors = {
        name: mapped.tensor(
            DTYPES[header[name]["dtype"]],
            header[name]["shape"],
            8 + length + header[name]["data_offsets"][0],
        )
        for name in names
    }
    return tensors, metadata, mapped
