"""What every family's `convert` gets and gives, and what most of them need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import BadInput, Message
from pipelines.models.checkpoint import ABSENT, Config


@dataclass(frozen=True)
class Original:
    """What a published file holds: tensors under flat names (nested names joined by "."), and plain values beside them."""

    file: str  # its name, for messages
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Converted:
    """What our file will hold: the kind of network, its config as plain values, its tensors by the network's own names."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]


def size_of(original: Original, name: str, axis: int) -> int:
    """One length of a tensor that the family must have. BadInput when it has not."""
    tensor = original.tensors.get(name)
    if tensor is None or tensor.ndim <= axis:
        raise BadInput("models.tensor_missing", file=original.file, name=name, found=shape_of(tensor))
    return tensor.shape[axis]


def count_of(tensors: dict[str, Tensor], prefix: str, first: int = 0) -> int:
    """How many of prefix + "0", prefix + "1", ... are parts of the network, before the first that is not; at most 64."""
    found = {name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)}
    return next(k for k in range(65) if str(first + k) not in found or k == 64)


def fitted(
    kind: str,
    original: Original,
    config_type: type[Config],
    sizes: dict[str, Any],
    network: Callable[[Any], nn.Module],
    tensors: dict[str, Tensor],
) -> Converted:
    """The tensors as a Converted, if they are those of the network of these sizes, by name and by shape; or BadInput."""
    try:
        config = config_type.from_dict(sizes)
        with torch.device("meta"):  # shapes without memory
            expected = {name: tuple(one.shape) for name, one in network(config).state_dict().items()}
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        raise BadInput("models.sizes_impossible", file=original.file, reason=error) from error
    found = {name: tuple(one.shape) for name, one in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise BadInput(
                "models.tensors_do_not_fit",
                file=original.file,
                name=name,
                expected=expected.get(name, ABSENT),
                found=found.get(name, ABSENT),
            )
    return Converted(kind, config.to_dict(), {name: one.contiguous() for name, one in tensors.items()})


def shape_of(tensor: Tensor | None) -> str | Message:
    """A tensor's shape such as "3x4", for a sentence."""
    if tensor is None:
        return ABSENT
    return "x".join(map(str, tensor.shape)) or Message("models.a_number")
