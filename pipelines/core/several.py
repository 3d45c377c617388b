"""Several prompts in one text: one a line, and all combinations of what braces hold: `{a|b} {c|d}`."""

from __future__ import annotations

import csv
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput, reason_of
from pipelines.io.files import home_path
from pipelines.io.tables import cells_of, text_of
from pipelines.io.values import is_dict, is_list
from pipelines.io.visible import visible

MOST = 64  # prompts of one text
MOST_BYTES = 200_000  # of a file of them
COLUMNS = ("prompt", "prompts", "提示词")  # that hold them in a table
BRACES = str.maketrans("｛｝", "{}")
GROUP = re.compile(  # but for JSON, and for Dynamic Prompts' choice of several, `{2$$a|b}`, and names, `${a=!{b|c}}`
    r"(?<![\\$])(?<!=!)\{(?!\s*[\d-]*\s*\$\$)(?!\s*\"[^\"{}]*\"\s*:)([^{}]*(?<!\\)[|｜][^{}]*)\}"
)
CHANCE = re.compile(r"\s*(?:[~@](?=\w))?\s*(?:\d*\.?\d+::)?\s*")  # what Dynamic Prompts has before a choice
LISTED = re.compile(r"^\s*(?:\d{1,3}(?:[.)]\s+|、)|[-*•–]\s+)(?=\S)")  # before each line of a list
OF_ONE_RUN = re.compile(r"^\s*Steps: ?\d+\s*[,|]", re.MULTILINE)  # A1111's settings, below one prompt


def prompts_in(text: str) -> list[str]:
    """The prompts of a text in order, each once; empty lines are left out.

    A line with braces that hold bars becomes one prompt for each combination of what stands between the bars, the last
    braces changing first. Braces inside braces are chosen before those around them. Braces without a bar, and those after
    a backslash, are words. Numbers or bullets before all lines are left out. JSON is read as in a file of prompts, and
    what A1111 wrote of one run is one prompt. BadInput for more than MOST prompts.
    """
    found: dict[str, None] = {}
    for line in _lines(text):
        for prompt in _combined(" ".join(line.split())):
            if visible(prompt).strip():
                found[prompt] = None
            if len(found) > MOST:
                raise BadInput("core.too_many_prompts", most=MOST)
    return list(found)


def _lines(text: str) -> list[str]:
    """What may each be a prompt, or several in braces."""
    if text.lstrip().startswith(("{", "[")) and (prompts := _of_json(text)) is not None:
        return prompts
    if OF_ONE_RUN.search(text):
        return [text]
    plain = text.translate(BRACES)
    lines = plain.splitlines() if "\n" in text or GROUP.search(plain) else [text]
    listed = [LISTED.sub("", line, count=1) for line in lines if line.strip()]
    return listed if len(listed) > 1 and all(map(LISTED.match, filter(str.strip, lines))) else lines


def read_prompts(path: str | Path) -> str:
    """The text of a file of prompts, one a line; those of a table (csv, tsv) or of JSON are in its column "prompt".

    BadInput when it cannot be read, is no text, has another form, or has no prompt.
    """
    file = home_path(path)
    text = read_text(file)
    kind = file.suffix.lower()
    if kind in (".csv", ".tsv"):
        lines = _of_table(text, file.name)
    elif kind in (".json", ".jsonl"):
        lines = _of_json(text)
        if lines is None:
            raise BadInput("core.prompts_column", file=file.name[:60], columns=_names(text))
    else:
        lines = text.splitlines()
    text = "\n".join(line for line in (" ".join(line.split()) for line in lines) if line)
    if not prompts_in(text):
        raise BadInput("core.prompts_empty", file=file.name[:60])
    return text


def read_text(file: Path, most: int = MOST_BYTES) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark. BadInput when it is none, or has more than `most` bytes."""
    name = file.name[:60]
    try:
        with file.open("rb") as opened:
            data = opened.read(most + 1)
    except (OSError, ValueError) as error:
        raise BadInput("core.prompts_unreadable", file=name, reason=reason_of(error)) from None
    if len(data) > most:
        raise BadInput("core.prompts_too_large", file=name, most=most // 1000)
    text = text_of(data)
    if text is None:
        raise BadInput("core.prompts_not_text", file=name)
    return text


def _of_table(text: str, name: str) -> list[str]:
    """The cells of the column of prompts; every cell, where there is one column. BadInput for other tables."""
    try:
        rows = cells_of(text)
    except csv.Error as error:
        raise BadInput("core.table_damaged", file=name[:60], reason=str(error)) from None
    columns = [cell.strip() for cell in rows[0]] if rows else []
    at = next((k for k, column in enumerate(columns) if column.lower() in COLUMNS), None)
    if at is not None:
        return [row[at] for row in rows[1:] if len(row) > at]
    if max(map(len, rows), default=0) > 1:
        raise BadInput("core.prompts_column", file=name[:60], columns=", ".join(columns)[:80] or "-")
    return [cell for row in rows for cell in row]


def _of_json(text: str) -> list[str] | None:
    """The prompts of a list, of an object, or of one value a line: texts, or objects with a prompt. None for others."""
    listed = _values(text)
    if len(listed) == 1 and is_dict(listed[0]) and is_list(listed[0].get("prompts")):
        listed = listed[0]["prompts"]
    found = [value.get("prompt") if is_dict(value) else value for value in listed]
    prompts = [text for text in found if isinstance(text, str)]
    return prompts if prompts and len(prompts) == len(found) else None


def _values(text: str) -> list[Any]:
    """The values of a JSON list, of one value, or of one a line; [] for no JSON."""
    try:
        values: Any = json.loads(text)
        return values if is_list(values) else [values]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return []


def _names(text: str) -> str:
    """The names of the first object in a JSON text, to tell what it has."""
    first = next(iter(_values(text)), None)
    return (", ".join(first)[:80] if is_dict(first) else "") or "-"


def _combined(line: str) -> list[str]:
    """All combinations of a line; more than MOST only by as many as one group adds."""
    inner = list(GROUP.finditer(line))
    if not inner:
        return [line]
    choices = [
        [CHANCE.sub("", choice, count=1).strip() for choice in re.split(r"(?<!\\)[|｜]", match[1])]
        for match in inner
    ]
    count = 1
    for each in choices:
        count *= len(each)
    if count > MOST:
        raise BadInput("core.too_many_prompts", most=MOST)
    found: list[str] = []
    for chosen in product(*choices):
        parts, at = list[str](), 0
        for match, choice in zip(inner, chosen, strict=True):
            parts += [line[at : match.start()], choice]
            at = match.end()
        found += _combined(" ".join("".join([*parts, line[at:]]).split()))
    return found
