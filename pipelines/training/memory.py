"""How much memory a training of a DALL·E takes in each process, worked out without taking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from pipelines.errors import Message
from pipelines.models.checkpoint import read_header
from pipelines.models.clip.tokenizer import Tokenizer
from pipelines.models.dalle.network import Dalle, DalleConfig
from pipelines.models.vqgan.network import VqganConfig
from pipelines.training.dalle import DalleTrainer, matrices_and_others

NUMBER = 4  # bytes of a float32


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes in each of the processes, at most; `parameters` counts those of the whole network.

    `weights`, `average`, `gradients` and `optimizer` are this process's share, which it always has. `gathered` is what it
    has of the others' during an update. `activations` are what the backward pass needs of a batch. `whole` is the network
    in one piece, which each process has before it is divided, and the first one at reports.
    """

    parameters: int
    processes: int
    divided: bool
    batch_size: int
    weights: int
    average: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    whole: int

    @property
    def total(self) -> int:
        """Bytes of an update."""
        return (
            self.weights + self.average + self.gradients + self.optimizer + self.gathered + self.activations
        )

    def sentences(self) -> list[Message]:
        """What is told of it, a line each, and whether there is room for it on this machine now."""
        millions, total = self.parameters / 1e6, _gb(self.total)
        room, needed = self._room()
        alone = Message("training.plan_alone", {"parameters": millions, "total": total})
        several = Message(
            "training.plan_divided" if self.divided else "training.plan_whole",
            {"parameters": millions, "processes": self.processes, "total": total},
        )
        return [
            alone if self.processes == 1 else several,
            Message(
                "training.plan_parts",
                {
                    "weights": _gb(self.weights),
                    "average": _gb(self.average),
                    "gradients": _gb(self.gradients),
                    "optimizer": _gb(self.optimizer),
                    "gathered": _gb(self.gathered),
                    "activations": _gb(self.activations),
                    "batch": self.batch_size,
                },
            ),
            Message("training.plan_reports", {"whole": _gb(self.whole)}),
            Message(
                "training.plan_room" if needed < room else "training.plan_no_room",
                {"needed": _gb(needed), "room": f"{room / 1e9:,.1f}"},
            ),
        ]

    def _room(self) -> tuple[int, int]:
        """Bytes that are free on this machine's device, and those that are needed there."""
        if torch.cuda.is_available():
            return torch.cuda.mem_get_info()[0], self.total
        return psutil.virtual_memory().available, self.total * self.processes  # which all processes share

    def to_json(self) -> dict[str, Any]:
        """As plain values, with the total and the sentences in both languages."""
        told = [{"en": one.text(), "zh": one.text("zh")} for one in self.sentences()]
        return {**asdict(self), "total": self.total, "sentences": told}


def _gb(count: int) -> str:
    return f"{count / 1e9:,.2f}"


def dalle_of(pack: Path, codec: str, size: str) -> tuple[Callable[[], Dalle], int]:
    """What makes a DALL·E of a size over the tokens of a pack's codec, and the size's batch."""
    sizes = dict(DalleTrainer.SIZES[size])
    batch_size = sizes.pop("batch_size")
    for rate in ("rate", "matrix_rate"):
        del sizes[rate]
    words = Tokenizer.load(pack / "tokenizer.json").vocabulary_size
    tokens = VqganConfig.from_dict(read_header(pack / f"{codec}.safetensors")[0])
    config = DalleConfig(words, tokens.code_count, grid=tokens.grid, **sizes)
    return lambda: Dalle(config), batch_size


def plan_of(
    make: Callable[[], Dalle], batch_size: int, processes: int, divided: bool, low: bool = False
) -> MemoryPlan:
    """The plan of a network that `make` gives, on so many processes.

    `divided` says whether it is divided among them; `low` whether blocks are computed in bfloat16.
    """
    with torch.device("meta"):
        network = make()
    matrices, others = matrices_and_others(network)
    parts = processes if divided else 1
    weights = sum(_share(p, parts) for p in network.parameters())
    optimizer = sum(_share(p, parts) for p in matrices) + 2 * sum(_share(p, parts) for p in others)
    whole = sum(p.numel() for p in network.parameters()) * NUMBER
    gathered = 0
    if divided and processes > 1:
        block = sum(p.numel() for p in network.layers[0].parameters())
        outside = whole // NUMBER - block * len(network.layers)
        size = 2 if low else NUMBER
        # of what is outside of blocks the weights, their gradients, and these as they are sent; of a block these, and the
        # weights of the next one
        gathered = 3 * outside * NUMBER + block * (3 * size + NUMBER)
    return MemoryPlan(
        parameters=whole // NUMBER,
        processes=processes,
        divided=divided,
        batch_size=batch_size,
        weights=weights,
        average=weights,
        gradients=weights,
        optimizer=optimizer,
        gathered=gathered,
        activations=activation_bytes(make, batch_size, low),
        whole=whole,
    )


def _share(parameter: nn.Parameter, parts: int) -> int:
    """Bytes of the largest of so many parts of a parameter, divided along its first dimension."""
    if parameter.ndim == 0:
        return NUMBER
    rows = -(-len(parameter) // parts)
    return rows * parameter[0].numel() * NUMBER


def activation_bytes(make: Callable[[], Dalle], batch_size: int, low: bool) -> int:
    """Bytes that autograd keeps of a batch between forward and backward, counted on tensors without memory."""
    with FakeTensorMode():
        network = make()
        config = network.config
        for part in network.blocks.modules() if low else ():
            for name, value in list(part.named_parameters(recurse=False)):
                setattr(part, name, nn.Parameter(value.detach().bfloat16()))
        text = torch.zeros(batch_size, config.text_length, dtype=torch.long)
        image = torch.zeros(batch_size, config.image_length, dtype=torch.long)
        kept = Kept(network)
        with torch.autocast("cpu", torch.bfloat16, enabled=low), kept:
            states, t = network(text, image), config.text_length
            logits = network.image_head(states[:, t - 1 :]), network.text_head(states[:, : t - 1])
            for row, target in zip(logits, (image, text[:, 1:]), strict=True):  # as if every text was full
                F.cross_entropy(row.float().flatten(0, 1), target.flatten())
    return kept.bytes


class Kept(saved_tensors_hooks):
    """Inside, what autograd keeps is counted, each memory once, and without the network's own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(self._seen, lambda tensor: tensor)
        self._own = [tensor.untyped_storage() for tensor in (*network.parameters(), *network.buffers())]
        self._known = {storage._cdata for storage in self._own}
        self._held: list[torch.UntypedStorage] = []  # or another could have the same place
        self.bytes = 0

    def _seen(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._held.append(storage)
            self.bytes += storage.nbytes()
        return tensor
