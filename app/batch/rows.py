"""The rows of a batch: read from csv or JSON Lines, and written back with what is wrong with them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput, Message
from pipelines.io.files import home_path, write_atomically
from pipelines.io.images import read_bytes
from pipelines.io.tables import cells_of, text_of
from pipelines.io.values import json_lines

MOST_ROWS = 200_000
MOST_BYTES = 500_000_000  # of the file
KINDS = (".csv", ".jsonl")
# columns of a file of bad rows that are none of the rows' own; they are passed over
ADDED = ("row", "problem")


@dataclass(frozen=True)
class Row:
    """One row as it was given: its number in the file, from 1, and its values by column, without empty cells.

    `problem` says why it could not be read.
    """

    number: int
    values: dict[str, Any]
    problem: Message | None = None


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a file of csv with a head, or of JSON Lines. Empty lines are passed over.

    Values of csv are texts, those of JSON Lines are JSON's. BadInput when the file cannot be read, is of another kind, or
    has no row or more than MOST_ROWS.
    """
    file = home_path(path)
    if file.suffix.lower() not in KINDS:
        raise BadInput("batch.file_kind", file=file.name[:60], known=" or ".join(KINDS))
    data = read_bytes(file, max_bytes=MOST_BYTES)
    try:
        text = text_of(data)
        if text is None:
            raise BadInput("batch.file_unreadable", file=file.name[:60])
        rows = _of_csv(text) if file.suffix.lower() == ".csv" else _of_lines(text)
    except csv.Error as error:
        raise BadInput("core.table_damaged", file=file.name[:60], reason=str(error)) from None
    if not 0 < len(rows) <= MOST_ROWS:
        raise BadInput("batch.row_count", file=file.name[:60], count=len(rows), most=MOST_ROWS)
    return rows


def _of_csv(text: str) -> list[Row]:
    head, *lines = cells_of(text) or [[]]
    head = [name.strip() for name in head]
    named = [name for name in head if name]
    if len(set(named)) < len(named):
        raise BadInput(
            "batch.column_twice", column=next(name for name in named if named.count(name) > 1)[:40]
        )
    rows: list[Row] = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        number = len(rows) + 1
        values = {name: cell for name, cell in zip(head, cells, strict=False) if name and cell.strip()}
        beyond = len(cells) > len(head)
        rows.append(Row(number, _own(values), Message("batch.cells_beyond") if beyond else None))
    return rows


def _of_lines(text: str) -> list[Row]:
    return [
        Row(number, {}, Message("batch.no_object")) if values is None else Row(number, _own(values))
        for number, (_, values) in enumerate(json_lines(text), 1)
    ]


def _own(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ADDED}


def write_bad_rows(path: Path, rows: Iterable[tuple[Row, Message]]) -> None:
    """Write rows with their sentences in the form of the path's ending, so that they can be mended and given again.

    Without rows the file is removed. CannotSave when it cannot be written.
    """
    listed = [{"row": row.number, "problem": str(problem), **row.values} for row, problem in rows]
    if not listed:
        path.unlink(missing_ok=True)
    elif path.suffix.lower() == ".csv":
        write_atomically(path, csv_of(listed).encode())
    else:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in listed]
        write_atomically(path, "".join(lines).encode("utf-8", "replace"))


def csv_of(rows: list[dict[str, Any]]) -> str:
    """Rows as csv with a head: every column that any row has, in the order in which they come first."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()
