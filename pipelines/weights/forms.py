"""The forms that published weights come in: shards of one model, number types, and what trainers wrap weights in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.values import is_dict
from pipelines.models.source import SourceCheckpoint

# in a folder, the best form first
WEIGHTS = (".safetensors", ".msgpack", ".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
INDEX = ".index.json"
MOST_SHARDS = 1000
EIGHT_BITS = [
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
    if hasattr(torch, name)
]
SCALES = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_inv)?|input_scale)$")
# What trainers keep weights under, the averaged ones last: their converters look for those themselves.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "_orig_mod", "net", "network", "generator",
    "params", "weights", "checkpoint", "ema_state_dict", "model_ema", "ema_model", "ema",
)  # fmt: skip
MAIN_SHARE = 0.9  # of the tensors, from which an unknown name is taken for a wrapper
MOST_WRAPPED = 3  # wrappers around one another


# -------------------------------------------------------------------------------------------------------------- files


def source_files(paths: list[Path]) -> tuple[list[list[Path]], list[Path]]:
    """The files that a user named: those of weights, shards of one model together, and the configs.

    A folder stands for its one file of weights, in the first form of WEIGHTS, and its config.json. One shard, or the
    index of shards, stands for all of them. BadInput when a folder has no such file or several of one form, or when a
    shard is missing.
    """
    groups: list[list[Path]] = []
    configs: list[Path] = []
    for path in paths:
        files = _in_folder(path) if path.is_dir() else [path]
        for file in files:
            if file.exists() and not file.is_file():  # a pipe, which may keep its reader waiting for ever
                raise BadInput("weights.file_unreadable", file=file.name, reason="not a file")
            if file.suffix == ".json" and not file.name.endswith(INDEX):
                configs.append(file)
            elif (group := _shards(file)) not in groups:
                groups.append(group)
    return groups, configs


def _in_folder(folder: Path) -> list[Path]:
    inside = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    configs = [file for file in inside if file.name == "config.json"]
    for suffix in WEIGHTS:
        weights = [file for file in inside if file.suffix == suffix]
        indices = [file for file in inside if file.name.endswith(suffix + INDEX)]
        models: list[list[Path]] = []
        for file in [*indices, *weights]:
            if not any(file in model for model in models) and (model := _shards(file)) not in models:
                models.append(model)
        if len(models) == 1:
            return [*(indices or models[0])[:1], *configs]
        if models:
            names = ", ".join(weight.name for weight in weights[:4])
            raise BadInput("weights.several_files", folder=folder.name, files=names)
    raise BadInput("weights.no_weights", folder=folder.name, forms=", ".join(WEIGHTS))


def _shards(file: Path) -> list[Path]:
    """All files of the model that a shard, or an index of shards, belongs to; any other file alone."""
    if file.name.endswith(INDEX):
        names = _indexed(file)
    elif match := SHARD.fullmatch(file.name):
        count = int(match[3])
        if not 1 <= count <= MOST_SHARDS:
            return [file]
        names = [f"{match[1]}-{number:05}-of-{match[3]}{match[4]}" for number in range(1, count + 1)]
    else:
        return [file]
    for name in names:
        if not file.with_name(name).is_file():
            raise BadInput("weights.shard_missing", file=name, count=len(names))
    return [file.with_name(name) for name in names]


def _indexed(index: Path) -> list[str]:
    """The names of the files that an index names. BadInput when it is none, or names files elsewhere."""
    try:
        table: Any = json.loads(index.read_text("utf-8"))["weight_map"]
        names = sorted({str(name) for name in table.values()})
    except (OSError, ValueError, AttributeError, TypeError, LookupError, RecursionError):
        names = []
    elsewhere = any(Path(name).name != name or name in (".", "..") for name in names)
    if elsewhere or not 1 <= len(names) <= MOST_SHARDS:
        raise BadInput("weights.not_an_index", file=index.name)
    return names


# ------------------------------------------------------------------------------------------------------------ contents


def joined(originals: list[SourceCheckpoint]) -> SourceCheckpoint:
    """The shards of one model as one. BadInput when two hold a tensor of one name."""
    if len(originals) == 1:
        return originals[0]
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    releases = [original.release for original in originals if original.release]
    for original in originals:
        if again := next((name for name in original.tensors if name in tensors), None):
            raise BadInput("weights.in_two_shards", file=original.file, name=again[:80])
        tensors |= original.tensors
        metadata |= original.metadata

    def release() -> None:
        for one_file in releases:
            one_file()

    return SourceCheckpoint(originals[0].file, tensors, metadata, release if releases else None)


def with_usual_types(original: SourceCheckpoint) -> SourceCheckpoint:
    """The checkpoint with floats of 8 bits as float16, which holds each of them exactly.

    BadInput when scales come with them: such weights are numbers only together with their scales.
    """
    small = [name for name, tensor in original.tensors.items() if tensor.dtype in EIGHT_BITS]
    if not small:
        return original
    if scale := next((name for name in original.tensors if SCALES.search(name)), None):
        raise BadInput("weights.scaled_numbers", file=original.file, name=scale[:80])
    return replace(
        original, tensors=original.tensors | {name: original.tensors[name].half() for name in small}
    )


def unwrapped(original: SourceCheckpoint, depth: int = MOST_WRAPPED) -> Iterator[SourceCheckpoint]:
    """The checkpoint as it is, then without what a trainer may have wrapped its weights in, the likeliest first."""
    yield original
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in original.tensors.items():
        head, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(head, {})[rest] = tensor
    likely = [head for head in WRAPPERS if head in groups]
    most = MAIN_SHARE * len(original.tensors)
    likely += [head for head, group in groups.items() if head not in likely and len(group) >= most]
    for head in likely if depth else ():
        inside = original.metadata.get(head)
        metadata = original.metadata | (inside if is_dict(inside) else {})
        yield from unwrapped(replace(original, tensors=groups[head], metadata=metadata), depth - 1)
