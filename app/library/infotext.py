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
# A pair is a name, and a value: a string of JSON, a list or an object with others in it, or all up to the next mark.
NAME = r"\s*([A-Za-z][\w \-/]{0,40}):\s*"
STRING = r"\"(?:\\.|[^\"\\])*\""
PART = rf"(?:{STRING}|[^\"\[\]{{}}])"
NESTED = rf"[\[{{](?:{PART}|[\[{{]{PART}*[\]}}])*[\]}}]"
LINE = re.compile(rf"{NAME}(.*)")
# where the pairs begin in a line that has the prompt too
STEPS = re.compile(r"(?:^|[\s,.])(Steps: ?\d+\s*[,|])")
FIRST = ("steps", "seed", "sampler", "size", "cfg scale", "model", "version")  # what pairs begin with
PROMPT = re.compile(
    r"\s*(?:(?:positive )?prompt:)?(.*?)(?:(?<!\S)negative prompt:|\Z)", re.IGNORECASE | re.DOTALL
)
# one of which stands beside the seed, a pair a line; and those of Easy Diffusion alone
SETTINGS = {"steps", "sampler", "width", "num inference steps"}
EASY = {"use stable diffusion model", "stable diffusion model", "prompt strength"}


def read_infotext(text: str) -> Foreign | None:
    """A run as A1111 or one of its kin wrote it, the last of several; None for other texts, those without pairs too."""
    text = text[:MOST_PARAMETERS]
    lines = text.strip().split("\n")
    for at in range(len(lines) - 1, -1, -1):  # extensions write lines of their own below
        words, pairs = _parted(lines[at])
        if len(pairs) >= 3 and {"steps", "seed", "sampler"} & set(pairs):
            before = (k + 1 for k in range(at - 1, -1, -1) if STEPS.match(lines[k]))  # the end of another run
            prompt = pairs.get("raw prompt") or prompt_of("\n".join([*lines[next(before, 0) : at], words]))
            tool = "fooocus" if pairs.get("version", "").startswith("Fooocus") else "a1111"
            return Foreign(tool, text, prompt, digits(pairs.get("seed")), pairs.get("model", ""))
    return _by_lines(text, lines)


def prompt_of(text: str) -> str:
    """The prompt of a text that may go on with what is not wanted."""
    found = PROMPT.match(text)
    return found[1] if found else text


def pairs_of(text: str, mark: str) -> dict[str, str]:
    """The pairs `Name: value` of a text, with `mark` between them, by their names in small letters, the first of each."""
    pairs: dict[str, str] = {}
    for name, value in re.findall(rf"{NAME}({STRING}|{NESTED}|[^{mark}]*)(?:[{mark}]|$)", text):
        pairs.setdefault(name.strip().lower(), _unquoted(value.strip()))
    return pairs


def _parted(line: str) -> tuple[str, dict[str, str]]:
    """The pairs of a line, and what stands before them, as a prompt does where line ends were lost."""
    line = line[:MOST_TEXT]
    steps, first = STEPS.search(line), LINE.match(line)
    begin = steps.start(1) if steps and not (first and first[1].strip().lower() in FIRST) else 0
    mark = "|" if steps and steps[1].endswith("|") else ","
    return line[:begin].removesuffix(".").rstrip(" ,"), pairs_of(line[begin:], mark)


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
    models = ("stable diffusion model", "use stable diffusion model", "model")
    model = next((pairs[name] for name in models if pairs.get(name)), "")
    return Foreign(
        "easydiffusion" if EASY & set(pairs) else "other", text, prompt, digits(pairs["seed"]), model
    )
