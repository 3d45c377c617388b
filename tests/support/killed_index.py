"""Kills an index run at twenty of its points and tells, as JSON, what the next run finds: `python -m ... FOLDER`.

Each run is a child of its own, forked before any thread began, over a copy of FOLDER/start. A kill is os._exit: nothing
that Python or SQLite would still do is done.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import app.library.facts as facts
import app.library.filling as filling
import app.library.index as index
from app.library import Library, read_query
from app.library.marks import MarksFile
from app.library.vectors import Vectors
from tests.support.library import ColourClip

POINTS = 20


class Killer:
    """Counts the points of a run by kind and ends the process at one of them."""

    def __init__(self, last: tuple[str, int] | None, note: Path) -> None:
        self.last, self.note = last, note
        self.counts: dict[str, int] = {}

    def at(self, kind: str) -> bool:
        """Whether this is the point."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return (kind, self.counts[kind]) == self.last

    def kill(self) -> None:
        self.note.write_text("killed")
        os._exit(9)


def armed(killer: Killer) -> None:
    """Put points before, amid and after everything that a run writes."""
    write, transaction, thumbnail, append = (
        Vectors._write,
        index.transaction,
        filling.write_thumbnail,
        MarksFile._append,
    )

    def write_vectors(file: Path, at: int, data: bytes) -> None:
        if killer.at("vectors"):
            killer.kill()
        if killer.at("half of vectors"):
            write(file, at, data[: len(data) // 2 - 1])
            killer.kill()
        write(file, at, data)

    @contextmanager
    def in_transaction(db: sqlite3.Connection) -> Iterator[None]:
        with transaction(db):
            yield
            if killer.at("transaction"):
                killer.kill()
        if killer.at("after transaction"):
            killer.kill()

    def write_thumbnail(file: Path, data: bytes) -> None:
        if killer.at("thumbnail"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data[: len(data) // 2])
            killer.kill()
        thumbnail(file, data)

    def append_marks(self: MarksFile, line: Any) -> None:
        append(self, line)
        if killer.at("marks"):
            data = self.file.read_bytes()
            self.file.write_bytes(data[: len(data) - 9])
            killer.kill()

    Vectors._write = staticmethod(write_vectors)  # type: ignore[method-assign]
    index.transaction = facts.transaction = in_transaction
    filling.write_thumbnail = write_thumbnail
    MarksFile._append = append_marks  # type: ignore[method-assign]


def run(folder: Path) -> None:
    filling.BATCH = 1  # so that every run has the same points
    library = Library(folder)
    library.fill(ColourClip())
    library.star(["picture 2"])
    library.close()


def child(folder: Path, last: tuple[str, int] | None, note: Path) -> None:
    """One run in a child, killed at a point; without one it notes how many there are."""
    pid = os.fork()
    if pid == 0:
        killer = Killer(last, note)
        armed(killer)
        run(folder)
        if last is None:
            note.write_text(json.dumps(killer.counts))
        os._exit(0)
    os.waitpid(pid, 0)


def look(folder: Path) -> dict[str, Any]:
    """What a new run makes of what a killed one has left, in a child too: torch must not have begun in this process."""
    note = folder / "look.json"
    pid = os.fork()
    if pid == 0:
        library, clip = Library(folder), ColourClip()
        library.fill(clip)
        page = library.page(read_query("red", stacked=False), 0, 48, clip)
        table = library._index.table()
        rows = table.row[table.row >= 0]
        assert table.vectors is not None
        vectors = np.array(table.vectors.rows(int(rows.max()) + 1)[np.sort(rows)], np.float32)
        told = {
            "count": library.count(),
            "rows": len(rows),
            "distinct": len(set(rows.tolist())),
            "order": [
                found.entry.prompt
                for found in library.page(read_query("green", stacked=False), 0, 48, clip).found
            ],
            "best": library.search(clip, "green", 1)[0][0].prompt,
            "whole": bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.01)),
            "left": [id for id, _ in library._index.unseen(None)],
            "stars": [found.entry.prompt for found in library.page(read_query(starred=True)).found],
            "found": len(page.found),
        }
        note.write_text(json.dumps(told))
        os._exit(0)
    os.waitpid(pid, 0)
    return json.loads(note.read_text())


def main(folder: Path) -> None:
    note = folder / "note"
    shutil.copytree(folder / "start", folder / "plain")
    child(folder / "plain", None, note)
    counts: dict[str, int] = json.loads(note.read_text())
    points = [(kind, number) for kind, count in counts.items() for number in range(1, count + 1)]
    kinds = [(kind, 1) for kind in counts]
    step = max(1, len(points) // 14)
    chosen = list(dict.fromkeys([*kinds, *points[::step], *points]))[:POINTS]
    told: list[dict[str, Any]] = []
    for kind, number in chosen:
        place = folder / f"{kind}-{number}"
        shutil.copytree(folder / "start", place)
        note.unlink(missing_ok=True)
        child(place, (kind, number), note)
        told.append({"at": kind, "number": number, "killed": note.exists(), **look(place)})
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
