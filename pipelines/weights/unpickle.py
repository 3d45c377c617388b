"""What a stranger's pickle may build: descriptions of tensors, and plain values.

A pickle is a program that calls functions by name. Here a few names rebuild tensors as descriptions of tensors. Every
other name gives a `Stub`, which keeps what it is given and does nothing. No module is imported by name; torch is not
imported at all.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from pipelines.errors import CodedError

DTYPES = {  # torch's name: safetensors' name, bytes
    "float64": ("F64", 8),
    "float32": ("F32", 4),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
    "float8_e4m3fnuz": ("F8_E4M3FNUZ", 1),
    "float8_e5m2fnuz": ("F8_E5M2FNUZ", 1),
    "complex64": ("C64", 8),
    "int64": ("I64", 8),
    "int32": ("I32", 4),
    "int16": ("I16", 2),
    "int8": ("I8", 1),
    "uint64": ("U64", 8),
    "uint32": ("U32", 4),
    "uint16": ("U16", 2),
    "uint8": ("U8", 1),
    "bool": ("BOOL", 1),
}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
NUMPY_KINDS = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "c8": "complex64",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u8": "uint64",
    "u4": "uint32",
    "u2": "uint16",
    "u1": "uint8",
    "b1": "bool",
}


class Refused(CodedError):
    """The file is not what it should be; the sentence goes on from "it"."""


# Descriptions are tuples, which a pickle cannot change afterwards.


class Storage(NamedTuple):
    """A stretch of bytes in the file, by its key, and the dtype of its numbers."""

    key: str
    dtype: str


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes, when written out."""
        return math.prod(self.shape) * DTYPES[self.dtype][1]


class Stub:
    """Stands for an object of any other class: it keeps what it is given, for its tensors, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Stub:
        """Made from anything; only what follows is kept."""
        stub = super().__new__(cls)
        stub.state, stub.entries, stub.values = None, {}, []
        return stub

    state: Any
    entries: dict[Any, Any]
    values: list[Any]

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep an entry, as of a dict."""
        self.entries[key] = value

    def __call__(self, *_: Any, **__: Any) -> Stub:
        """Another Stub, for the result of a call."""
        return Stub()

    def append(self, value: Any) -> None:
        """Keep a value, as of a list."""
        self.values.append(value)

    add = append

    def extend(self, values: list[Any]) -> None:
        """Keep several values."""
        self.values.extend(values)


class NumpyType(Stub):
    """numpy.dtype, by its short name."""

    def __new__(cls, name: Any = "", *_: Any) -> NumpyType:
        """Made from the short name, such as "<f4"."""
        stub = super().__new__(cls)
        stub.entries = {"name": name}
        return stub  # type: ignore[return-value]

    @property
    def dtype(self) -> str | None:
        """torch's name of it, None for what is no tensor (objects, texts, big-endian numbers)."""
        state = cast("tuple[Any, ...]", held) if isinstance(held := cast(object, self.state), tuple) else ()
        big = len(state) > 1 and state[1] == ">"
        return None if big else NUMPY_KINDS.get(str(self.entries["name"]).lstrip("<|="))


class Array(Stub):
    """A numpy array, whose state is (version, shape, dtype, in Fortran's order, bytes)."""


def numpy_scalar(kind: Any, data: Any = b"") -> int | float | bool | complex | None:
    """The Python number that a numpy scalar holds."""
    short = {value: key for key, value in NUMPY_KINDS.items()}.get(getattr(kind, "dtype", None) or "")
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, short, 1)[0].item() if short and isinstance(data, bytes) else None


def numpy_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    """How pickle's fifth protocol writes an array."""
    array = Array()
    array.__setstate__((1, shape, kind, order == "F", bytes(data)))
    return array  # type: ignore[return-value]


def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor and its second version."""
    return checked_tensor(storage, getattr(storage, "dtype", None), offset, shape, strides)


def tensor_with_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> Tensor:
    """The third version, for numbers that have no storage class."""
    return checked_tensor(storage, dtype, offset, shape, strides)


def checked_tensor(storage: Any, dtype: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """A Tensor of a known dtype and of integers in range; Refused otherwise."""
    good = isinstance(storage, Storage) and dtype in DTYPES and len(shape) == len(strides) <= 32
    if not good or any(
        type(number) is not int or not 0 <= number < 2**48 for number in (offset, *shape, *strides)
    ):
        raise Refused("weights.absurd_tensor", shape=str(shape)[:60], dtype=str(dtype)[:20])
    return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def first(value: Any = None, *_: Any) -> Any:
    """A parameter is its data, a tagged list its list, a torch.Size its tuple, a device its name."""
    return value


def of_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor with attributes: the tensor."""
    return function(*arguments) if function in (tensor, tensor_with_dtype, first) else Stub()


def latin(text: Any, *_: Any) -> bytes:
    """How pickle's second protocol writes bytes."""
    return text.encode("latin1")


WORDS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,  # its name in pickle's second protocol
    ("_codecs", "encode"): latin,
    ("torch", "Size"): first,
    ("torch", "device"): first,
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_tensor_v3"): tensor_with_dtype,
    ("torch._utils", "_rebuild_parameter"): first,
    ("torch._utils", "_rebuild_parameter_with_state"): first,
    ("torch._tensor", "_rebuild_from_type_v2"): of_type,
    ("torch.jit._pickle", "build_intlist"): first,
    ("torch.jit._pickle", "build_doublelist"): first,
    ("torch.jit._pickle", "build_boollist"): first,
    ("torch.jit._pickle", "build_tensorlist"): first,
    ("torch.jit._pickle", "restore_type_tag"): first,
    ("numpy", "dtype"): NumpyType,
    **{
        (f"numpy.{core}.{module}", name): value
        for core in ("core", "_core")
        for module, name, value in (
            ("multiarray", "_reconstruct", Array),
            ("multiarray", "scalar", numpy_scalar),
            ("numeric", "_frombuffer", numpy_buffer),
        )
    },
    **{("torch", name): name for name in DTYPES},
    **{(module, name): name for module in ("torch", "torch.cuda", "torch.storage") for name in STORAGES},
}


class Unpickler(pickle.Unpickler):
    """Python's own unpickler, which knows WORDS alone.

    `nested` reads a torch file that lies inside the pickle. `storages` holds the storages met so far by their keys,
    which begin with `prefix`.
    """

    def __init__(self, file: BinaryIO, nested: Callable[[bytes], Any], prefix: str = "") -> None:
        super().__init__(file, encoding="latin1")
        self.nested, self.prefix = nested, prefix
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """One of WORDS, or a Stub."""
        if (module, name) == ("torch.storage", "_load_from_bytes"):  # a plain pickle of a tensor
            return self.nested
        return WORDS.get((module, name), Stub)

    def persistent_load(self, pid: Any) -> Storage | type[Stub]:
        """torch's mark for a storage: ("storage", class, key, device, count, and in old files a view)."""
        mark = cast("tuple[Any, ...]", pid) if isinstance(pid, tuple) else ()
        if mark[:1] == ("module",):
            return Stub  # old files keep the source of a network's class
        if not (len(mark) >= 5 and mark[0] == "storage" and mark[1] in STORAGES):
            raise Refused("weights.not_a_storage")
        if len(mark) > 5 and mark[5] is not None:
            raise Refused("weights.storage_view")
        key = self.prefix + str(mark[2])
        return self.storages.setdefault(key, Storage(key, STORAGES[mark[1]]))
