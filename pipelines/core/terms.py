"""Settings of pipelines whose prompt is a sum of weighted terms, drawn together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pipelines.core.looks import LOOKS, parse_looks
from pipelines.core.prompt_notes import Grammar
from pipelines.core.prompts import READ, as_read, as_words, in_known_words, parse_terms
from pipelines.core.settings import AUTO, Settings, knob


def style_knob() -> Any:
    """The field `style`: one look, or several that candidates take turns in."""
    return knob(
        "",
        label=("style", "风格"),
        help=f"{', '.join(LOOKS)}, several of them or all, which candidates take turns in; empty for any",
        help_zh=f"{'、'.join(look.chinese for look in LOOKS.values())}；可写几个或 all，候选轮流采用；留空表示不限",
    )


def read_as_knob() -> Any:
    """The field `read_as`: the prompt in words that the model knows."""
    return knob(
        AUTO[0],
        label=("read as", "读作"),
        advanced=True,
        help="the prompt in words that the model knows, by which it is drawn; auto looks them up, empty leaves it",
        help_zh="用模型认识的词写出的提示词，按它绘制和排名；auto 自动查找，留空则不改",
    )


class TermSettings(Settings):
    """Settings with a prompt such as `a castle | fog:0.5 | people:-0.4` and looks.

    Subclasses define the fields `style` and `read_as`. By `drawn_prompt` it is drawn and ranked, once `read_as` is known.

    BadInput when no weight is positive, and for unknown looks.
    """

    grammar: ClassVar[Grammar] = "terms"

    style: str
    read_as: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for prompt in filter(None, (self.prompt, self.drawn_prompt)):
            parse_terms(prompt)
        object.__setattr__(self, "style", ", ".join(self.looks()))

    def looks(self) -> list[str]:
        """The names of the looks that candidates take turns in; empty for none in particular."""
        return parse_looks(self.style)

    @property
    def drawn_prompt(self) -> str:
        """The prompt in the words by which it is drawn."""
        return self.prompt if self.read_as in ("", AUTO[0]) else self.read_as

    def terms(self) -> list[tuple[str, float]]:
        """Pairs of a text of `drawn_prompt` and its share of the guidance; one text alone has the share 1.

        Empty without a prompt.
        """
        return parse_terms(self.drawn_prompt) if self.prompt else []

    def known_by(self, known_as: Callable[[str], str], leave: bool = False) -> str:
        """The field `read_as`: what is set; for "auto" the prompt in known words, "" for its own and to `leave` it."""
        if self.read_as != AUTO[0]:
            return self.read_as
        return "" if leave or not self.prompt else in_known_words(self.prompt, known_as)

    def read(self, look: str = "") -> dict[str, Any]:
        """The facts that say how the prompt was read and in which look, "" for none, for a picture."""
        terms = parse_terms(self.prompt) if self.prompt else []
        facts: dict[str, Any] = {READ: [[text, round(share, 6)] for text, share in terms]}
        return {**facts, "style": look} if look else facts

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record by present names. Prompts of records that do not say how are words alone.

        Records without `read_as` were drawn by the prompt's own words.
        """
        values = {"read_as": "", **super().recorded(values, picture)}
        if isinstance(prompt := values.get("prompt"), str):
            now = as_read(prompt, picture[READ]) if READ in picture else as_words(prompt)
            values = {**values, "prompt": now}
        return values
