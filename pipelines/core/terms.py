"""Settings of pipelines whose prompt is a sum of weighted terms, drawn together."""

from __future__ import annotations

from typing import Any, ClassVar

from pipelines.core.prompt_notes import Grammar
from pipelines.core.prompts import READ, as_words, parse_terms
from pipelines.core.settings import Settings


class TermSettings(Settings):
    """Settings with a prompt such as `a castle | fog:0.5 | people:-0.4`. BadInput when no weight is positive."""

    grammar: ClassVar[Grammar] = "terms"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.terms()

    def terms(self) -> list[tuple[str, float]]:
        """Pairs of a text and its share of the guidance; one text alone has the share 1."""
        return parse_terms(self.prompt)

    def read(self) -> dict[str, Any]:
        """The fact that says how the prompt was read, for a picture."""
        return {READ: [[text, round(share, 6)] for text, share in self.terms()]}

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record by present names. The prompts of records that do not say how are words alone."""
        values = super().recorded(values, picture)
        if READ not in picture and isinstance(values.get("prompt"), str):
            values = {**values, "prompt": as_words(values["prompt"])}
        return values
