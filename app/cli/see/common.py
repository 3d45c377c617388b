"""What the verbs of See share: their CLIP, their progress, and how they tell of broken files."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from app.cli.flags import model_flags, parts_in_use
from app.cli.progress import ProgressLine, say
from pipelines.core.arguments import Parser

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.core.pipeline import Step
    from pipelines.errors import BadInput
    from pipelines.studio import Studio


def finish_parser(parser: Parser) -> Parser:
    """The parser with the flags that all verbs of See have."""
    model_flags(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    return parser


def open_studio(options: Namespace) -> Studio:
    """The studio that the flags name; it has loaded nothing yet."""
    from pipelines.studio import Studio

    with redirect_stdout(sys.stderr):
        return Studio(pack=options.pack, device=options.device, use=parts_in_use(options.use))


@contextmanager
def progress() -> Iterator[Callable[[Step], None]]:
    """What shows steps on standard error, to which everything else that is printed goes too."""
    line = ProgressLine()
    try:
        with redirect_stdout(sys.stderr):
            yield line.show
    finally:
        line.end()


def tell_broken(broken: list[tuple[str, BadInput]]) -> list[dict[str, Any]]:
    """Say which files were left out; the same as JSON values."""
    for source, problem in broken:
        say(f"left out {source}: {problem}")
    return [{"file": source, "text": str(problem), **problem.to_json()} for source, problem in broken]


def print_json(facts: dict[str, Any]) -> None:
    print(json.dumps(facts, ensure_ascii=False, allow_nan=False))
