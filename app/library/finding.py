"""From a query to the order of the pictures that it finds."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.library import near
from app.library.entry import Marks
from app.library.index import ANY_CLIP, Index, Table
from app.library.query import Query
from app.library.ranking import TOLD, Order, combined, scores_of
from app.library.seeing import ClipLike, as_shown, fingerprint, query_vectors

KEPT_ORDERS = 8  # of the last queries, for who scrolls on

log = logging.getLogger(__name__)


class Finder:
    """Answers queries from an index. `find` gives the number of a picture by its id; BadInput when there is none."""

    def __init__(
        self, index: Index, marks: Callable[[], dict[str, Marks]], find: Callable[[str], tuple[int, str]]
    ) -> None:
        self.index, self._marks, self._find = index, marks, find
        self._orders: dict[tuple[Any, ...], Order] = {}
        self._graphs: dict[Path, near.NearIndex] = {}

    def order(self, query: Query, clip: ClipLike | None, marks_version: int, told: bool, need: int) -> Order:
        """The order of all pictures that a query finds; the same one again while nothing has changed.

        Without `told`, pictures whose own record has the words come no earlier. The first `need` places are surely in it.
        """
        mark = ANY_CLIP if clip is None else fingerprint(clip)
        table = self.index.table(mark)
        key = (query, mark, marks_version, told, table.version)
        order = self._orders.get(key)
        if order is None or not (order.complete or order.count > need):
            order = self._order(query, clip, table, told, need)
            self._orders = dict([*self._orders.items(), (key, order)][-KEPT_ORDERS:])
        return order

    def _order(self, query: Query, clip: ClipLike | None, table: Table, told: bool, need: int) -> Order:
        chosen = self._chosen(query, table)
        if not query.looks:
            return Order(table, _sorted(query.order, table, chosen), stacked=query.stacked)
        assert clip is not None, "this query needs a CLIP"
        wanted, single = self._wanted(query, clip, table)
        said = self._told(query, table) if told else np.zeros(len(table), np.float32)
        scores = None
        if chosen.all() and query.order == "likeness":
            scores = self._approximate(table, wanted, need)
        approximate = scores is not None
        scores = scores_of(table, wanted) if scores is None else scores
        there = ~np.isnan(scores) & chosen
        # What has no vector yet is found by its words alone, after all others that have them.
        by = np.where(there, np.nan_to_num(scores), float(np.nanmin(scores, initial=0.0)))
        by = by + TOLD * max(float(scores[there].std()) if there.any() else 1.0, 0.01) * said
        there |= chosen & (said > 0)
        if query.order == "likeness":
            at = np.flatnonzero(there)
            order = at[np.argsort(-by[at], kind="stable")]
        else:
            order = _sorted(query.order, table, there)
        shown = -scores if single < 0 else scores
        return Order(table, order, shown, said > 0, query.stacked, total=len(table) if approximate else None)

    # ------------------------------------------------------------------------------------------------- what is asked for

    def _wanted(self, query: Query, clip: ClipLike, table: Table) -> tuple[np.ndarray, float]:
        """The vector by which pictures are ordered; below zero with a single term of negative weight, else 1."""
        rows: list[np.ndarray] = []
        weights: list[float] = []
        pictures = [as_shown(source) for source in query.given]
        weights_of = {**dict.fromkeys(query.unlike, -1.0), **dict.fromkeys(query.like, 1.0)}
        for name, weight in weights_of.items():
            number, path = self._find(name)
            at = np.flatnonzero(table.number == number)
            if at.size and table.vectors is not None and table.row[at[0]] >= 0:
                row = int(table.row[at[0]])
                rows.append(table.vectors.rows(row + 1)[row].astype(np.float32))
            else:
                rows.append(query_vectors(clip, (), [as_shown(self.index.file(path))])[0])
            weights.append(weight)
        texts = [term.text for term in query.terms]
        if texts or pictures:
            rows += list(query_vectors(clip, texts, pictures))
            weights += [term.weight for term in query.terms] + [1.0] * len(pictures)
        vectors = np.stack(rows)
        single = np.sign(weights[0]) if len(weights) == 1 else 1.0
        return combined(vectors, weights, table), float(single)

    def _approximate(self, table: Table, wanted: np.ndarray, need: int) -> np.ndarray | None:
        """The scores of the nearest pictures, nan for all others; None where search is to be exact."""
        vectors = table.vectors
        count = int(table.row.max()) + 1 if len(table) else 0
        if vectors is None or vectors.file is None or count < near.LARGE or need > near.ENTRIES // 2:
            return None
        if not near.available():
            return None
        try:
            graph = self._graph(vectors.file.with_suffix(".usearch"), vectors.size)
            if len(graph) != count:
                return None  # it is being filled; `extend_graph` does that
            rows, products = graph.search(wanted, near.ENTRIES)
        except Exception:  # the package's own
            log.exception("the graph of the vectors cannot be used")
            return None
        by_row = np.full(count, np.nan, np.float32)
        by_row[rows] = products
        return np.where(table.row >= 0, by_row[np.maximum(table.row, 0)], np.nan)

    def extend_graph(self, mark: str) -> None:
        """Add new vectors to the graph, where there are enough for one and it can be used."""
        table = self.index.table(mark)
        vectors = table.vectors
        count = int(table.row.max()) + 1 if len(table) else 0
        if vectors is None or vectors.file is None or count < near.LARGE or not near.available():
            return
        try:
            self._graph(vectors.file.with_suffix(".usearch"), vectors.size).add(vectors, count)
        except Exception:  # the package's own
            log.exception("the graph of the vectors cannot be made; search is exact")

    def _graph(self, file: Path, size: int) -> near.NearIndex:
        if file not in self._graphs:
            self._graphs[file] = near.NearIndex(file, size)
        return self._graphs[file]

    # ------------------------------------------------------------------------------------------------------ filters

    def _chosen(self, query: Query, table: Table) -> np.ndarray:
        """(n,) which pictures pass the filters."""
        chosen = table.binned == query.binned
        parts, values = _conditions(query)
        if parts:
            numbers = self.index.facts.query(f"SELECT number FROM files WHERE {' AND '.join(parts)}", values)
            chosen &= np.isin(table.number, np.array([number for (number,) in numbers], np.int64))
        if query.words:
            chosen &= self._has_words(query.words, table)
        if query.starred or query.tag:
            having = {
                bytes.fromhex(content)
                for content, marks in self._marks().items()
                if (marks.star or not query.starred)
                and (not query.tag or query.tag.casefold() in (tag.casefold() for tag in marks.tags))
            }
            chosen &= np.array([content in having for content in table.contents], bool)
        return chosen

    def _has_words(self, words: str, table: Table) -> np.ndarray:
        """(n,) which pictures have the words in their text or their marks, all of them in one."""
        folded = " ".join(words.casefold().split())
        numbers = self._with_text(folded)
        marked = {
            bytes.fromhex(content)
            for content, marks in self._marks().items()
            if folded in " ".join([*marks.tags, marks.note]).casefold()
        }
        found = np.isin(table.number, np.array(sorted(numbers), np.int64))
        if marked:
            found |= np.array([content in marked for content in table.contents], bool)
        return found

    def _with_text(self, folded: str) -> set[int]:
        """The numbers of pictures whose text has the words, as whole words where they are Latin."""
        rows = self.index.facts.query("SELECT number, text FROM files WHERE instr(text, ?)", (folded,))
        if not folded.isascii():
            return {number for number, _ in rows}
        whole = re.compile(rf"(?<![a-z0-9]){re.escape(folded)}(?![a-z0-9])")
        return {number for number, text in rows if whole.search(text)}

    def _told(self, query: Query, table: Table) -> np.ndarray:
        """(n,) in [0, 1]: the share of the wanted texts' weight that stands in each picture's own record or marks."""
        said = np.zeros(len(table), np.float32)
        wanted = [term for term in query.terms if term.weight > 0]
        for term in wanted:
            said += term.weight * self._has_words(term.text, table)
        return said / sum(term.weight for term in wanted) if wanted else said


def _conditions(query: Query) -> tuple[list[str], list[Any]]:
    """What the database is asked, and the values for it."""
    parts: list[str] = []
    values: list[Any] = []
    for words, value in (
        ("tool = ?", query.tool),
        ("instr(lower(model), lower(?))", query.model),
        ("seed = ?", None if query.seed is None else str(query.seed)),
        ("modified >= ?", _nanoseconds(query.since)),
        ("modified < ?", _nanoseconds(query.until)),
    ):
        if value not in (None, ""):
            parts.append(words)
            values.append(value)
    return parts, values


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(min(max(seconds * 1e9, -(2.0**62)), 2.0**62))


def _sorted(order: str, table: Table, chosen: np.ndarray) -> np.ndarray:
    """The indices of the chosen pictures, newest first, or by the score of their records."""
    at = np.flatnonzero(chosen)
    newest = at[np.argsort(-table.modified[at], kind="stable")]
    if order != "score":
        return newest
    return newest[np.argsort(-np.nan_to_num(table.score[newest], nan=-np.inf), kind="stable")]
