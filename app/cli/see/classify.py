"""The verb `classify`: which of some labels fits each picture."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.see.common import finish_parser, open_studio, print_json, progress, tell_broken
from pipelines.core.arguments import Parser, number
from pipelines.errors import BadInput

if TYPE_CHECKING:
    from pipelines.see.classify import Classification
    from pipelines.see.pictures import Seen

KEYS = ("label", "probability", "cosine")


def _parser() -> Parser:
    parser = Parser(
        prog="launch.py classify",
        description="Say which of some labels fits each picture, by CLIP, untrained.",
    )
    parser.add_argument("files", nargs="+", metavar="FILES", help="pictures, or folders of pictures")
    parser.add_argument(
        "--labels",
        metavar="A,B,C",
        help="labels in English or Chinese (default: the names that the pack knows)",
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="TEXT",
        help='a wording such as "a photo of a {label}"; may be given again, the mean is taken (default: several)',
    )
    parser.add_argument("--probe", metavar="FILE", help="labels that were taught with launch.py probe")
    parser.add_argument(
        "--top", type=number(int, 1, 100), default=5, help="labels to tell of each picture (default: 5)"
    )
    return finish_parser(parser)


def main(arguments: list[str]) -> int:
    """Classify pictures. Prints a line a picture, or one JSON object. Returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.probe and (options.labels or options.template):
        raise BadInput("see.labels_or_probe")

    from pipelines.see.classify import classify
    from pipelines.see.labels import PLAIN, read_labels, read_templates
    from pipelines.see.names import names_in
    from pipelines.see.pictures import pictures_below, see_all
    from pipelines.see.probe import read_probe

    paths = [
        file for name in options.files for file in (pictures_below(name) if Path(name).is_dir() else [name])
    ]
    labels = read_labels(options.labels) if options.labels else names_in()
    templates = read_templates(options.template) if options.labels or options.template else PLAIN
    probe = read_probe(options.probe) if options.probe else None
    studio = open_studio(options)
    with progress() as tell:
        clip = studio.clip()
        if probe is not None:
            probe.check(clip)
        seen = see_all(clip, paths, tell)
        vectors = seen.vectors
        found = probe.classify(clip, vectors) if probe else classify(clip, vectors, labels, templates)
    _report(options, seen, found)
    return 0


def _report(options: Namespace, seen: Seen, found: Classification) -> None:
    """Print what was found."""
    broken = tell_broken(seen.broken)
    best = [found.best(row, options.top) for row in range(len(seen.sources))]
    if options.json:
        pictures = [
            {"file": file, "labels": [dict(zip(KEYS, each, strict=True)) for each in labels]}
            for file, labels in zip(seen.sources, best, strict=True)
        ]
        print_json({"pictures": pictures, "independent": found.independent, "broken": broken})
        return
    for file, labels in zip(seen.sources, best, strict=True):
        print(file, *(f"{label} {share:.1%}" for label, share, _ in labels), sep="  ")
