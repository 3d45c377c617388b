"""Converts published files: reads them, finds the family that they are of, and writes one safetensors file."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import BadInput, Message, one_line, reason_of
from pipelines.io.files import cannot_save, home_path
from pipelines.io.values import is_dict
from pipelines.models.checkpoint import check_finite, file_hash
from pipelines.models.source import Converted, Joined, SourceCheckpoint
from pipelines.models.spec import ModelSpec, families
from pipelines.weights.forms import joined, source_files, unwrapped, with_usual_types
from pipelines.weights.memory import free_memory
from pipelines.weights.readers import read_original

# A stranger's tensors may have any shape, and break a converter that looks for its own.
UNFIT = (BadInput, LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError)

LITTLE = 100_000_000  # bytes of memory that converting takes beside arrays, in a process that has torch
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


def convert_file(
    paths: list[Path], out: Path, family: str | None = None, facts: dict[str, Any] | None = None
) -> str:
    """Convert a published model into one safetensors file.

    Args:
        paths: One file of weights, or the two that a model is split over, and its config.json; or the folder that holds
            them. Shards, with or without their index, count as one file.
        out: The file to write. An older file is unchanged until the new one is complete.
        family: A name of `models add --family`. None tries all families.
        facts: What to write beside the weights, such as origin and licence. The names and SHA-256 of the files of
            weights are added as "sources".

    Returns:
        The kind of network, a key of SPECS.

    Raises:
        BadInput: When the files cannot be read, or are not of the family, or of none; when a weight is not a finite
            number, or of a type that is not kept; when memory is short.
        CannotSave: When `out` cannot be written.
    """
    groups, configs = source_files([home_path(path) for path in paths])
    numbers = {key: value for file in configs for key, value in _read_json(file).items()}
    _make_folder(out)
    originals = [joined([read_original(file, folder=out.parent) for file in group]) for group in groups]
    originals = [replace(original, metadata=original.metadata | numbers) for original in originals]
    _check_memory(originals)
    converted = convert_originals(originals, family)
    sources = {file.name: file_hash(file) for group in groups for file in group}
    releases = [original.release for original in originals if original.release]
    write_converted(
        out, converted, {**(facts or {}), "sources": sources}, releases, read_from=originals[0].file
    )
    return converted.kind


def _check_memory(originals: list[SourceCheckpoint]) -> None:
    """BadInput when less memory is free than converting takes beyond this process: twice the largest array, and a little.

    Arrays lie in their files until they are written, and are written one by one.
    """
    arrays = [tensor for original in originals for tensor in original.tensors.values()]
    needed = LITTLE + 2 * max((array.numel() * array.element_size() for array in arrays), default=0)
    free = free_memory(gpu=False)["RAM"]
    if needed > free:
        file = originals[0].file
        raise BadInput("weights.memory_short", file=file, needed=needed / 1e9, free=free / 1e9)


def convert_originals(originals: list[SourceCheckpoint], family: str | None = None) -> Converted:
    """Convert one or two read files with the named family, or with the first that can. BadInput when none can."""
    networks = families()
    if family is not None and family not in networks:
        names = ", ".join([*networks, *families(vocabularies=True)])
        raise BadInput("weights.family_unknown", family=family[:40], known=names)
    if not 1 <= len(originals) <= 2:
        raise BadInput("weights.file_count", count=len(originals))
    candidates = [[with_usual_types(original) for original in originals]]
    if len(originals) == 1:
        candidates = [[inside] for inside in unwrapped(candidates[0][0])]
    if family is not None:
        return _as_named(candidates, family)
    for candidate in candidates:
        for rows in networks.values():
            with suppress(*UNFIT):
                return _as_family(candidate, rows)
    first, known, description = originals[0].file, ", ".join(networks), _described(originals)
    if len(originals) == 1:
        raise BadInput("weights.fits_no_family", file=first, known=known, found=description)
    other = originals[1].file
    raise BadInput("weights.fit_no_family", file=first, other=other, known=known, found=description)


def convert_vocabulary(paths: list[Path], out: Path, family: str) -> str:
    """Convert a published vocabulary.

    Args:
        paths: The vocabulary's file. Its table of merges may be named second, and must be in the same folder.
        out: The file to write.
        family: A name of `models add --family`, such as "clip_tokenizer".

    Returns:
        The family.

    Raises:
        BadInput: When the file is missing or no vocabulary of the family.
        CannotSave: When `out` cannot be written.
    """
    first = home_path(paths[0])
    if not first.is_file():
        raise BadInput("weights.vocabulary_missing", file=first.name)
    _make_folder(out)
    families(vocabularies=True)[family][0].part("convert")(first, out)
    return family


def _as_named(candidates: list[list[SourceCheckpoint]], family: str) -> Converted:
    """The first candidate that is of the family. BadInput, what the first one was told, when there is none."""
    told: BadInput | None = None
    for candidate in candidates:
        try:
            return _as_family(candidate, families()[family])
        except BadInput as problem:
            told = told or problem
        except UNFIT as problem:
            told = told or BadInput(
                "weights.broke_family", file=candidate[0].file, family=family, reason=one_line(problem)
            )
    assert told is not None
    raise told


def _as_family(originals: list[SourceCheckpoint], rows: list[ModelSpec]) -> Converted:
    """Convert files with one family: with its row whose mark is among the tensors, else with its first row.

    BadInput when the files are not of the family.
    """
    tensors = [name for original in originals for name in original.tensors]
    marked = [row for row in rows if row.mark and any(name.endswith(row.mark) for name in tensors)]
    spec = next(iter(marked), rows[0])
    if len(originals) == 1:
        return spec.part("convert")(originals[0])
    if not spec.merge:
        raise BadInput(
            "weights.one_file_expected", family=spec.family, file=originals[0].file, other=originals[1].file
        )
    merge, convert = spec.part("merge"), spec.part("convert")
    try:
        return convert(merge(*originals))
    except BadInput as first:  # perhaps they were given in the other order
        try:
            merged = merge(*reversed(originals))
        except BadInput:
            raise first from None
        return convert(merged)


def _described(originals: list[SourceCheckpoint]) -> Message:
    """The number of tensors in files, and the names and shapes of the first three, in words."""
    tensors = {name: tensor for original in originals for name, tensor in original.tensors.items()}
    examples = [
        f"{name[:60]} ({'x'.join(map(str, tensors[name].shape)) or 'one number'})"
        for name in sorted(tensors)[:3]
    ]
    count, names = len(tensors), ", ".join(examples)
    if count > 3:
        return Message("weights.tensors_and_more", {"count": count, "names": names})
    return Message("weights.tensors", {"count": count, "names": names})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput("weights.config_unreadable", file=path.name, reason=reason_of(error)) from None
    except ValueError as error:
        raise BadInput("weights.config_not_json", file=path.name, reason=str(error)[:80]) from None
    if not is_dict(values):
        raise BadInput("weights.not_a_config", file=path.name)
    return values


# ------------------------------------------------------------------------------------------------------- writing


def write_converted(
    path: Path,
    converted: Converted,
    facts: dict[str, Any],
    releases: Sequence[Callable[[], None]] = (),
    read_from: str = "",
) -> None:
    """Write safetensors with JSON metadata "config", "kind" and "facts", as `read_header` and `load_weights` read them.

    Each tensor keeps its dtype and is written by itself, so that no second copy is in memory. The same model and facts
    give the same bytes. The file is written atomically. `releases` are called after each tensor. CannotSave when it
    cannot be written; BadInput, which names the file `read_from`, when a weight is not a finite number.
    """
    metadata = {
        "config": json.dumps(converted.config),
        "kind": converted.kind,
        "facts": json.dumps(facts, ensure_ascii=False),
    }
    tensors = converted.tensors
    parts = tensors.parts if isinstance(tensors, Joined) else {name: [one] for name, one in tensors.items()}
    # keeps them aligned
    order = sorted(parts.items(), key=lambda item: (-item[1][0].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (first, *others) in order:
        shape = list(first.shape)
        if others:
            shape[0] = sum(len(part) for part in (first, *others))
        header[name] = {
            "dtype": _dtype_name(name, first),
            "shape": shape,
            "data_offsets": [end, end := end + math.prod(shape) * first.element_size()],
        }
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    pieces = ((name, part) for name, inside in order for part in inside)
    _write_parts(path, text, _finite(pieces, read_from or path.name), releases)


def _finite(tensors: Iterable[tuple[str, Tensor]], file: str) -> Iterator[Tensor]:
    """The tensors, each looked at when it is asked for. BadInput when one holds NaN or infinity."""
    for name, tensor in tensors:
        check_finite({name: tensor}, file)
        yield tensor


def _dtype_name(name: str, tensor: Tensor) -> str:
    if tensor.dtype not in DTYPE_NAMES:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise BadInput("weights.number_type", name=name[:80], type=kind)
    return DTYPE_NAMES[tensor.dtype]


def _write_parts(
    path: Path, header: bytes, tensors: Iterator[Tensor], releases: Sequence[Callable[[], None]]
) -> None:
    _make_folder(path)
    temporary = path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for tensor in tensors:
                plain = tensor.detach().cpu().contiguous().reshape(-1)
                file.write(plain.view(torch.uint8).numpy().data)
                del plain
                for release in releases:
                    release()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_save(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_save(path, error) from error
