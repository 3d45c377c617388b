"""The figures in the documents: one table between two marker comments, made from what was measured, never typed."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import BadInput
from pipelines.evaluate.figures import BARS, PARTS, Figures, shown
from pipelines.files import write_atomically

BEGIN, END = "<!-- figures: python launch.py evaluate --card -->", "<!-- end of figures -->"


def table(figures: Figures) -> str:
    """The figures as a Markdown table, in the order in which they were measured."""
    lines = ["| figure | measured | bar |", "|---|---|---|"]
    for part, rows in figures.items():
        for name, value in rows.items():
            bar = BARS.get((part, name))
            lines.append(f"| {PARTS[part]}: {name} | {shown(value)} | {'' if bar is None else shown(bar)} |")
    return "\n".join(lines)


def around(path: Path) -> tuple[str, str]:
    """What a document says before and after its table. BadInput when it has not both markers, once each."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadInput(f"{path} cannot be read as text; name a Markdown file with --card") from None
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise BadInput(
            f"{path} lacks the lines {BEGIN} and {END}, once each; put them where the table belongs"
        )
    return text.split(BEGIN)[0], text.split(END)[1]


def rewrite(path: Path, figures: Figures) -> None:
    """Put the table between the document's markers; all else stays as it is."""
    before, after = around(path)
    write_atomically(path, f"{before}{BEGIN}\n{table(figures)}\n{END}{after}".encode())
