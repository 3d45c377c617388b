"""The state of a training: one safetensors file with all tensors and counters.

A training that is loaded from it goes on as if it had not been interrupted.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pipelines.errors import BadInput, one_line
from pipelines.io.files import write_atomically
from pipelines.io.tensors import TensorFile, open_tensors
from pipelines.training.data.stream import Journey
from pipelines.training.sharding import divided_as, whole
from pipelines.training.trainer import Trainer


@dataclass
class State:
    """Where a training stands besides its tensors."""

    step: int = 0
    samples: int = 0  # of all processes, as many as there were at each step
    seconds: float = 0.0
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    journey: Journey | None = None  # of a stream


def save_state(path: Path, trainer: Trainer, average: dict[str, dict[str, Tensor]], state: State) -> None:
    """Networks, averages, optimizers and counters in one safetensors file, written atomically.

    Of networks that are divided among processes all must call it, and the first writes the whole of them.
    """
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
    facts = {"step": state.step, "samples": state.samples, "seconds": state.seconds, "curves": state.curves}
    facts["optimizers"] = numbers
    facts["journey"] = state.journey.to_json() if state.journey else None
    writes, plain = trainer.accelerator.is_main_process or not trainer.sharded, dict[str, Tensor]()
    for key, value in tensors.items():
        value = whole(value)
        if writes:
            plain[key] = value.detach().cpu().contiguous().clone()
    if writes:
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
        with open_tensors(path) as file:
            facts = json.loads((file.metadata() or {})["facts"])
            _put_back(facts, file, trainer, average)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise BadInput(
            "training.state_of_other_training", folder=path, reason=one_line(error, 120)
        ) from error
    curves = {key: [tuple(point) for point in points] for key, points in facts["curves"].items()}
    journey = Journey(**facts["journey"]) if facts.get("journey") else None
    samples = facts.get(
        "samples", facts["step"] * trainer.samples_per_step()
    )  # which older states do not tell
    return State(facts["step"], samples, facts["seconds"], curves, journey)


def _put_back(
    facts: dict[str, Any], file: TensorFile, trainer: Trainer, average: dict[str, dict[str, Tensor]]
) -> None:
    names = file.keys()
    for name, network in trainer.networks.items():
        prefix = f"network/{name}/"
        own, keys = network.state_dict(), [key for key in names if key.startswith(prefix)]
        found = {key.removeprefix(prefix): key for key in keys}
        values = {
            key: divided_as(file.get_tensor(place), own.get(key, torch.empty(0)))
            for key, place in found.items()
        }
        network.load_state_dict(values)
    for name, values in average.items():
        for key, value in values.items():
            value.copy_(divided_as(file.get_tensor(f"average/{name}/{key}"), value))
    for key, value in trainer.extra_state().items():
        value.copy_(file.get_tensor(f"extra/{key}"))
    for name, optimizer in trainer.optimizers.items():
        book = facts["optimizers"][name]
        entries = {int(index): dict(entry) for index, entry in book["state"].items()}
        learned = [p for group in optimizer.param_groups for p in group["params"]]
        prefix = f"optimizer/{name}/"
        for key in names:
            if key.startswith(prefix):
                index, word = key.removeprefix(prefix).split("/", 1)
                value, of = file.get_tensor(key), learned[int(index)]
                value = divided_as(value, of) if value.shape == of.shape else value
                entries.setdefault(int(index), {})[word] = value
        optimizer.load_state_dict({"param_groups": book["param_groups"], "state": entries})
