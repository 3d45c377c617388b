"""The verb `library`: find pictures by words and by likeness, fill the index, take pictures away as a zip."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.flags import model_flags
from app.cli.progress import Interrupts, say
from app.cli.run import outputs
from app.cli.see.common import open_studio, print_json, progress
from pipelines.core.arguments import Parser, number
from pipelines.errors import BadInput
from pipelines.io.files import check_writable, home_path

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from app.library import Library, Page, Progress, Query
    from pipelines.core.pipeline import Step

MOST_FOUND = 10_000
SORTS = ("date", "score", "likeness")


def main(arguments: Sequence[str]) -> int:
    """`library` with its verbs `search`, `index` and `zip`. Returns the exit code; BadInput for wrong input."""
    verbs: dict[str, Callable[[list[str]], int]] = {"search": _search, "index": _index, "zip": _zip}
    if arguments and arguments[0] in verbs:
        return verbs[arguments[0]](list(arguments[1:]))
    if arguments and not arguments[0].startswith("-"):
        raise BadInput("library.verb_unknown", verb=arguments[0][:40], known=", ".join(verbs))
    parser = Parser(
        prog="launch.py library",
        description="The pictures made here, or with --folder those of any folder, which is only read. "
        "library search finds them, library index reads and sees all of them, library zip packs them.",
    )
    parser.add_argument("verb", metavar="VERB", help="search, index or zip; each tells its flags with --help")
    parser.parse_args(list(arguments))
    return 0


def _parser(verb: str, description: str) -> Parser:
    parser = Parser(prog=f"launch.py library {verb}", description=description)
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="a folder from elsewhere, which is only read (default: the pictures made here)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder of pictures and jobs (default: ATELIER_OUTPUTS or outputs/)"
    )
    model_flags(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    return parser


def _query_flags(parser: Parser) -> None:
    """The flags that say which pictures are meant."""
    parser.add_argument(
        "query", nargs="*", metavar="TEXT", help='what they show, such as "cat:1 night:0.5 -dog"'
    )
    parser.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="FILE",
        help="look like this picture; may be given again",
    )
    parser.add_argument("--tool", default="", metavar="NAME", help="made with this pipeline or program")
    parser.add_argument("--model", default="", metavar="NAME", help="made with a model of this name")
    parser.add_argument("--seed", metavar="N", help="made with this seed")
    parser.add_argument(
        "--date", default="", metavar="DATE", help="2026, 2026-11, 2026-11-29 or 2026-11-01..2026-11-15"
    )
    parser.add_argument(
        "--words", default="", metavar="TEXT", help="words of the prompt, record, note or file's name"
    )
    parser.add_argument("--star", action="store_true", help="only those with a star")
    parser.add_argument("--tag", default="", metavar="TAG", help="only those with this tag")
    parser.add_argument("--sort", default="", metavar="ORDER", help="date, score or likeness")
    parser.add_argument("--every", action="store_true", help="do not stack near-duplicates")
    parser.add_argument(
        "--count",
        type=number(int, 1, MOST_FOUND),
        default=24,
        metavar="N",
        help="how many at most (default: 24)",
    )


def _search(arguments: list[str]) -> int:
    parser = _parser("search", "Find pictures by what they show, by likeness, and by their facts.")
    _query_flags(parser)
    options = parser.parse_args(arguments)
    query = _query(options)
    with closing(_library(options)) as library:
        page = _found(options, library, query)
        broken = library.broken()
    if options.json:
        pictures = [
            {**found.entry.to_json(), "score": found.score, "told": found.told, "stack": list(found.stack)}
            for found in page.found
        ]
        print_json({"found": pictures, "total": page.total, "broken": _listed(broken)})
        return 0
    for found in page.found:
        score = "     " if found.score is None else f"{found.score:5.3f}"
        more = f"  (+{len(found.stack)} alike)" if found.stack else ""
        words = " ".join((found.entry.prompt or found.entry.text).split())
        print(f"{score}  {found.entry.path}{more}  {words[:80]}".rstrip())
    if not page.found:
        say("no picture fits")
    if broken:
        say(f"{len(broken)} files could not be read; library index lists them")
    return 0


def _index(arguments: list[str]) -> int:
    parser = _parser(
        "index", "Read and see all pictures, so that searches need not; Ctrl+C keeps what is done."
    )
    options = parser.parse_args(arguments)
    with closing(_library(options)) as library:
        begun = time.monotonic()
        seen = _fill(options, library, needs_clip=True)
        seconds = time.monotonic() - begun
        count, broken = library.count(), library.broken()
    facts = {"pictures": count, "seen": seen, "seconds": round(seconds, 2), "broken": _listed(broken)}
    if options.json:
        print_json(facts)
        return 0
    for one in broken:
        say(f"left out {one.id}: {one.problem}")
    print(f"{count:,} pictures, {seen:,} of them seen now, {len(broken):,} files left out, {seconds:.1f} s")
    return 0


def _zip(arguments: list[str]) -> int:
    parser = _parser(
        "zip", "Pack the pictures that a search finds, with contact sheets and a list of prompts."
    )
    parser.add_argument("file", metavar="FILE.zip", help="the zip to write")
    _query_flags(parser)
    options = parser.parse_args(arguments)
    query = _query(options)
    file = check_writable(options.file)
    if file.suffix.lower() != ".zip":
        raise BadInput("library.zip_suffix", path=str(options.file)[:80])
    with closing(_library(options)) as library:
        page = _found(options, library, query)
        if not page.found:
            raise BadInput("library.nothing_found")
        library.write_zip([found.entry.id for found in page.found], file)
    if options.json:
        print_json({"zip": str(file), "pictures": [found.entry.id for found in page.found]})
    else:
        print(f"{file}: {len(page.found):,} pictures")
    return 0


# ----------------------------------------------------------------------------------------------------------- shared


def _library(options: Namespace) -> Library:
    from app.library import Library

    home = home_path(options.out) if options.out else outputs()
    if not options.folder:
        return Library(home)
    folder = home_path(options.folder)
    if not folder.is_dir():
        raise BadInput("library.no_folder", folder=str(options.folder)[:80])
    return Library(folder, outputs=home)


def _query(options: Namespace) -> Query:
    from app.library import read_query

    for name in options.like:
        if not Path(name).is_file():
            raise BadInput("io.picture_missing", picture=str(name)[:80])
    return read_query(
        " ".join(options.query), date=options.date, seed=options.seed, given=options.like, tool=options.tool,
        model=options.model, words=options.words, starred=options.star, tag=options.tag, sort=options.sort,
        stacked=not options.every,
    )  # fmt: skip


def _found(options: Namespace, library: Library, query: Query) -> Page:
    """The first page of what a query finds, with nothing of the index missing."""
    if query.looks:
        studio = open_studio(options)
        with progress() as tell:
            clip = studio.clip()
            with _stoppable(library, tell) as note:
                library.fill(clip, note)
            return library.page(query, 0, options.count, clip)
    _fill(options, library, needs_clip=False)
    return library.page(query, 0, options.count)


def _fill(options: Namespace, library: Library, needs_clip: bool) -> int:
    """Bring the index up to the files. Returns how many pictures were seen."""
    last: list[Progress] = []
    with progress() as tell:
        clip = open_studio(options).clip() if needs_clip else None
        with _stoppable(library, tell) as show:

            def note(state: Progress) -> None:
                last.append(state)
                show(state)

            library.fill(clip, note)
    return max((state.done for state in last if state.stage == "see"), default=0)


@contextmanager
def _stoppable(library: Library, tell: Callable[[Step], None]) -> Iterator[Callable[[Progress], None]]:
    """Shows progress as steps; Ctrl+C ends the work at the next file. It is done in a thread of its own."""
    from pipelines.core.pipeline import Step

    interrupts = Interrupts(library.end_soon)
    try:
        yield lambda state: tell(Step(state.stage, state.done, state.total))
    except BadInput:
        if interrupts.count:
            raise KeyboardInterrupt from None
        raise
    finally:
        interrupts.close()


def _listed(broken: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"file": one.id, "text": str(one.problem), **one.problem.to_json()} for one in broken]
