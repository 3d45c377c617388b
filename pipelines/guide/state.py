"""The state of a run between two steps, and its snapshots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from pipelines.clip.judges import Curve
from pipelines.core.journal import Snapshot


@dataclass
class State:
    """The state of a run between two steps."""

    x: Tensor  # (1, c, h, w), noisy
    base: Tensor | None  # (1, 3, h, w) in [-1, 1]: the picture that the frame started from
    position: int = 0
    curve: Curve = field(default_factory=list[tuple[int, float, float]])
    # (step, the clean x that it showed) since the last snapshot
    frames: list[tuple[int, Tensor]] = field(default_factory=list[tuple[int, Tensor]])

    def snapshot(self) -> Snapshot:
        """All of it as a snapshot; the frames begin anew."""
        tensors = {"x": self.x}
        if self.base is not None:
            tensors["base"] = ((self.base + 1) * 127.5).round().to(torch.uint8)
        facts: dict[str, Any] = {
            "curve": self.curve,
            "frames": [(position,) for position, _ in self.frames],
        }
        if self.frames:
            tensors["frames"] = torch.stack([kept for _, kept in self.frames])
        self.frames = []
        return Snapshot(self.position, tensors, facts)

    @classmethod
    def restored(cls, snapshot: Snapshot, device: torch.device) -> Self:
        """The state of a snapshot, without frames."""
        tensors = {name: tensor.to(device) for name, tensor in snapshot.tensors.items()}
        curve = [(int(step), clip, critic) for step, clip, critic in snapshot.facts["curve"]]
        base = tensors["base"].float() / 127.5 - 1 if "base" in tensors else None
        return cls(tensors["x"].clone(), base, snapshot.step, curve)
