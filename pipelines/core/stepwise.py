"""Runs that are made of steps: one loop that follows them, with a journal, pauses and an early end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from pipelines.core.journal import Journal, Snapshot
from pipelines.core.pipeline import Picture, Step
from pipelines.core.prompts import READ, parse_targets
from pipelines.core.steering import SteeredSettings
from pipelines.errors import Message, Stopped


class Network(Protocol):
    """What has weights."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters, each once."""
        ...


class StepwiseRun(Protocol):
    """A run whose state lies between two steps. `begin` or `restore` sets the state, `step` makes one step."""

    @property
    def position(self) -> int:
        """How many steps are made."""
        ...

    def begin(self) -> None:
        """Set the state of step 0."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Set the state to that of a snapshot."""
        ...

    def snapshot(self) -> Snapshot:
        """The state that the next step depends on."""
        ...

    def step(self) -> Message | None:
        """Make one step. Returns None, or why the run ends here; the state is then unchanged."""
        ...

    def total(self) -> int:
        """How many steps the run has by the settings in force."""
        ...

    def last_step(self) -> int:
        """The step at which the run ends by the settings in force."""
        ...

    def at_boundary(self) -> bool:
        """Whether the run ends, or its settings change, at the current step."""
        ...

    def metrics(self) -> dict[str, float]:
        """The metrics of a Step."""
        ...

    def draw(self) -> Tensor:
        """(1, 3, h, w) in [-1, 1]: the picture of the last step."""
        ...


S = TypeVar("S", bound=SteeredSettings)


def run_steps(
    run: StepwiseRun,
    stage: str,
    settings: S,
    journal: Journal,
    models: str,
    pictures: Callable[[S, Message | None], list[Picture]],
) -> Generator[Step, None, list[Picture]]:
    """Make a run's steps, from its journal's last snapshot if it has one. Yields a Step for each; returns the pictures.

    `models` is a hash of the networks. `pictures` makes the result from the settings that are recorded and from why the
    run ended early. Stopped, thrown in at a yield, ends the run. BadInput when the journal is another run's.
    """
    journal.begin({"settings": settings.to_dict(), "models": models}, settings.current_names)
    if (snapshot := journal.latest()) is None:
        run.begin()
    else:
        run.restore(snapshot)
    ended, stopped, saved = None, False, run.position
    while run.position < run.last_step():
        if ended := run.step():
            break
        if journal.due(run.position) or run.at_boundary():
            journal.save(run.snapshot())
            saved = run.position
        try:
            yield Step(stage, run.position, run.total(), run.metrics(), run.draw)
        except Stopped:
            stopped = True
            break
    if ended or stopped:
        if saved != run.position:
            journal.save(run.snapshot())
        settings = replace(settings, until=run.position)
    words = [[target.text, target.weight] for target in parse_targets(settings.scene_at(run.position))]
    return [replace(one, facts={**one.facts, READ: words}) for one in pictures(settings, ended)]


def fingerprint(networks: Iterable[Network]) -> str:
    """A hash of samples of the networks' weights, 16 hexadecimal digits, to refuse a journal of other networks."""
    # a little of each will do, in one copy
    samples = [
        parameter.detach().flatten()[:16].float()
        for network in networks
        for parameter in network.parameters()
    ]
    return hashlib.sha256(torch.cat(samples).cpu().numpy().tobytes()).hexdigest()[:16]
