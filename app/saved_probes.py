"""The label sets that were taught and kept, small files in one folder, to be used on any picture later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.kept_files import keep, kept_file, newest
from pipelines.errors import BadInput
from pipelines.see.probe import Probe, read_probe

MOST_SHOWN = 12  # the newest


@dataclass(frozen=True)
class Taught:
    """One label set: its file's name and its labels."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Probes:
    """The label sets of whoever asks, in the folder that `home` tells. Names that come from a browser pass `path`."""

    home: Callable[[], Path]

    @property
    def folder(self) -> Path:
        return self.home() / "probes"

    def keep(self, probe: Probe) -> str:
        """Save a label set under a name made of its labels; the same set twice is one file."""
        return keep(self.folder, probe.to_bytes(), "-".join(probe.labels[:3]))

    def read(self, name: str) -> Probe:
        """The label set behind a name. BadInput when it is none of ours."""
        path = kept_file(self.folder, name)
        if path is None:
            raise BadInput("see.probe_missing", path=name[:60])
        return read_probe(path)

    def kept(self) -> list[Taught]:
        """Those that are kept, newest first; files that are no label sets are passed over."""
        files = newest(self.folder, MOST_SHOWN)
        read = [_read(path, stat.st_mtime_ns) for path, stat in files]
        return [taught for taught in read if taught is not None]


@lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> Taught | None:
    try:
        return Taught(path.name, tuple(read_probe(path).labels))
    except BadInput:
        return None
