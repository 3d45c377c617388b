"""What A1111 and its kin write of a run as text: the prompt, `Negative prompt: ...`, and pairs as `Steps: 20, Seed: 7`.

SD.Next once put bars between the pairs, Fooocus adds the prompt without its styles, Easy Diffusion has a pair a line, and
some programs and pages lose the ends of lines.
"""

from __future__ import annotations

import json
import re

from app.library.entry import Foreign
from app.library.foreign_values import MOST_TEXT, digits

MOST_PARAMETERS = 100_000  # characters of a prompt and its pairs
STRING = r"\"(?:\\.|[^\"\\])*\""
NESTED = rf"[\[{{](?:{STRING}|[^\"\[\]{{}}]|[\[{{](?:{STRING}|[^\"\[\]{{}}])*[\]}}])*[\]}}]"
NAME = r"\s*([A-Za-z][\w \-/]{0,40}):\s*"
PAIR = re.compile(rf"{NAME}({STRING}|{NESTED}|[^,]*)(?:,|$)")
BARRED = re.compile(rf"{NAME}([^|]*)(?:\||$)")
LINE = re.compile(r"\s*([A-Za-z][\w ]{0,40}):\s*(.*)")
# where the pairs begin in a line that has the prompt too
STEPS = re.compile(r"(?:^|[\s,.])(Steps: ?\d+\s*[,|])")
FIRST = ("steps", "seed", "sampler", "size", "cfg scale", "model", "version")  # pairs before the steps
NEGATIVE = re.compile(r"(?:^|(?<=\s))negative prompt:", re.IGNORECASE)
PROMPT = re.compile(r"\s*(?:positive )?prompt:\s*", re.IGNORECASE)
# one of which stands beside the seed, a pair a line; and those of Easy Diffusion alone
SETTINGS = {"steps", "sampler", "width", "num inference steps"}
EASY = {"use stable diffusion model", "stable diffusion model", "prompt strength"}


def read_infotext(text: str) -> Foreign | None:
    """A run as A1111 or one of its kin wrote it; None for other texts, those without pairs too."""
    text = text[:MOST_PARAMETERS]
    lines = text.strip().split("\n")
    for at in range(len(lines) - 1, -1, -1):  # extensions write lines of their own below
        pairs = _pairs(lines[at])
        if len(pairs) >= 3 and {"steps", "seed", "sampler"} & set(pairs):
            return _told(text, "\n".join([*lines[:at], _before(lines[at])]), pairs)
    return _by_lines(text, lines)


def prompt_of(text: str) -> str:
    """The prompt of a text that may go on with what is not wanted."""
    return PROMPT.sub("", NEGATIVE.split(text)[0], count=1)


def _told(text: str, words: str, pairs: dict[str, str]) -> Foreign:
    tool = "fooocus" if pairs.get("version", "").startswith("Fooocus") else "a1111"
    prompt = pairs.get("raw prompt") or prompt_of(words)
    return Foreign(tool, text, prompt, digits(pairs.get("seed")), pairs.get("model", ""))


def _before(line: str) -> str:
    """What stands before the pairs in their line, as a prompt does where line ends were lost."""
    begin = STEPS.search(line)
    words = line[: begin.start(1)] if begin else ""
    first = LINE.match(words)
    if first and first[1].strip().lower() in FIRST:
        return ""
    return words.removesuffix(".").rstrip(" ,")


def _pairs(line: str) -> dict[str, str]:
    """The pairs of a line by their names in small letters, the first of each name."""
    line = line[:MOST_TEXT]
    if begin := STEPS.search(line):
        line = line if _before(line) == "" else line[begin.start(1) :]
    pattern = BARRED if begin and begin[1].endswith("|") else PAIR
    pairs: dict[str, str] = {}
    for found in pattern.finditer(line):
        pairs.setdefault(found[1].strip().lower(), _unquoted(found[2].strip()))
    return pairs


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value.strip('"')
    return value


def _by_lines(text: str, lines: list[str]) -> Foreign | None:
    """A pair a line, below the prompt or with it among them; None for texts without a seed among settings."""
    found = [(at, pair) for at, line in enumerate(lines[:200]) if (pair := LINE.match(line))]
    pairs: dict[str, str] = {}
    for _, pair in found:
        pairs.setdefault(pair[1].strip().lower().replace("_", " "), pair[2].strip())
    if not pairs.get("seed", "").isdecimal() or not SETTINGS & set(pairs):
        return None
    prompt = pairs.get("prompt") or "\n".join(lines[: found[0][0]])
    model = (
        pairs.get("stable diffusion model") or pairs.get("use stable diffusion model") or pairs.get("model")
    )
    return Foreign(
        "easydiffusion" if EASY & set(pairs) else "other", text, prompt, digits(pairs["seed"]), model or ""
    )
