"""Vectors of pictures by one CLIP: the rows of a float16 matrix in a file, which is mapped and never read as a whole.

The file is nothing but the rows. Which picture a row is of stands in the index of facts, written after the row: what a
crash leaves in the file without it is written over.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

CHUNK = 512  # rows that are multiplied at a time, as float32: of 512 numbers they stay in a core's cache
UNIT = 0.02  # how far a row's length may be from 1; float16 moves it by 0.001

BITS = np.uint32(0x8FFFE000)  # where sign, exponent and mantissa of a half lie in a float, moved up by 13

log = logging.getLogger(__name__)


class Vectors:
    """Rows of `size` numbers in `file`, or in memory where that is None or cannot be written. One writer at a time."""

    def __init__(self, file: Path | None, size: int) -> None:
        self.file, self.size = file, size
        self._memory = np.zeros((0, size), np.float16)
        self._map: np.ndarray | None = None

    def count(self) -> int:
        """How many whole rows there are."""
        if self.file is None:
            return len(self._memory)
        try:
            return self.file.stat().st_size // (2 * self.size)
        except OSError:
            return 0

    def write(self, row: int, vectors: np.ndarray) -> None:
        """Write (k, size) vectors from a row on, which may be beyond the end by nothing; on disk when it returns."""
        values = np.ascontiguousarray(vectors, np.float16)
        if self.file is not None:
            try:
                self._write(self.file, row * 2 * self.size, values.tobytes())
                return
            except OSError as problem:
                log.warning("%s cannot be written (%s); vectors are kept in memory", self.file, problem)
                self._memory, self.file = np.array(self.rows(row)), None
        grown = np.zeros((max(len(self._memory), row + len(values)), self.size), np.float16)
        grown[: len(self._memory)] = self._memory
        grown[row : row + len(values)] = values
        self._memory = grown

    @staticmethod
    def _write(file: Path, at: int, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b") as handle:
            handle.seek(at)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())

    def rows(self, count: int) -> np.ndarray:
        """The first `count` rows, or as many as there are: (n, size) float16."""
        if self.file is None:
            return self._memory[:count]
        there = min(count, self.count())
        if there == 0:
            return np.zeros((0, self.size), np.float16)
        if self._map is None or len(self._map) < there:
            self._map = np.memmap(self.file, np.float16, "r", shape=(self.count(), self.size))
        return self._map[:there]

    def dot(self, wanted: np.ndarray, count: int) -> np.ndarray:
        """(size, k) float32 -> (n, k) float32: the products of the first rows with k vectors, by one product."""
        rows = self.rows(count)
        result = np.zeros((len(rows), wanted.shape[1]), np.float32)
        scaled = wanted.astype(np.float32) * np.float32(2.0**112)
        for start in range(0, len(rows), CHUNK):
            np.matmul(_widened(rows[start : start + CHUNK]), scaled, out=result[start : start + CHUNK])
        return result

    def bad(self, count: int) -> np.ndarray:
        """The numbers of rows below `count` that are not there, or no unit vectors: the file was cut or damaged."""
        rows = self.rows(count)
        lengths = np.zeros(count, np.float32)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK].astype(np.float32)
            lengths[start : start + len(part)] = np.sqrt(np.einsum("nd,nd->n", part, part))
        return np.flatnonzero(~(np.abs(lengths - 1) < UNIT))


def _widened(rows: np.ndarray) -> np.ndarray:
    """(n, d) finite float16 -> (n, d) float32 that are 2^-112 times as large, exactly.

    The bits are moved to their places in a float (IEEE 754: 5 bits of exponent become 8, the bias 15 stays). NumPy's
    own conversion goes number by number and takes longer than the product.
    """
    bits = np.asarray(rows).view(np.int16).astype(np.int32).view(np.uint32)
    bits <<= np.uint32(13)
    bits &= BITS
    return bits.view(np.float32)
