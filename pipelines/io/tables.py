"""Tables in text files, as programs write them: any usual encoding, line end and separator."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

SEPARATORS = ",;\t"


def text_of(data: bytes) -> str | None:
    """Text in UTF-8, or in UTF-16 with its mark. None for other bytes, and for those with a zero among them."""
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError:
        return None
    return None if "\0" in text else text  # UTF-16 without its mark has one after every letter


def cells_of(text: str) -> list[list[str]]:
    """All of `rows_of`."""
    return list(rows_of(text))


def rows_of(text: str) -> Iterator[list[str]]:
    """The rows of a table, each a list of cells. The separator is the one of SEPARATORS that its head has most of.

    A first line `sep=;`, which Excel takes for the separator, is passed over. csv.Error, on the way, for cells of more
    characters than Python reads.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    head, _, rest = text.partition("\n")
    if head.startswith("sep=") and len(head) == 5:
        separator, text = head[4], rest
    else:
        separator = max(SEPARATORS, key=head.count)
    return csv.reader(io.StringIO(text), delimiter=separator)
