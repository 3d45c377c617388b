"""The order of the pictures that a query finds, with near-duplicates behind the best of them.

Exact search is one product of the matrix with the query's vector. The texts and pictures of a query are one vector: each
is divided by how far its cosines spread over the library, because those of pictures with pictures spread several times
as far as those of texts with pictures, and a weight should mean the same for both.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.library.index import Table

SAME = 0.985  # cosine above which two pictures stand on one stack
SAME_WORDING = 0.95  # the same for pictures of the same prompt
TOLD = 4.0  # standard deviations by which pictures come earlier whose own record has the words
SAMPLE = 2048  # pictures from which the spread is estimated
LOOKED_AT = 256  # places that are compared at a time


@dataclass(frozen=True)
class Place:
    """A picture's place in an order: its index in the table, its score, whether its record has the words, its stack."""

    at: int
    score: float | None = None
    told: bool = False
    stack: list[int] = field(default_factory=list[int])


def combined(vectors: np.ndarray, weights: Sequence[float], table: Table) -> np.ndarray:
    """(k, d) unit vectors and k weights -> (d,) of unit length, by which the pictures are ordered.

    With one vector it is that vector, or its opposite.
    """
    weighted = vectors * np.asarray(weights, np.float32)[:, None]
    if len(vectors) > 1 and table.vectors is not None and (rows := table.row[table.row >= 0]).size > 1:
        step = -(-len(rows) // SAMPLE)
        sample = table.vectors.rows(int(rows.max()) + 1)[np.sort(rows)[::step]].astype(np.float32)
        weighted = weighted / np.maximum((sample @ vectors.T).std(0), 1e-3)[:, None]
    whole = weighted.sum(0)
    length = float(np.linalg.norm(whole))
    return whole / length if length > 0 else whole


def scores_of(table: Table, wanted: np.ndarray) -> np.ndarray:
    """(n,) cosines of the pictures of a table with a (d,) vector; nan for those without a vector."""
    scores = np.full(len(table), np.nan, np.float32)
    there = table.row >= 0
    if table.vectors is not None and there.any():
        products = table.vectors.dot(wanted[:, None].astype(np.float32), int(table.row.max()) + 1)[:, 0]
        scores[there] = products[table.row[there]]
    return scores


class Order:
    """The places of a query, stacked as far as they were asked for."""

    def __init__(
        self,
        table: Table,
        order: np.ndarray,
        scores: np.ndarray | None = None,
        told: np.ndarray | None = None,
        stacked: bool = True,
        total: int | None = None,
    ) -> None:
        """`order` (m,) are indices of the table, best first; `scores` and `told` are (n,), of all of the table.

        `total` is given where there are more pictures than the order has.
        """
        self.table, self.count, self.stacked = table, len(order), stacked
        self.complete, self.total = total is None, total or len(order)
        self._order, self._scores, self._told = order, scores, told
        self._lock = threading.Lock()
        self._next = 0  # of the order
        self._places: list[Place] = []
        self._by_content: dict[bytes, Place] = {}
        self._heads = np.zeros((0, table.vectors.size if table.vectors else 1), np.float32)

    def places(self, skip: int, count: int) -> tuple[list[Place], bool]:
        """`count` places after the first `skip`, and whether there are more.

        What comes further down may still join a stack that was given before, and is then not shown again.
        """
        with self._lock:
            while len(self._places) <= skip + count and self._next < self.count:
                part = self._order[self._next : self._next + LOOKED_AT]
                self._next += len(part)
                if self.stacked:
                    self._stack(part)
                else:
                    self._places += [self._place(int(at)) for at in part]
            return self._places[skip : skip + count], len(self._places) > skip + count

    def _place(self, at: int) -> Place:
        score = None if self._scores is None or np.isnan(self._scores[at]) else float(self._scores[at])
        return Place(at, score, self._told is not None and bool(self._told[at]))

    def _stack(self, part: np.ndarray) -> None:
        """Give each picture of a part a place, or lay it on the stack of the first place that looks the same."""
        table, before = self.table, len(self._places)
        vectors = self._vectors(part)
        wording = table.wording[np.array([*(place.at for place in self._places), *part], np.int64)]
        alike = np.concatenate([self._heads, vectors]) @ vectors.T  # (places + k, k)
        same = (wording[:, None] == wording[None, before:]) & (wording[None, before:] != 0)
        hits = alike >= np.where(same, SAME_WORDING, SAME)
        head = np.zeros(len(hits), bool)
        head[:before] = True
        place_of: dict[int, Place] = dict(enumerate(self._places))
        for k, at in enumerate(part.tolist()):
            content = table.contents[at]
            place = self._by_content.get(content)
            if place is None and (first := np.flatnonzero(hits[:, k] & head)).size:
                place = place_of[int(first[0])]
            if place is None:
                place = self._place(at)
                self._places.append(place)
                head[before + k] = True
                place_of[before + k] = place
            else:
                place.stack.append(at)
            self._by_content.setdefault(content, place)
        self._heads = np.concatenate([self._heads, vectors[head[before:]]])

    def _vectors(self, part: np.ndarray) -> np.ndarray:
        """(k, d) float32; zeros for pictures without a vector."""
        rows = self.table.row[part]
        vectors = np.zeros((len(part), self._heads.shape[1]), np.float32)
        there = rows >= 0
        if self.table.vectors is not None and there.any():
            vectors[there] = self.table.vectors.rows(int(rows.max()) + 1)[rows[there]].astype(np.float32)
        return vectors
