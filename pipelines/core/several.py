"""Several prompts in one text: one a line, and all combinations of what braces hold: `{a|b} {c|d}`."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from pipelines.errors import BadInput
from pipelines.io.images import read_bytes

MOST = 64  # prompts of one text
MOST_BYTES = 200_000  # of a file of them
BRACES = str.maketrans("｛｝", "{}")
GROUP = re.compile(r"(?<!\\)\{([^{}]*(?<!\\)[|｜][^{}]*)\}")


def prompts_in(text: str) -> list[str]:
    """The prompts of a text in order, each once; empty lines are left out.

    A line with braces that hold bars becomes one prompt for each combination of what stands between the bars, the last
    braces changing first. Braces inside braces are chosen before those around them. Braces without a bar, and those after
    a backslash, are words. BadInput for more than MOST prompts.
    """
    found: dict[str, None] = {}
    for line in (
        text.translate(BRACES).splitlines()
        if "\n" in text or GROUP.search(text.translate(BRACES))
        else [text]
    ):
        for prompt in _combined(" ".join(line.split())):
            if prompt:
                found[prompt] = None
            if len(found) > MOST:
                raise BadInput("core.too_many_prompts", most=MOST)
    return list(found)


def read_prompts(path: str | Path) -> str:
    """The text of a file of prompts, one a line. BadInput when it cannot be read, is no text, or has no prompt."""
    try:
        data = read_bytes(path, max_bytes=MOST_BYTES)
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError:
        raise BadInput("core.prompts_not_text", file=Path(path).name[:60]) from None
    text = "\n".join(line.strip() for line in text.splitlines() if line.strip())
    if not prompts_in(text):
        raise BadInput("core.prompts_empty", file=Path(path).name[:60])
    return text


def _combined(line: str) -> list[str]:
    """All combinations of a line; more than MOST only by as many as one group adds."""
    inner = list(GROUP.finditer(line))
    if not inner:
        return [line]
    choices = [[choice.strip() for choice in re.split(r"(?<!\\)[|｜]", match[1])] for match in inner]
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
