"""What was made from what, by the records alone: the pictures in a record's settings are found again by how they look.

A record holds the pictures that a run was given, fitted to its canvas, and no names of files. So a picture's parents are
those that look as what its record holds, in whatever size, and were there before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from app.library.entry import Entry, Lineage, Relative
from app.library.facts import SHOWN
from app.library.index import Index
from app.library.seeing import LOOK

AT_ONCE = 256  # given pictures that are looked for together
NEAR = 4.0  # levels of 255: resizing and recompressing move a look by less, another picture by more
MOST_DEPTH = 6  # generations each way
MOST_RELATIVES = 24  # of one picture, each way
Entries = Callable[[list[int]], dict[int, Entry]]


class Family:
    """The looks of all pictures of an index and of all that they were given: who descends from whom."""

    def __init__(self, index: Index) -> None:
        rows = index.facts.query(
            f"SELECT number, content, look, modified, run FROM files JOIN seen USING (content)"
            f" WHERE {SHOWN} AND look IS NOT NULL ORDER BY modified, number"
        )
        self.content = {number: content for number, content, *_ in rows}
        self._modified = {number: modified for number, _, _, modified, _ in rows}
        self._run = {number: run for number, _, _, _, run in rows if run is not None}
        size = 3 * LOOK * LOOK
        looks = [(row[0], row[2][at : at + size]) for row in rows for at in range(0, len(row[2]), size)]
        self._numbers = np.array([number for number, _ in looks], np.int64)
        table = np.frombuffer(b"".join(look for _, look in looks), np.uint8)
        self._looks = table.reshape(-1, size).astype(np.float32)
        self._given: dict[bytes, list[tuple[str, bytes]]] = {}
        for content, setting, look in index.facts.query("SELECT content, setting, look FROM given"):
            if len(look) == size:
                self._given.setdefault(content, []).append((setting, look))
        self._parents: dict[int, list[tuple[int, str]]] = {}
        self._children: dict[int, list[tuple[int, str]]] = {}
        self._resolve()

    def _resolve(self) -> None:
        """Find the picture that looks most like each given one, older than the child and not the child itself."""
        wanted = [
            (number, setting, look)
            for number, content in self.content.items()
            for setting, look in self._given.get(content, ())
        ]
        size = self._looks.shape[1]
        lengths = np.einsum("nd,nd->n", self._looks, self._looks)
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            looks = np.frombuffer(b"".join(look for _, _, look in part), np.uint8).reshape(-1, size)
            looks = looks.astype(np.float32)
            own = np.einsum("nd,nd->n", looks, looks)
            distance = (own[:, None] + lengths - 2 * looks @ self._looks.T) / size  # squared
            for k, (child, setting, _) in enumerate(part):
                near = np.flatnonzero(distance[k] <= NEAR**2)
                for at in near[np.argsort(distance[k][near], kind="stable")]:
                    parent = int(self._numbers[at])
                    if self._may_be_parent(parent, child):
                        self._parents.setdefault(child, []).append((parent, setting))
                        self._children.setdefault(parent, []).append((child, setting))
                        break

    def _may_be_parent(self, parent: int, child: int) -> bool:
        older = self._modified[parent] <= self._modified[child]
        return older and self.content[parent] != self.content[child]

    def parents(self, number: int) -> list[tuple[int, str]]:
        """The pictures that a picture was made from, with the setting that holds each."""
        return self._parents.get(number, [])[:MOST_RELATIVES]

    def children(self, number: int) -> list[tuple[int, str]]:
        """The pictures that were made from a picture."""
        return self._children.get(number, [])[:MOST_RELATIVES]

    def siblings(self, number: int) -> list[int]:
        """The other pictures of the same run."""
        run = self._run.get(number)
        if run is None:
            return []
        same = [other for other, its in self._run.items() if its == run and other != number]
        return same[:MOST_RELATIVES]

    def to_lineage(self, number: int, entries: Entries) -> Lineage | None:
        """The lineage as entries; None when the picture is gone."""
        up = _tree(number, self.parents)
        down = _tree(number, self.children)
        siblings = self.siblings(number)
        found = entries([number, *siblings, *_numbers_in(up), *_numbers_in(down)])
        if number not in found:
            return None
        return Lineage(
            found[number],
            _relatives(up, found),
            _relatives(down, found),
            tuple(found[other] for other in siblings if other in found),
        )


Tree = list[tuple[int, str, Any]]  # (number, setting, its own tree)


def _tree(number: int, step: Callable[[int], list[tuple[int, str]]], seen: tuple[int, ...] = ()) -> Tree:
    """The relatives of a picture in one direction; nobody is his own ancestor."""
    seen = (*seen, number)
    if len(seen) > MOST_DEPTH:
        return []
    return [
        (other, setting, _tree(other, step, seen)) for other, setting in step(number) if other not in seen
    ]


def _numbers_in(tree: Tree) -> Iterator[int]:
    for number, _, further in tree:
        yield number
        yield from _numbers_in(further)


def _relatives(tree: Tree, found: dict[int, Entry]) -> tuple[Relative, ...]:
    return tuple(
        Relative(found[number], setting, _relatives(further, found))
        for number, setting, further in tree
        if number in found
    )
