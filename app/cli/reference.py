"""What the documents say about the commands. `python -m app.cli.reference` writes it into README.md and COMMANDS.md."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from app.cli.commands import COMMANDS, table
from app.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
TABLE = re.compile(
    r"(<!-- commands: python -m app.cli.reference -->\n).*?(<!-- end of commands -->)", re.DOTALL
)
WIDTH = 100  # characters of a line of COMMANDS.md
HEAD = """# Commands

Written by `python -m app.cli.reference`. `--json` prints exactly one JSON object on standard output.
"""


def documents() -> Iterator[tuple[Path, str]]:
    """Each file that is written from the commands, and what it should hold."""
    readme = ROOT / "README.md"
    yield readme, TABLE.sub(lambda match: match[1] + table() + match[2], readme.read_text("utf-8"))
    yield ROOT / "COMMANDS.md", reference()


def reference() -> str:
    """COMMANDS.md: what every command tells of its flags."""
    parts = [HEAD]
    for command in COMMANDS:
        parts.append(f"\n## {command.usage}\n\n{command.summary[0].upper()}{command.summary[1:]}.\n")
        if command.verb == "test":
            parts.append("\nArguments go to pytest.\n")
            continue
        parts.append(f"\n```\n{help_of([command.verb])}```\n")
        for nested in command.nested:
            title = f"python launch.py {command.verb} {nested}"
            parts.append(f"\n### {title}\n\n```\n{help_of([command.verb, nested])}```\n")
    return "".join(parts)


def help_of(verbs: list[str]) -> str:
    """What `python launch.py VERBS --help` prints after its usage, WIDTH characters wide."""
    text = io.StringIO()
    with redirect_stdout(text), patch.dict(os.environ, {"COLUMNS": str(WIDTH)}):
        main([*verbs, "--help"])
    return text.getvalue().partition("\n\n")[2]


if __name__ == "__main__":
    for path, content in documents():
        path.write_text(content, "utf-8")
