"""The state of a training: one safetensors file with all tensors and counters.

A training that is loaded from it goes on as if it had not been interrupted.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically
from pipelines.training.trainer import Trainer


@dataclass
class State:
    """Where a training stands besides its tensors."""

    step: int = 0
    seconds: float = 0.0
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def save_state(path: Path, trainer: Trainer, average: dict[str, dict[str, Tensor]], state: State) -> None:
    """Networks, averages, optimizers and counters in one safetensors file, written atomically."""
    tensors = {f"extra/{key}": value for key, value in trainer.extra_state().items()}
    numbers: dict[str, Any] = {}
    for name, network in trainer.networks.items():
        for key, value in network.state_dict().items():
            tensors[f"network/{name}/{key}"] = value
    for name, values in average.items():
        for key, value in values.items():
            tensors[f"average/{name}/{key}"] = value
    for name, optimizer in trainer.optimizers.items():
        book = optimizer.state_dict()
        numbers[name] = {"param_groups": book["param_groups"], "state": {}}
        for index, entry in book["state"].items():
            for key, value in entry.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{name}/{index}/{key}"] = value
                else:
                    numbers[name]["state"].setdefault(index, {})[key] = value
    facts = {"step": state.step, "seconds": state.seconds, "curves": state.curves, "optimizers": numbers}
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_atomically(path, save(plain, {"facts": json.dumps(facts)}))


def keep_earlier_states(path: Path) -> None:
    """Before `path` is written anew: keep what it holds as NAME-1, and what that held as NAME-2."""
    first, second = (path.with_name(f"{path.stem}-{k}{path.suffix}") for k in (1, 2))
    if first.exists():
        os.replace(first, second)
    if path.exists():
        write_atomically(first, path.read_bytes())


def load_state(path: Path, trainer: Trainer, average: dict[str, dict[str, Tensor]]) -> State:
    """Put everything back where `save_state` found it. BadInput when the state is of another network."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _put_back(facts, tensors, trainer, average)
    except (KeyError, ValueError, RuntimeError) as error:
        raise BadInput(
            "training.state_of_other_training", folder=path, reason=" ".join(str(error).split())[:120]
        ) from error
    curves = {key: [tuple(point) for point in points] for key, points in facts["curves"].items()}
    return State(facts["step"], facts["seconds"], curves)


def _put_back(
    facts: dict[str, Any],
    tensors: dict[str, Tensor],
    trainer: Trainer,
    average: dict[str, dict[str, Tensor]],
) -> None:
    for name, network in trainer.networks.items():
        prefix = f"network/{name}/"
        values = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        network.load_state_dict(values)
    for name, values in average.items():
        for key, value in values.items():
            value.copy_(tensors[f"average/{name}/{key}"])
    for key, value in trainer.extra_state().items():
        value.copy_(tensors[f"extra/{key}"])
    for name, optimizer in trainer.optimizers.items():
        book = facts["optimizers"][name]
        entries = {int(index): dict(entry) for index, entry in book["state"].items()}
        prefix = f"optimizer/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, word = key.removeprefix(prefix).split("/", 1)
                entries.setdefault(int(index), {})[word] = value
        optimizer.load_state_dict({"param_groups": book["param_groups"], "state": entries})
