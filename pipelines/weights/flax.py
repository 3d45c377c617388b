"""Reads Flax's checkpoints: a tree of maps in msgpack (msgpack.org), with Flax's extension types for arrays."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipelines.io.values import is_dict
from pipelines.weights.mapped import view

MOST_DEPTH, MOST_VALUES = 64, 2_000_000
ARRAY, COMPLEX, SCALAR = 1, 2, 3  # Flax's extension types
CHUNKED = "__msgpack_chunked_array__"  # arrays of more than a gigabyte are cut into flat pieces
DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex64", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
}
# First byte: (struct's letter of a number) or (how many bytes tell a length, and what has that length).
NUMBERS = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True))
LENGTHS = {
    **{0xC4 + i: (1 << i, "bytes") for i in range(3)},
    **{0xC7 + i: (1 << i, "extension") for i in range(3)},
    **{0xD9 + i: (1 << i, "text") for i in range(3)},
    **{0xDC + i: (2 << i, "list") for i in range(2)},
    **{0xDE + i: (2 << i, "map") for i in range(2)},
}


def is_flax(start: bytes) -> bool:
    """Whether a file with these first bytes may be a Flax checkpoint: a map with entries whose first key is a text."""
    skip = {0xDE: 3, 0xDF: 5}.get(start[0], 1) if start else 0
    key = start[skip : skip + 1]
    return (
        bool(key)
        and (skip > 1 or 0x81 <= start[0] <= 0x8F)
        and (0xA0 <= key[0] <= 0xBF or key[0] in (0xD9, 0xDA))
    )


def read_flax(data: memoryview) -> dict[str, Any]:
    """The tree of maps in the bytes of a file, with arrays as tensors that lie in these bytes.

    ValueError when it is damaged, cut off, or not a map. Crafted files may also raise TypeError, KeyError,
    AttributeError, RuntimeError, OverflowError or RecursionError.
    """
    reader = _Reader(data)
    tree = reader.value(0)
    if not is_dict(tree) or reader.at != len(data):
        raise ValueError("it is not one map")
    return tree


class _Reader:
    """Reads msgpack values one after another. Each length is checked against the bytes that are left."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = self.count = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        if size > len(self.data) - self.at:
            raise ValueError("it is cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def whole(self, size: int) -> int:
        """The next `size` bytes as a whole number."""
        return int.from_bytes(self.take(size), "big")

    def value(self, depth: int) -> Any:
        """The next value."""
        self.count += 1
        if depth > MOST_DEPTH or self.count > MOST_VALUES:
            raise ValueError("it nests its values too deeply for a checkpoint")
        code = self.whole(1)
        if code <= 0x7F or code >= 0xE0:
            return code if code <= 0x7F else code - 256
        if code <= 0x8F:
            return self.map(code & 15, depth)
        if code <= 0x9F:
            return self.list(code & 15, depth)
        if code <= 0xBF:
            return self.text(code & 31, depth)
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in NUMBERS:
            letter = ">" + NUMBERS[code]
            return struct.unpack(letter, self.take(struct.calcsize(letter)))[0]
        if 0xD4 <= code <= 0xD8:
            return self.extension(1 << (code - 0xD4), depth)
        if code not in LENGTHS:
            raise ValueError(f"the byte {code:#x} begins no value")
        size, kind = LENGTHS[code]
        read: Callable[[int, int], Any] = getattr(self, kind)
        return read(self.whole(size), depth)

    def bytes(self, size: int, _: int) -> memoryview:
        return self.take(size)

    def text(self, size: int, _: int) -> str:
        return str(self.take(size), "utf-8")

    def list(self, count: int, depth: int) -> Any:
        return [self.value(depth + 1) for _ in range(count)]

    def map(self, count: int, depth: int) -> Any:
        """A map with texts as keys, or the tensor when it is an array in chunks."""
        entries: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, (str, int)) or str(key) in entries:
                raise ValueError(f"{str(key)[:40]!r} is a strange key or comes twice")
            entries[str(key)] = self.value(depth + 1)
        return _joined(entries) if CHUNKED in entries else entries

    def extension(self, size: int, depth: int) -> Any:
        kind = self.whole(1)
        inside = _Reader(self.take(size))
        parts = inside.value(depth + 1)
        if kind == COMPLEX:
            return complex(*parts)
        if kind not in (ARRAY, SCALAR):
            raise ValueError(f"the extension type {kind} is not Flax's")
        shape, name, data = parts
        array = _array(shape, name, data)
        return array.item() if kind == SCALAR else array


def _array(shape: Any, name: Any, data: memoryview) -> Tensor:
    """The tensor of Flax's (shape, name of the dtype, bytes), over these bytes."""
    dtype = DTYPES.get(name)
    if dtype is None:
        raise ValueError(f"the dtype {str(name)[:20]!r} is not known")
    if any(type(side) is not int or side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(
        data
    ):
        raise ValueError(f"an array of shape {str(shape)[:40]} has {len(data)} bytes")
    return view(data, dtype, shape)


def _joined(entries: dict[str, Any]) -> Tensor:
    shape, chunks = entries["shape"], entries["chunks"]
    shape = [shape[str(i)] for i in range(len(shape))] if is_dict(shape) else shape
    return torch.cat([chunks[str(i)] for i in range(len(chunks))]).reshape(shape)
