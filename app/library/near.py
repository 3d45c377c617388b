"""Approximate search for large libraries: a graph over the vectors (HNSW, Malkov and Yashunin 2018) by `usearch`.

It is optional: the extra `search` of pyproject.toml. Below LARGE vectors, without the package, or where only some of the
pictures are asked for, search is exact.
"""

from __future__ import annotations

import importlib.util
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from app.library.vectors import CHUNK, Vectors

LARGE = 200_000  # vectors from which on the graph is used
CONNECTIONS = 16  # of each vector in the graph
EXPANSION_ADD, EXPANSION_SEARCH = 128, 256  # how many candidates are kept while building and searching
ENTRIES = 2000  # that a search brings at least; who scrolls further gets the exact order

log = logging.getLogger(__name__)


def available() -> bool:
    return importlib.util.find_spec("usearch") is not None


class NearIndex:
    """A graph over the rows of one CLIP's vectors, kept in a file beside them. Rows are added as they come."""

    def __init__(self, file: Path, size: int) -> None:
        from usearch.index import Index  # pyright: ignore[reportMissingImports]

        self.file = file
        self._index: Any = Index(
            ndim=size,
            metric="ip",
            dtype="f16",
            connectivity=CONNECTIONS,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )
        if file.is_file():
            try:
                self._index.load(str(file))
            except Exception as problem:  # the package's own, of a damaged or foreign file
                log.warning("%s cannot be used (%s); it is made anew", file, problem)
                self._index.clear()

    def __len__(self) -> int:
        return len(self._index)

    def add(self, vectors: Vectors, count: int) -> None:
        """Add the rows that are not in it yet, up to `count`, and save it where that can be done."""
        rows = vectors.rows(count)
        if len(self) > len(rows):
            self._index.clear()
        if len(self) == len(rows):
            return
        for start in range(len(self), len(rows), CHUNK):
            part = np.array(rows[start : start + CHUNK])
            self._index.add(np.arange(start, start + len(part)), part)
        with suppress(OSError, RuntimeError):
            part_file = self.file.with_name(self.file.name + ".part")
            self._index.save(str(part_file))
            part_file.replace(self.file)

    def search(self, wanted: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(d,) -> the rows of the largest products, best first, and these products."""
        found = self._index.search(wanted.astype(np.float16), count)
        return np.asarray(found.keys, np.int64), 1 - np.asarray(found.distances, np.float32)
