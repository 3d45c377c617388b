"""The ways a run ends early, and the sentences that say why, in English and Chinese.

A sentence is a code with facts: `BadInput("settings.too_small", setting="seed", value=-1, least=0)`. The words of a code
stand in assets/strings/errors/AREA.json, where AREA is the code's first part, as {"AREA.NAME": [ENGLISH, CHINESE]};
both are templates of `str.format`, whose fields are the facts. This module imports nothing of the project, so that
every other can import it without a circle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

FOLDER = Path(__file__).parents[1] / "assets" / "strings" / "errors"
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Message:
    """A sentence by its code and its facts. Facts are strings, numbers, booleans, None and other messages.

    The fact `setting` is the name of a setting. A code that no file has stands for itself: it is the sentence.
    """

    code: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def text(self, language: str = "en", labels: Mapping[str, str] | None = None) -> str:
        """The sentence in "en" or "zh", without a capital and a full stop; `labels` are settings' names as shown."""
        template = templates().get(self.code)
        if template is None:
            return self.code
        facts = {
            name: value.text(language, labels) if isinstance(value, Message) else value
            for name, value in self.facts.items()
        }
        try:
            if labels and "setting" in facts:
                facts["setting"] = labels.get(facts["setting"], facts["setting"])
            return template[LANGUAGES.index(language)].format_map(facts)
        except (LookupError, TypeError, ValueError):  # facts of another version, from a file
            return f"{self.code} {facts}"

    def __str__(self) -> str:
        return self.text()

    def to_json(self) -> dict[str, Any]:
        """{"code", "facts"}, plain values only."""
        facts = {
            name: value.to_json() if isinstance(value, Message) else value
            for name, value in self.facts.items()
        }
        return {"code": self.code, "facts": facts}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` gave. Anything else, such as the plain text of an earlier version, is a sentence as it is."""
        values = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        given = values.get("facts")
        if not isinstance(given, dict):
            return cls(str(cast(object, value)))
        facts = cast("dict[str, Any]", given)
        read = {
            str(name): cls.from_json(fact) if isinstance(fact, dict) else fact for name, fact in facts.items()
        }
        return cls(str(values.get("code", "")), read)

    def to_text(self) -> str:
        """As JSON text, for a file, a page or another process."""
        return json.dumps(self.to_json())

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """What `to_text` gave; None for the empty text. Plain text of an earlier version is a sentence as it is."""
        try:
            return cls.from_json(json.loads(text)) if text else None
        except (ValueError, RecursionError):
            return cls.from_json(text)


class CodedError(Exception):
    """An error that is a message fit to be shown. It can be pickled, and keeps its code and facts.

    A fact that is a CodedError becomes its message; one that is no plain value becomes its text.
    """

    def __init__(self, code: str, /, **facts: Any) -> None:
        super().__init__(code)
        self.message = Message(code, {name: _plain(value) for name, value in facts.items()})

    @property
    def code(self) -> str:
        """Which sentence it is, AREA.NAME."""
        return self.message.code

    @property
    def facts(self) -> dict[str, Any]:
        """What the sentence is filled with, by name."""
        return self.message.facts

    def text(self, language: str = "en") -> str:
        """The sentence in "en" or "zh"."""
        return self.message.text(language)

    def to_json(self) -> dict[str, Any]:
        """{"code", "facts"}, plain values only."""
        return self.message.to_json()

    @classmethod
    def of(cls, message: Message) -> Self:
        """An error that says this."""
        return cls(message.code, **message.facts)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The error whose `to_json` gave this."""
        return cls.of(Message.from_json(value))

    def __str__(self) -> str:
        return self.message.text()


class BadInput(CodedError, ValueError):
    """The user asked for something that cannot be done."""


class CannotSave(CodedError):
    """A file could not be written, by a full disk for instance."""


class Stopped(Exception):
    """The run was asked to stop.

    Whoever consumes a run throws it into the generator between two Steps. A Resumable pipeline catches it and returns its
    pictures so far; other pipelines let it pass.
    """


@cache
def templates() -> dict[str, tuple[str, str]]:
    """Code -> its template in English and in Chinese, of all areas."""
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(FOLDER.glob("*.json")):
        found |= {
            code: (english, chinese)
            for code, (english, chinese) in json.loads(file.read_text("utf-8")).items()
        }
    return found


def reason_of(error: object) -> str:
    """Why something was refused, for the fact `reason`: the words of an error in small letters, else its kind."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def one_line(value: object, most: int = 80) -> str:
    """A value as one line of at most `most` characters, for a fact that a stranger wrote."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, CodedError):
        return value.message
    return value if isinstance(value, (str, bool, int, float, Message)) or value is None else str(value)
