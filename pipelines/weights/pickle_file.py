"""A pickled checkpoint, from its bytes to one safetensors file.

`Contents` opens the forms of file: PyTorch's zip archive, its form before version 1.6, and a plain pickle. `Tree` gives
the tensors flat names. `write` writes them. It all runs in the process of `sandbox.py`.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np

from pipelines.io.values import is_dict
from pipelines.weights.unpickle import (
    DTYPES,
    Array,
    Refused,
    Storage,
    Stub,
    Tensor,
    Unpickler,
    checked_tensor,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a torch file from before the zip archives
MOST_NODES = 300_000  # of the tree of objects; real checkpoints have a few thousand
MOST_DEPTH = 64  # of that tree; real checkpoints have a dozen
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
            raise Refused("weights.storage_missing", key=key[:40])
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
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise Refused("weights.same_member")
        if sum(member.file_size for member in members.values()) > self.limit:
            raise Refused("weights.unpacks_too_large", gigabytes=self.limit / 1e9)
        if sum(member.compress_size for member in members.values()) > file.seek(0, os.SEEK_END):
            raise Refused("weights.overlap")
        pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise Refused("weights.not_pytorch_zip")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise Refused("weights.big_endian")
        for name in members:
            if name.startswith(f"{folder}data/"):
                self.sources[name.removeprefix(f"{folder}data/")] = lambda name=name: archive.read(name)
        return Unpickler(io.BytesIO(archive.read(pickles[0])), self.nested).load()

    def _stream(self, file: BinaryIO, prefix: str = "") -> Any:
        """A pickle; or torch's form before 1.6: magic number, version, machine, object, keys of storages, their bytes."""
        value = Unpickler(file, self.nested).load()
        if not (type(value) is int and value == LEGACY_MAGIC):
            return value
        version, machine = Unpickler(file, self.nested).load(), Unpickler(file, self.nested).load()
        if version != 1001 or machine.get("little_endian") is not True:
            raise Refused("weights.unknown_version")
        unpickler = Unpickler(file, self.nested, prefix)
        value = unpickler.load()
        keys = Unpickler(file, self.nested).load()
        for key in keys:
            storage = unpickler.storages[f"{prefix}{key}"]
            size = int.from_bytes(_exactly(file, 8), "little") * DTYPES[storage.dtype][1]
            begin = file.tell()
            if file.seek(0, os.SEEK_END) < begin + size:
                raise Refused("weights.cut_off")
            file.seek(begin + size)
            self.sources[storage.key] = lambda begin=begin, size=size: _at(file, begin, size)
        return value


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise Refused("weights.cut_off")
    return data


def _at(file: BinaryIO, begin: int, size: int) -> bytes:
    file.seek(begin)
    return _exactly(file, size)


class Tree:
    """Walks the objects: tensors under flat names, and the plain values beside them as a tree of dicts and lists."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.tensors: dict[str, Tensor] = {}
        self.nodes = self.plain_count = 0
        value = contents.value
        if is_dict(value):
            value = {key: member for key, member in value.items() if key not in NOT_WEIGHTS}
        numbers = self._walk(value, "", 0)
        self.numbers = numbers if is_dict(numbers) else {}

    def _walk(self, value: Any, name: str, depth: int) -> Any:
        """The plain values of `value`, NOTHING when it has none; its tensors are noted."""
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > MOST_DEPTH:
            raise Refused("weights.nested_too_deeply")
        if isinstance(value, Array):
            value = self._array(value)
        if isinstance(value, Tensor):
            if name in self.tensors or name == "__metadata__":  # which safetensors keeps for itself
                raise Refused("weights.same_tensor", name=name[:80])
            self.tensors[name] = value
        elif value is None or isinstance(value, (bool, str)) or _small_number(value):
            self.plain_count += 1
            if self.plain_count <= MOST_PLAIN and depth <= PLAIN_DEPTH:
                return value[:LONGEST_TEXT] if isinstance(value, str) else value
        elif is_dict(value):
            return self._branch(value.items(), name, depth)
        elif isinstance(value, Stub):
            return self._branch(_members(value), name, depth) or NOTHING
        elif isinstance(value, (list, tuple)) and not isinstance(value, Storage):
            members: list[Any] = list(cast("list[Any]", value))
            branch = self._branch(enumerate(members), name, depth)
            return list(branch.values()) if branch is not NOTHING and len(branch) == len(members) else branch
        return NOTHING

    def _branch(self, members: Iterable[tuple[Any, Any]], name: str, depth: int) -> Any:
        branch = {
            str(key): self._walk(member, f"{name}.{key}" if name else str(key), depth + 1)
            for key, member in members
            if isinstance(key, (str, int))
        }
        plain = {key: value for key, value in branch.items() if value is not NOTHING}
        return plain if plain or not branch else NOTHING

    def _array(self, array: Array) -> Tensor | None:
        """A numpy array as a tensor; None when it holds no numbers."""
        _, shape, kind, fortran, data = array.state
        dtype = kind.dtype
        if dtype is None:
            return None
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        strides = [math.prod(shape[:i] if fortran else shape[i + 1 :]) for i in range(len(shape))]
        return checked_tensor(Storage(self.contents.keep(data), dtype), dtype, 0, shape, strides)


def _small_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**63  # which nan and infinity are not


def _members(stub: Stub) -> Iterator[tuple[Any, Any]]:
    """What an object holds; a network's parameters, buffers and parts go by their own names, as in its state_dict."""
    yield from stub.entries.items()
    yield from enumerate(stub.values)
    state = cast("tuple[Any, ...]", held) if isinstance(held := cast(object, stub.state), tuple) else (held,)
    for part in state:
        if not is_dict(part):
            continue
        network = "_modules" in part
        buffers = part.get("_non_persistent_buffers_set")
        hidden = cast("set[Any]", buffers) if isinstance(buffers, set) else set[Any]()
        for group in ("_parameters", "_buffers", "_modules") if network else ():
            members = part.get(group)
            if is_dict(members):
                yield from ((name, member) for name, member in members.items() if name not in hidden)
        yield from ((key, value) for key, value in part.items() if not (network and str(key).startswith("_")))


def write(contents: Contents, out: BinaryIO) -> None:
    """Write a file's tensors, each storage read once, and its plain values."""
    tree = Tree(contents)
    if not tree.tensors:
        raise Refused("weights.no_tensors")
    if sum(tensor.size for tensor in tree.tensors.values()) > contents.limit:
        raise Refused("weights.tensors_too_large", gigabytes=contents.limit / 1e9)
    # Wide numbers first, so that each begins at a multiple of its width.
    order = sorted(
        tree.tensors.items(),
        key=lambda item: (-DTYPES[item[1].dtype][1], item[1].storage.key, item[1].offset),
    )
    header: dict[str, Any] = {"__metadata__": {"numbers": json.dumps(tree.numbers)}}
    end = 0
    for name, tensor in order:
        header[name] = {
            "dtype": DTYPES[tensor.dtype][0],
            "shape": tensor.shape,
            "data_offsets": [end, end := end + tensor.size],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    key, data = None, b""
    for _, tensor in order:
        if tensor.size == 0:
            continue
        if tensor.storage.key != key:
            key, data = tensor.storage.key, contents.read(tensor.storage.key)
        width = DTYPES[tensor.dtype][1]
        view = np.ndarray(  # refuses what would reach beyond the data
            tensor.shape, f"V{width}", data, tensor.offset * width, [step * width for step in tensor.strides]
        )
        out.write(np.ascontiguousarray(view).reshape(-1).view("u1").data)
