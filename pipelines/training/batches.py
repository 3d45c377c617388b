"""The batches of a training: prepared ahead of time by worker processes, then moved to the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from pipelines.errors import BadInput, Message
from pipelines.training.data.stream import Journey, Reader, Stream
from pipelines.training.state import State
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


class StreamedBatches(IterableDataset[Any]):
    """The batches of one process from a stream, from step `first` on, each with the mark of its reader after it.

    Reader k of the process gives those of the steps k, k + workers, and so on. A Message stands for one that failed.
    """

    def __init__(self, trainer: Trainer, stream: Stream, journey: Journey, first: int):
        self.trainer, self.stream, self.journey, self.first = trainer, stream, journey, first

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        step, count = self.first + (worker.id if worker else 0), self.journey.workers
        rank = self.trainer.accelerator.process_index
        reader = Reader(self.stream, self.journey, rank * count + step % count)
        while True:
            try:
                pictures = reader.read(self.trainer.batch_size)
            except BadInput as problem:
                yield problem.message
                return
            yield self.trainer.batch_of_stream(pictures, step, rank), torch.tensor(reader.mark)
            step += count


def batches(trainer: Trainer, state: State, workers: int) -> Iterator[Any]:
    """The batches from the state's step on, on the device; `workers` processes prepare them ahead of time (0: none).

    Of a stream the state's journey goes on with each batch that is taken.
    """
    if trainer.stream is not None:
        yield from _of_stream(trainer, trainer.stream, state, workers)
        return
    device = trainer.accelerator.device
    for batch in _loaded(Batches(trainer, state.step), workers, device):
        yield to_device(batch, device)


def _of_stream(trainer: Trainer, stream: Stream, state: State, workers: int) -> Iterator[Any]:
    accelerator = trainer.accelerator
    journey = state.journey = stream.journey(accelerator.num_processes, workers, state.journey)
    data = StreamedBatches(trainer, stream, journey, state.step)
    loaded = _loaded(data, journey.workers if workers else 0, accelerator.device)
    for step, given in enumerate(loaded, state.step):
        if isinstance(given, Message):
            raise BadInput.of(given)
        batch, mark = to_device(given, accelerator.device)
        marks = cast(Tensor, accelerator.gather(mark[None]))
        journey.note(step % journey.workers, marks.tolist())
        yield batch


def _loaded(data: Dataset[Any], workers: int, device: torch.device) -> DataLoader[Any]:
    return DataLoader(
        data,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,  # shares the pictures in memory
        generator=torch.Generator(),  # or it would draw from the one of everybody
    )


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
