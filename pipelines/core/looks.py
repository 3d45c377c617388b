"""The looks of the training data, as settings name them: `style`. Models have a slot for them, or read their words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from pipelines.core.prompts import Target, said, written_targets
from pipelines.core.settings import knob
from pipelines.errors import BadInput


@dataclass(frozen=True)
class Look:
    """One look: its words as captions had them, and the name of its slot in models that have slots."""

    english: str
    chinese: str
    slot: str


LOOKS = {
    "cartoon": Look("cartoon", "卡通", "noto"),
    "soft": Look("soft", "柔和", "noto-v1"),
    "simple": Look("simple", "简洁", "twemoji"),
    "3d": Look("3d", "立体", "fluent-emoji"),
    "flat": Look("flat", "扁平", "fluent-emoji-flat"),
    "retro": Look("retro", "复古", "fxemoji"),
}
ANY = "any"  # no look in particular
BY_WORD = {word: name for name, look in LOOKS.items() for word in (name, look.chinese)}


@runtime_checkable
class HasSlots(Protocol):
    """A model that draws in one of its styles when it is told which, beside the text."""

    @property
    def style_slots(self) -> tuple[str, ...]:
        """The names of its styles; () for none."""
        ...

    def in_styles(self, slots: Sequence[str]) -> Self:
        """The same weights: row k of what they draw under a text is in the style slots[k % len(slots)]."""
        ...


def parse_looks(text: str) -> list[str]:
    """The names of looks in a text such as "flat, 3d" or "扁平、立体", each once; "all" for all, "" or "any" for none.

    BadInput for others.
    """
    words = [word for word in re.split(r"[\s,;|、]+", unicodedata.normalize("NFKC", text).lower()) if word]
    if words in (["all"], ["全部"]):
        return list(LOOKS)
    for word in words:
        if word not in (*BY_WORD, ANY, "任意"):
            raise BadInput("core.look_unknown", style=word[:40], known=", ".join(LOOKS))
    return list(dict.fromkeys(BY_WORD[word] for word in words if word in BY_WORD))


def in_words(text: str, look: str) -> str:
    """A text with the word of a look before it, as captions had it, unless it has it already; `look` may be ""."""
    if not look:
        return text
    known = LOOKS[look]
    if re.search("[\u4e00-\u9fff]", text):
        return text if known.chinese in text else f"{known.chinese}的{text}"
    if re.search(rf"\b{known.english}\b", text, re.IGNORECASE):
        return text
    article = re.match(r"(?:an?|the)\s+|", text, re.IGNORECASE)
    begin = article[0] if article else ""
    return f"{'a ' if begin.lower() == 'an ' else begin}{known.english} {text[len(begin) :]}"


def prompt_in_words(prompt: str, look: str) -> str:
    """A prompt without scenes, the word of a look before each text of positive weight."""
    if not look:
        return prompt
    return " | ".join(map(said, targets_in_words(written_targets(prompt), look)))


def targets_in_words(targets: Sequence[Target], look: str) -> list[Target]:
    """Targets, the word of a look before each text of positive weight; `look` may be ""."""
    return [replace(one, text=in_words(one.text, look)) if one.weight > 0 else one for one in targets]


def look_knob() -> Any:
    """The field `style` of runs that make one picture."""
    return knob(
        ANY,
        label=("style", "风格"),
        choices={ANY: ("any", "不限")} | {name: (look.english, look.chinese) for name, look in LOOKS.items()},
        help="the look that the target is to have; any is none in particular",
        help_zh="画面要有的风格；“不限”表示不指定",
    )


def of_style(style: str) -> str:
    """The look that a setting made by `look_knob` names; "" for any."""
    return "" if style == ANY else style


def slot_in(slots: Sequence[str], look: str) -> str:
    """Which of a model's slots is a look's; "" where there is none, or no look is asked for."""
    return next((slot for slot in (LOOKS[look].slot, look) if slot in slots), "") if look else ""


def slot_of(model: object, look: str) -> str:
    """The slot of a look in a model; "" where it has none, or no look is asked for."""
    return slot_in(model.style_slots, look) if isinstance(model, HasSlots) else ""


M = TypeVar("M")


def under_looks(model: M, prompt: str, looks: Sequence[str]) -> tuple[M, str]:
    """The model and the prompt by which row k is drawn in looks[k]: by the model's slots, else by the prompt's words.

    Where words are needed all looks must be one; `needs_words` tells.
    """
    if not any(looks):
        return model, prompt
    slots: Any = [slot_of(model, look) for look in looks]
    if all(slots) and isinstance(model, HasSlots):
        return model.in_styles(slots), prompt
    return model, prompt_in_words(prompt, looks[0])


def needs_words(model: object, looks: Sequence[str]) -> bool:
    """Whether one of the looks has no slot in the model. None is no model, which needs nothing."""
    return model is not None and any(look and not slot_of(model, look) for look in looks)
