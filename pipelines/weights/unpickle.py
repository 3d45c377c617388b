"""A process of its own that opens one pickled checkpoint, and can build tensors and plain values and nothing else.

A pickle is a program. Here its words have other meanings: the few that rebuild tensors give descriptions of tensors, all
others give a `Stub`, which takes whatever it is given and does nothing. torch is not even imported. After `lock`, the
process cannot open a file, import a module, start a program or reach the network, whatever the pickle says.

    python -I unpickle.py SOURCE OUTPUT MEMORY SECONDS

writes the tensors to OUTPUT as safetensors, with the plain values as JSON in the metadata "numbers". Exit code 0, or 3
with one phrase on standard output that says what is wrong with SOURCE.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

REFUSED = 3
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a torch file from before the zip archives
MOST_NODES, MOST_DEPTH = (
    300_000,
    64,
)  # of the tree of objects; real checkpoints have a few thousand and a dozen
MOST_PLAIN, PLAIN_DEPTH, LONGEST_TEXT = 20_000, 8, 10_000  # of the plain values that are passed on
NOTHING = object()
NOT_WEIGHTS = {
    "callbacks",
    "loops",
    "lr_schedulers",
    "opt_state",
    "optimizer",
    "optimizer_states",
    "optimizers",
}

DTYPES = {  # torch's name: safetensors' name, bytes
    "float64": ("F64", 8),
    "float32": ("F32", 4),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
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


class Refused(Exception):
    """The file is not what it should be; the message is a phrase that goes on from "it"."""


# ------------------------------------------------------------------------- what a pickle's words mean here
# The results are tuples, which a pickle cannot change afterwards.


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
        stub = super().__new__(cls)
        stub.state, stub.entries, stub.values = None, {}, []
        return stub

    state: Any
    entries: dict[Any, Any]
    values: list[Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def __call__(self, *_: Any, **__: Any) -> Stub:
        return Stub()

    def append(self, value: Any) -> None:
        self.values.append(value)

    add = append

    def extend(self, values: list[Any]) -> None:
        self.values.extend(values)


class NumpyType(Stub):
    """numpy.dtype, by its short name."""

    def __new__(cls, name: Any = "", *_: Any) -> NumpyType:
        stub = super().__new__(cls)
        stub.entries = {"name": name}
        return stub  # type: ignore[return-value]

    @property
    def dtype(self) -> str | None:
        """torch's name of it, None for what is no tensor (objects, texts, big-endian numbers)."""
        big = isinstance(self.state, tuple) and len(self.state) > 1 and self.state[1] == ">"
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
    return _tensor(storage, getattr(storage, "dtype", None), offset, shape, strides)


def tensor_with_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> Tensor:
    """The third version, for numbers that have no storage class."""
    return _tensor(storage, dtype, offset, shape, strides)


def _tensor(storage: Any, dtype: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    good = isinstance(storage, Storage) and dtype in DTYPES and len(shape) == len(strides) <= 32
    if not good or any(
        type(number) is not int or not 0 <= number < 2**48 for number in (offset, *shape, *strides)
    ):
        raise Refused(f"holds a tensor of an absurd shape or kind ({str(shape)[:60]}, {str(dtype)[:20]})")
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
    """Python's own machine, with the words above; it tells which storages it met."""

    def __init__(self, file: BinaryIO, contents: Contents, prefix: str = "") -> None:
        super().__init__(file, encoding="latin1")
        self.contents, self.prefix = contents, prefix
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """One of WORDS, or a Stub."""
        if (module, name) == ("torch.storage", "_load_from_bytes"):  # a plain pickle of a tensor
            return self.contents.nested
        return WORDS.get((module, name), Stub)

    def persistent_load(self, pid: Any) -> Storage | type[Stub]:
        """torch's mark for a storage: ("storage", class, key, device, count, and in old files a view)."""
        if isinstance(pid, tuple) and pid[:1] == (
            "module",
        ):  # old files keep the source of a network's class
            return Stub
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and pid[1] in STORAGES):
            raise Refused("holds a reference that is not a storage")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("holds views of storages, which only very old versions of PyTorch wrote")
        key = self.prefix + str(pid[2])
        return self.storages.setdefault(key, Storage(key, STORAGES[pid[1]]))


# --------------------------------------------------------------------------------------- the forms of file


class Contents:
    """The tree of objects in a file, and the bytes of its storages, read when they are asked for."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.limit = limit
        self.sources: dict[str, Callable[[], Any]] = {}
        start = file.read(4)
        file.seek(0)
        self.value = self._archive(file) if start == b"PK\x03\x04" else self._stream(file)

    def read(self, key: str) -> Any:
        """The bytes of a storage."""
        if key not in self.sources:
            raise Refused(f"lacks the storage {key[:40]!r}")
        return self.sources[key]()

    def keep(self, data: Any) -> str:
        """A key for bytes that lay in the pickle itself."""
        key = f"kept/{len(self.sources)}"
        self.sources[key] = lambda: data
        return key

    def nested(self, data: Any) -> Any:
        """A torch file inside a pickle, which is how Python's own pickle writes a tensor's storage."""
        return self._stream(io.BytesIO(data), f"nested/{len(self.sources)}/")

    def _archive(self, file: BinaryIO) -> Any:
        """torch.save's zip archive and TorchScript's: a pickle, and one member for each storage."""
        archive = zipfile.ZipFile(file)
        members = {one.filename: one for one in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise Refused("holds two members of one name")
        if sum(one.file_size for one in members.values()) > self.limit:
            raise Refused(f"says that it unpacks to more than {self.limit / 1e9:.1f} GB")
        if sum(one.compress_size for one in members.values()) > file.seek(0, os.SEEK_END):
            raise Refused("holds members that overlap")
        pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise Refused("is a zip archive without data.pkl, so not one of PyTorch's")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise Refused("was saved on a big-endian machine")
        for name in members:
            if name.startswith(f"{folder}data/"):
                self.sources[name.removeprefix(f"{folder}data/")] = lambda name=name: archive.read(name)
        return Unpickler(io.BytesIO(archive.read(pickles[0])), self).load()

    def _stream(self, file: BinaryIO, prefix: str = "") -> Any:
        """A pickle; or torch's form before 1.6: magic number, version, machine, object, keys of storages, their bytes."""
        value = Unpickler(file, self).load()
        if not (type(value) is int and value == LEGACY_MAGIC):
            return value
        version, machine = Unpickler(file, self).load(), Unpickler(file, self).load()
        if version != 1001 or machine.get("little_endian") is not True:
            raise Refused("was saved by an unknown version of PyTorch or on a big-endian machine")
        unpickler = Unpickler(file, self, prefix)
        value = unpickler.load()
        keys = Unpickler(file, self).load()
        for key in keys:
            storage = unpickler.storages[f"{prefix}{key}"]
            size = int.from_bytes(_exactly(file, 8), "little") * DTYPES[storage.dtype][1]
            begin = file.tell()
            if file.seek(0, os.SEEK_END) < begin + size:
                raise Refused("is cut off")
            file.seek(begin + size)
            self.sources[storage.key] = lambda begin=begin, size=size: _at(file, begin, size)
        return value


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise Refused("is cut off")
    return data


def _at(file: BinaryIO, begin: int, size: int) -> bytes:
    file.seek(begin)
    return _exactly(file, size)


# ------------------------------------------------------------------------------------- from objects to a file


class Tree:
    """Walks the objects: tensors under flat names, and the plain values beside them as a tree of dicts and lists."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.tensors: dict[str, Tensor] = {}
        self.nodes = self.plain_count = 0
        value = contents.value
        if isinstance(value, dict):
            value = {key: one for key, one in value.items() if key not in NOT_WEIGHTS}
        numbers = self._walk(value, "", 0)
        self.numbers = numbers if isinstance(numbers, dict) else {}

    def _walk(self, value: Any, name: str, depth: int) -> Any:
        """The plain values of `value`, NOTHING when it has none; its tensors are noted."""
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > MOST_DEPTH:
            raise Refused("nests its objects too deeply for a checkpoint")
        if isinstance(value, Array):
            value = self._array(value)
        if isinstance(value, Tensor):
            if name in self.tensors or name == "__metadata__":  # which safetensors keeps for itself
                raise Refused(f"holds two tensors named {name[:80]!r}")
            self.tensors[name] = value
        elif value is None or isinstance(value, (bool, str)) or _small_number(value):
            self.plain_count += 1
            if self.plain_count <= MOST_PLAIN and depth <= PLAIN_DEPTH:
                return value[:LONGEST_TEXT] if isinstance(value, str) else value
        elif isinstance(value, dict):
            return self._branch(value.items(), name, depth)
        elif isinstance(value, Stub):
            return self._branch(_members(value), name, depth) or NOTHING
        elif isinstance(value, (list, tuple)) and not isinstance(value, Storage):
            branch = self._branch(enumerate(value), name, depth)
            return list(branch.values()) if branch is not NOTHING and len(branch) == len(value) else branch
        return NOTHING

    def _branch(self, members: Iterable[tuple[Any, Any]], name: str, depth: int) -> Any:
        branch = {
            str(key): self._walk(one, f"{name}.{key}" if name else str(key), depth + 1)
            for key, one in members
            if isinstance(key, (str, int))
        }
        plain = {key: one for key, one in branch.items() if one is not NOTHING}
        return plain if plain or not branch else NOTHING

    def _array(self, array: Array) -> Tensor | None:
        """A numpy array as a tensor; None when it holds no numbers."""
        _, shape, kind, fortran, data = array.state
        dtype = kind.dtype
        if dtype is None:
            return None
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        strides = [math.prod(shape[:i] if fortran else shape[i + 1 :]) for i in range(len(shape))]
        return _tensor(Storage(self.contents.keep(data), dtype), dtype, 0, shape, strides)


def _small_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**63  # which nan and infinity are not


def _members(stub: Stub) -> Iterator[tuple[Any, Any]]:
    """What an object holds; a network's parameters, buffers and parts go by their own names, as in its state_dict."""
    yield from stub.entries.items()
    yield from enumerate(stub.values)
    state = stub.state if isinstance(stub.state, tuple) else (stub.state,)
    for part in state:
        if not isinstance(part, dict):
            continue
        network = "_modules" in part
        hidden = part.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set) else set()
        for group in ("_parameters", "_buffers", "_modules") if network else ():
            members = part.get(group)
            if isinstance(members, dict):
                yield from ((name, one) for name, one in members.items() if name not in hidden)
        yield from ((key, one) for key, one in part.items() if not (network and str(key).startswith("_")))


def write(contents: Contents, out: BinaryIO) -> None:
    """Write a file's tensors, each storage read once, and its plain values."""
    tree = Tree(contents)
    if not tree.tensors:
        raise Refused("holds no tensors")
    if sum(one.size for one in tree.tensors.values()) > contents.limit:
        raise Refused(f"holds tensors of more than {contents.limit / 1e9:.1f} GB")
    # Wide numbers first, so that each begins at a multiple of its width.
    order = sorted(
        tree.tensors.items(), key=lambda one: (-DTYPES[one[1].dtype][1], one[1].storage.key, one[1].offset)
    )
    header: dict[str, Any] = {"__metadata__": {"numbers": json.dumps(tree.numbers)}}
    end = 0
    for name, one in order:
        header[name] = {
            "dtype": DTYPES[one.dtype][0],
            "shape": one.shape,
            "data_offsets": [end, end := end + one.size],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    key, data = None, b""
    for _, one in order:
        if one.size == 0:
            continue
        if one.storage.key != key:
            key, data = one.storage.key, contents.read(one.storage.key)
        width = DTYPES[one.dtype][1]
        view = np.ndarray(  # refuses what would reach beyond the data
            one.shape, f"V{width}", data, one.offset * width, [step * width for step in one.strides]
        )
        out.write(np.ascontiguousarray(view).reshape(-1).view("u1").data)


# ------------------------------------------------------------------------------------------------- the cage


def lock(memory: int, seconds: int) -> None:
    """Give away what is not needed: time and memory beyond the limits, the network, and all of Python's doors."""
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


if __name__ == "__main__":
    main(*sys.argv[1:])
