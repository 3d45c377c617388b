"""The journals of runs that can be resumed: the newest are kept, within limits; pictures are no part of them."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

KEPT_JOURNALS = 200  # of the newest runs that can be resumed
MOST_BYTES = 1_000_000_000  # of all together, films included


def forget_journals(folder: Path, spared: Collection[str] = ()) -> None:
    """Delete the oldest journals in `folder` beyond the limits, but for those of the jobs `spared`."""
    journals: list[tuple[float, Path]] = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):  # deleted just now
                if path.is_dir():
                    journals.append((path.stat().st_mtime, path))
    total = 0
    for count, (_, journal) in enumerate(sorted(journals, reverse=True), start=1):
        total += _size(journal)
        if (count > KEPT_JOURNALS or total > MOST_BYTES) and journal.name not in spared:
            shutil.rmtree(journal, ignore_errors=True)


def _size(folder: Path) -> int:
    size = 0
    with suppress(OSError):
        for file in folder.iterdir():
            with suppress(OSError):
                size += file.stat().st_size
    return size
