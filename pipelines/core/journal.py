"""Journal: snapshots that a long run writes while it works, so that it can be resumed, stepped back and forked.

A folder holds `run.json`, which says what is run, and one small safetensors file a snapshot with tensors and JSON facts.
Each file is written atomically. A run whose journal has snapshots goes on from the last one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from pipelines.core.environment import followed_by
from pipelines.errors import BadInput
from pipelines.io.files import cannot_save, write_atomically
from pipelines.io.tensors import open_tensors
from pipelines.io.values import is_dict

EVERY_STEPS = 10  # a snapshot at all multiples of it ...
EVERY_SECONDS = 5.0  # ... and after so much time


@dataclass(frozen=True)
class Snapshot:
    """A run's state after `step` steps: tensors, and facts as JSON values."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass
class Journal:
    """The snapshots of one run, in `folder`, or in memory when `folder` is None."""

    folder: Path | None = None
    _memory: dict[int, Snapshot] = field(default_factory=dict[int, Snapshot])
    _saved: float = field(default_factory=time.monotonic)
    _environment: dict[str, str] = field(default_factory=dict[str, str])  # of the run so far

    def begin(
        self,
        identity: dict[str, Any],
        current_names: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        """Write what is run into the journal, or check that the journal belongs to the same run.

        `identity` holds JSON values, the settings under "settings". Settings that the journal lacks were added by a later
        version and are not compared; former names of settings are read through the Settings' own `current_names`. BadInput
        when the journal belongs to another run or is damaged; CannotSave when it cannot be written. Without a folder
        nothing happens.
        """
        if self.folder is None:
            return
        new = json.loads(json.dumps(identity))
        if (old := self.identity()) is None:
            write_atomically(self.folder / "run.json", json.dumps(identity).encode())
        elif {**old, "settings": new["settings"] | current_names(old.get("settings", {}))} != new:
            raise BadInput("core.journal_of_other_run", journal=self.folder.name)

    def identity(self) -> dict[str, Any] | None:
        """The identity that `begin` wrote. None when there is none or no folder. BadInput when the file is damaged."""
        if self.folder is None or not (path := self.folder / "run.json").is_file():
            return None
        try:
            identity = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            identity = None
        if not is_dict(identity):
            raise BadInput("core.journal_damaged", journal=self.folder.name)
        return identity

    def go_on_in(self, environment: dict[str, str]) -> dict[str, str]:
        """Note the environment in which the run begins or goes on, to be saved with its snapshots.

        Returns the environment of the whole run, in which "2, then 1" stands where it went on in another. BadInput when
        the last snapshot is damaged.
        """
        steps = self.steps() if self.folder else []
        known: Any = environment
        if steps:
            try:
                known = json.loads(self._metadata(steps[-1]).get("environment", "{}"))
            except (ValueError, RecursionError) as error:
                if isinstance(error, BadInput):
                    raise
                known = None
        self._environment = followed_by(known if is_dict(known) else {}, environment)
        return self._environment

    def due(self, step: int) -> bool:
        """Whether a snapshot should be saved after `step` steps: every EVERY_STEPS steps and after EVERY_SECONDS."""
        return step % EVERY_STEPS == 0 or time.monotonic() - self._saved > EVERY_SECONDS

    def save(self, snapshot: Snapshot) -> None:
        """Save a snapshot. CannotSave when the file cannot be written."""
        self._saved = time.monotonic()
        if self.folder is None:
            tensors = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
            self._memory[snapshot.step] = Snapshot(snapshot.step, tensors, snapshot.facts)
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()}
        metadata = {"facts": json.dumps(snapshot.facts), "environment": json.dumps(self._environment)}
        write_atomically(self._path(snapshot.step), save(tensors, metadata))

    def steps(self) -> list[int]:
        """The steps that have snapshots, in ascending order."""
        if self.folder is None:
            return sorted(self._memory)
        names = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.safetensors"))
        return sorted(int(name) for name in names if name.isdecimal())

    def facts(self, step: int) -> dict[str, Any]:
        """The facts of a snapshot, without reading its tensors. BadInput when its file is missing or damaged."""
        return self._read(step, with_tensors=False).facts

    def load(self, step: int) -> Snapshot:
        """The snapshot after `step` steps. BadInput when its file is missing or damaged."""
        return self._read(step, with_tensors=True)

    def _read(self, step: int, *, with_tensors: bool) -> Snapshot:
        if self.folder is None:
            return self._memory[step]
        path = self._path(step)
        try:
            with open_tensors(path) as file:
                facts = json.loads((file.metadata() or {})["facts"])
                names = file.keys() if with_tensors else ()
                tensors = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise BadInput("core.snapshot_damaged", file=path.name, reason=error) from error
        return Snapshot(step, tensors, facts)

    def _metadata(self, step: int) -> dict[str, str]:
        path = self._path(step)
        try:
            with open_tensors(path) as file:
                return file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise BadInput("core.snapshot_damaged", file=path.name, reason=error) from error

    def latest(self) -> Snapshot | None:
        """The last snapshot, or None when there is none. BadInput when its file is damaged."""
        steps = self.steps()
        return self.load(steps[-1]) if steps else None

    def fork(self, folder: Path, step: int) -> Journal:
        """A new journal in `folder` with copies of the snapshots up to `step`.

        The journal must have a folder, and `folder` must not exist. BadInput when `step` is not one of `steps()`;
        CannotSave when the copies cannot be written.
        """
        steps = self.steps()
        if step not in steps:
            if not steps:
                raise BadInput("core.no_snapshots", step=step)
            raise BadInput("core.no_snapshot", step=step, steps=", ".join(map(str, steps)))
        assert self.folder is not None
        try:
            folder.mkdir(parents=True)
            for saved_step in steps:
                if saved_step <= step:
                    shutil.copyfile(self._path(saved_step), folder / self._path(saved_step).name)
        except OSError as error:
            raise cannot_save(folder, error) from None
        return Journal(folder)

    def _path(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"step-{step:06}.safetensors"
