"""Names that many pictures have, in English and Chinese: what else a picture might be taken for."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from pipelines.see.labels import is_chinese

NAMES_FILE = Path(__file__).parents[2] / "assets" / "tiny" / "names.json"


@cache
def known_names() -> tuple[tuple[str, str], ...]:
    """Pairs of an English and a Chinese name, from assets/tiny/names.json."""
    return tuple((english, chinese) for english, chinese in json.loads(NAMES_FILE.read_text("utf-8")))


def names_in(language: str = "en") -> list[str]:
    """The known names in "en" or "zh", each once."""
    return list(dict.fromkeys(pair[language == "zh"] for pair in known_names()))


def names_for(prompt: str) -> list[str]:
    """The known names in the language of a prompt."""
    return names_in("zh" if is_chinese(prompt) else "en")
