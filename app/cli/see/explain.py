"""The verb `explain`: why a picture fits a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.see.common import finish_parser, open_studio, print_json, progress
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.io.files import check_writable

if TYPE_CHECKING:
    from pipelines.see.explain import Explanation


def _parser() -> Parser:
    parser = Parser(prog="launch.py explain", description="Say why a picture fits a prompt, by CLIP.")
    parser.add_argument("file", metavar="FILE", help="a picture")
    parser.add_argument(
        "prompt", nargs="+", metavar="PROMPT", help="what it should show, in English or Chinese"
    )
    parser.add_argument(
        "--maps", metavar="FILE.png", help="also write where CLIP finds each of the words, side by side"
    )
    return finish_parser(parser)


def main(arguments: list[str]) -> int:
    """Explain a picture. Prints a few lines, or one JSON object. Returns the exit code."""
    options = _parser().parse_args(arguments)

    from pipelines.core.settings import clean_prompt
    from pipelines.io.images import open_picture
    from pipelines.see.explain import explain
    from pipelines.see.names import names_for
    from pipelines.see.overlay import write_sheet

    prompt = clean_prompt(" ".join(options.prompt))
    image = open_picture(options.file)
    if options.maps and not options.maps.lower().endswith(".png"):
        raise BadInput("see.sheet_suffix", path=options.maps[:80])
    options.maps = str(check_writable(options.maps)) if options.maps else None
    studio = open_studio(options)
    with progress() as tell:
        found = explain(studio.clip(), image, prompt, names_for(prompt), progress=tell)
    if options.maps:
        write_sheet(options.maps, image, found.maps)
    if options.json:
        print_json({"file": options.file, **found.to_json(), "sheet": options.maps})
    else:
        print(*_lines(found), sep="\n")
    return 0


def _lines(found: Explanation) -> list[str]:
    """What there is to say, a fact a line."""
    lines = [f"score {found.score:.3f} ± {found.spread:.3f}"]
    lines += [f"“{phrase.text}” adds {phrase.adds:+.3f}" for phrase in found.phrases]
    if rival := found.rival:
        lines.append(f"rank {found.rank} among {found.names + 1:,} names")
        lines.append(
            f"closest other name: “{rival.name}” {rival.score:.3f}; ahead of it by {rival.margin:+.3f} "
            f"± {rival.spread:.3f}, in {rival.wins:.0%} of the views and wordings"
        )
    lines += [
        f"“{each.text}” is at {each.peak[0]:.0%} from the left, {each.peak[1]:.0%} from the top"
        for each in found.maps
    ]
    return lines
