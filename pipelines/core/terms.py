"""Settings of pipelines whose prompt is a sum of weighted terms, drawn together."""

from __future__ import annotations

from typing import Any, ClassVar

from pipelines.core.looks import LOOKS, parse_looks
from pipelines.core.prompt_notes import Grammar
from pipelines.core.prompts import READ, as_read, as_words, parse_terms
from pipelines.core.settings import Settings, knob


def style_knob() -> Any:
    """The field `style`: one look, or several that candidates take turns in."""
    return knob(
        "",
        label=("style", "风格"),
        help=f"{', '.join(LOOKS)}, several of them or all, which candidates take turns in; empty for any",
        help_zh=f"{'、'.join(look.chinese for look in LOOKS.values())}；可写几个或 all，候选轮流采用；留空表示不限",
    )


class TermSettings(Settings):
    """Settings with a prompt such as `a castle | fog:0.5 | people:-0.4` and looks. Subclasses define the field `style`.

    BadInput when no weight is positive, and for unknown looks.
    """

    grammar: ClassVar[Grammar] = "terms"

    style: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self.terms()
        object.__setattr__(self, "style", ", ".join(self.looks()))

    def looks(self) -> list[str]:
        """The names of the looks that candidates take turns in; empty for none in particular."""
        return parse_looks(self.style)

    def terms(self) -> list[tuple[str, float]]:
        """Pairs of a text and its share of the guidance; one text alone has the share 1. Empty without a prompt."""
        return parse_terms(self.prompt) if self.prompt else []

    def read(self, look: str = "") -> dict[str, Any]:
        """The facts that say how the prompt was read and in which look, "" for none, for a picture."""
        facts: dict[str, Any] = {READ: [[text, round(share, 6)] for text, share in self.terms()]}
        return {**facts, "style": look} if look else facts

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record by present names. Prompts of records that do not say how are words alone."""
        values = super().recorded(values, picture)
        if isinstance(prompt := values.get("prompt"), str):
            now = as_read(prompt, picture[READ]) if READ in picture else as_words(prompt)
            values = {**values, "prompt": now}
        return values
