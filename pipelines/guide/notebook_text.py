"""Names and values in the text of settings: a JSON object, a notebook's cells, or lines NAME: VALUE.

Nothing is run. Cells are parsed, and of their statements only assignments are read.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

from pipelines.errors import BadInput
from pipelines.io.values import is_dict

MOST_CHARACTERS = 1_000_000
# names that no other program has
OWN = ("text_prompts", "clip_guidance_scale", "cut_overview", "cut_innercut")
SIGN = re.compile(rf"[\"']?\b(?:{'|'.join(OWN)})[\"']?\s*[:=]")
COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
MAGIC = re.compile(r"^\s*[!%].*$", re.MULTILINE)  # a notebook's own commands, which are no Python
NAMED = re.compile(r"\s*[\"']?([A-Za-z_]\w*)[\"']?\s*[:=]\s*(.*?),?\s*")
ITEM = re.compile(r"\s*-\s+(.*)")
KEYED = re.compile(r"\s+[\"']?(\d{1,9})[\"']?\s*:\s*(.*)")
WORDS = {"true": True, "false": False, "null": None, "none": None, "~": None, "": None}
UNREADABLE = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


def is_notebook(text: str) -> bool:
    """Whether a text that was typed or pasted holds settings of a Disco notebook, and is no prompt."""
    return SIGN.search(text[:MOST_CHARACTERS]) is not None


def values_in(text: str) -> dict[str, Any]:
    """The values by name. A value is what JSON can hold; dictionaries have texts as keys.

    BadInput when the text is longer than MOST_CHARACTERS or of none of these forms.
    """
    text = text.lstrip("\ufeff")
    values: dict[str, Any] = {}
    if len(text) <= MOST_CHARACTERS:
        values = _object(text) or _assignments(text) or _lines(text)
    if not values:
        raise BadInput("guide.notebook_form")
    return values


def _object(text: str) -> dict[str, Any]:
    """A JSON object, or what stands in its braces. Lines that begin with // and trailing commas are read past."""
    for plain in _objects(text):
        try:
            values = json.loads(plain)
        except (ValueError, RecursionError):
            continue
        if is_dict(values) and (plain == text or any(name in values for name in OWN)):
            return values
    return {}


def _objects(text: str) -> Iterator[str]:
    """Texts that may be the object: as it is, without what surrounds it, with the braces that were not copied."""
    yield text
    bare = COMMENT.sub("", text)
    for plain in (bare[bare.find("{") : bare.rfind("}") + 1], "{" + bare + "}"):
        yield TRAILING_COMMA.sub("", plain)


def _assignments(text: str) -> dict[str, Any]:
    """What Python would assign to names, or a dictionary of Python. What is worked out only in a run is its text."""
    try:
        statements = ast.parse(dedent(MAGIC.sub("", text)).strip()).body
    except UNREADABLE:
        return {}
    if len(statements) == 1 and isinstance(statements[0], ast.Expr):
        values = _of_python(statements[0].value)
        return values if is_dict(values) else {}
    return {
        target.id: _of_python(statement.value)
        for statement in statements
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _of_python(value: ast.expr) -> Any:
    """A plain value as JSON would give it back; the text of any other, as [12]*400+[4]*600."""
    try:
        return json.loads(json.dumps(ast.literal_eval(value)))
    except UNREADABLE:
        pass
    try:
        return ast.unparse(value)
    except UNREADABLE:
        return None


def _lines(text: str) -> dict[str, Any]:
    """Lines NAME: VALUE or NAME = VALUE. Below a name without a value: items after dashes, or numbers with such items."""
    values: dict[str, Any] = {}
    below: dict[str, list[Any]] = {}  # of the last name, when it has no value of its own
    key = "0"
    for line in text.splitlines():
        line = line.partition("#@")[0].rstrip()
        if not line or line.lstrip().startswith(("#", "//")):
            continue
        if match := ITEM.fullmatch(line):
            below.setdefault(key, []).append(_value(match[1]))
        elif match := KEYED.fullmatch(line):
            key = match[1]
            below[key] = [_value(match[2])] if match[2] else []
        elif line[0].isspace() and below.get(key):
            below[key][-1] = f"{below[key][-1]} {line.strip()}"  # a long item goes on
        elif match := NAMED.fullmatch(line):
            key, below = "0", {}
            values[match[1]] = _value(match[2]) if match[2] else below
        else:
            return {}  # the text is something else
    return {name: _unkeyed(value) for name, value in values.items()}


def _unkeyed(value: Any) -> Any:
    """Items that no other number stands above are a list; none are no value."""
    if not is_dict(value):
        return value
    return value["0"] if list(value) == ["0"] else value or None


def _value(text: str) -> Any:
    """A value as YAML and Python write it; any other text is itself."""
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return json.loads(json.dumps(ast.literal_eval(text)))
    except UNREADABLE:
        return text
