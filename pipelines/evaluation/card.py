"""The figures in the documents: one table between two marker comments, made from what was measured, never typed."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import BadInput
from pipelines.evaluation.figures import PARTS, TARGETS, Figures, shown
from pipelines.io.files import write_atomically

BEGIN, END = "<!-- figures: python launch.py evaluate --card -->", "<!-- end of figures -->"
# in a document that wants only these
BEGIN_BARS = "<!-- figures with a bar: python launch.py evaluate --card -->"


def table(figures: Figures, targets_only: bool = False) -> str:
    """The figures as a Markdown table in the order in which they were measured, each part under its own heading."""
    lines = ["| figure | measured | bar |", "|---|---|---|"]
    for part, values in figures.items():
        rows = []
        for name, value in values.items():
            target = TARGETS.get((part, name))
            if target is not None or not targets_only:
                rows.append(f"| {name} | {shown(value)} | {'' if target is None else shown(target)} |")
        if rows:
            lines += [f"| **{PARTS[part]}** | | |", *rows]
    return "\n".join(lines)


def split_at_markers(path: Path) -> tuple[str, str, str]:
    """What a document says before its table, the marker there, what it says after. BadInput unless both are there once."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadInput("evaluation.card_unreadable", file=path) from None
    begin = BEGIN_BARS if BEGIN_BARS in text else BEGIN
    if text.count(begin) != 1 or text.count(END) != 1 or text.index(END) < text.index(begin):
        raise BadInput("evaluation.card_without_marks", file=path, begin=BEGIN, end=END)
    return text.split(begin)[0], begin, text.split(END)[1]


def rewrite(path: Path, figures: Figures) -> None:
    """Put the table between the document's markers; all else stays as it is."""
    before, begin, after = split_at_markers(path)
    made = table(figures, targets_only=begin == BEGIN_BARS)
    write_atomically(path, f"{before}{begin}\n{made}\n{END}{after}".encode())
