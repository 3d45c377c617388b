"""What every family's `convert` gets and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


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
