"""Input and output of every family's `convert`, and helpers that converters share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import BadInput, Message
from pipelines.models.checkpoint import ABSENT, Config


@dataclass(frozen=True)
class SourceCheckpoint:
    """Contents of a published file: tensors by flat names (nested names joined by "."), and its other plain values.

    The tensors may lie in the file, and are not to be written to. `release` lets what was read of them leave memory.
    """

    file: str  # its name, for messages
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    release: Callable[[], None] | None = None


class Joined(Mapping[str, Tensor]):
    """Tensors by name, each given as parts that follow one another on axis 0.

    A tensor is joined when it is asked for, so that the writer, which takes the parts, never holds a second copy of a
    network.
    """

    def __init__(self, parts: dict[str, list[Tensor]]):
        self.parts = parts

    def __getitem__(self, name: str) -> Tensor:
        parts = self.parts[name]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


@dataclass(frozen=True)
class Converted:
    """Contents of a file to write: the kind of network, its config as plain values, its tensors by the network's names."""

    kind: str
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]


def size_of(original: SourceCheckpoint, name: str, axis: int) -> int:
    """The length of a tensor along an axis. BadInput when the tensor is absent or has fewer axes."""
    tensor = original.tensors.get(name)
    if tensor is None or tensor.ndim <= axis:
        raise BadInput("models.tensor_missing", file=original.file, name=name, found=shape_of(tensor))
    return tensor.shape[axis]


def count_of(tensors: dict[str, Tensor], prefix: str, first: int = 0) -> int:
    """Number of consecutive modules prefix + `first`, prefix + `first + 1`, ... that have tensors; at most 64."""
    numbers = {name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)}
    return next(k for k in range(65) if str(first + k) not in numbers or k == 64)


def checked(
    kind: str,
    original: SourceCheckpoint,
    config_type: type[Config],
    sizes: dict[str, Any],
    network: Callable[[Any], nn.Module],
    tensors: dict[str, Tensor],
) -> Converted:
    """The tensors as a Converted, after comparing their names and shapes with those of `network(config)`.

    `sizes` are the fields of the config. BadInput when no network has these sizes, or when names or shapes differ.
    """
    try:
        config = config_type.from_dict(sizes)
        with torch.device("meta"):  # shapes without memory
            expected = {name: tuple(tensor.shape) for name, tensor in network(config).state_dict().items()}
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        raise BadInput("models.sizes_impossible", file=original.file, reason=error) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise BadInput(
                "models.tensors_do_not_fit",
                file=original.file,
                name=name,
                expected=expected.get(name, ABSENT),
                found=shapes.get(name, ABSENT),
            )
    return Converted(kind, config.to_dict(), tensors)


def shape_of(tensor: Tensor | None) -> str | Message:
    """A tensor's shape for messages, such as "3x4"; ABSENT for None."""
    if tensor is None:
        return ABSENT
    return "x".join(map(str, tensor.shape)) or Message("models.a_number")
