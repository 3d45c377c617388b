"""The verb `score`: how well pictures fit prompts, by CLIP and the critic, as csv."""

from __future__ import annotations

import sys

from app.cli.see.common import finish_parser, open_studio, print_json, progress
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.io.files import check_writable, home_path, write_atomically


def _parser() -> Parser:
    parser = Parser(
        prog="launch.py score", description="Score pictures for prompts by CLIP and the critic, as csv."
    )
    parser.add_argument(
        "source",
        metavar="FOLDER",
        help="a picture, a folder of pictures, or a csv of two columns: file, prompt",
    )
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="what they should show; not with a csv")
    parser.add_argument("--out", metavar="FILE.csv", help="write the csv there instead of standard output")
    return finish_parser(parser)


def main(arguments: list[str]) -> int:
    """Score pictures. Prints csv, or one JSON object. Returns the exit code."""
    options = _parser().parse_args(arguments)

    from pipelines.core.settings import clean_prompt
    from pipelines.see.pictures import pictures_below
    from pipelines.see.score import read_pairs, score_pairs, to_csv

    words, source = " ".join(options.prompt), home_path(options.source)
    if source.suffix.lower() == ".csv":
        if words:
            raise BadInput("see.prompt_and_csv", prompt=words[:40])
        pairs = read_pairs(source)
    else:
        if not words:
            raise BadInput("see.prompt_missing")
        prompt = clean_prompt(words)
        files = [source] if source.is_file() else pictures_below(source)
        pairs = [(str(file), prompt) for file in files]
    options.out = str(check_writable(options.out)) if options.out else None
    studio = open_studio(options)
    with progress() as tell:
        scores = score_pairs(studio.clip(), studio.critic(), pairs, tell)
    table = to_csv(scores)
    if options.out:
        write_atomically(options.out, table.encode())
    if options.json:
        print_json({"scores": [row.to_json() for row in scores], "csv": options.out})
    elif not options.out:
        sys.stdout.write(table)
    else:
        print(options.out)
    return 0
