"""The batches of a training: prepared ahead of time by worker processes, then moved to the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipelines.training.trainer import Trainer


class Batches(Dataset[Any]):
    """The batches of one process as a map from the number of steps after `first`."""

    def __init__(self, trainer: Trainer, first: int):
        self.trainer, self.first = trainer, first
        self.rank, self.count = trainer.accelerator.process_index, trainer.accelerator.num_processes

    def __len__(self) -> int:
        return 10**9  # the budget ends a training, not the data

    def __getitem__(self, index: int) -> Any:
        return self.trainer.batch(self.first + index, self.rank, self.count)


def batches(trainer: Trainer, first: int, workers: int) -> Iterator[Any]:
    """The batches from step `first` on, on the device; `workers` processes prepare them ahead of time (0: none)."""
    device = trainer.accelerator.device
    loader = DataLoader(
        Batches(trainer, first),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,  # shares the pictures in memory
        generator=torch.Generator(),  # or it would draw from the one of everybody
    )
    for batch in loader:
        yield to_device(batch, device)


def to_device(batch: Any, device: torch.device) -> Any:
    """Every tensor inside dicts and tuples moved, everything else as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)) and any(isinstance(value, Tensor) for value in batch):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def sensible_workers(device: torch.device) -> int:
    """None beside a CPU that trains; for a GPU the cores that its process can have, at most 16."""
    if device.type != "cuda" or not hasattr(os, "fork"):
        return 0
    return max(1, min(16, (os.cpu_count() or 2) // torch.cuda.device_count() - 1))


def _as_it_is(batch: Any) -> Any:
    return batch
