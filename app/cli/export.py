"""The verb `export`: pictures cut out and made ready for where they go."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.progress import say
from app.cli.see.common import finish_parser, open_studio, print_json, progress
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.export.presets import LOOKED_UP, PRESETS, preset_of
from pipelines.io.files import check_writable, write_atomically

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.export.export import Given


def _parser() -> Parser:
    rows = "; ".join(f"{preset.name}: {preset.note[0]}" for preset in PRESETS.values())
    parser = Parser(
        prog="launch.py export",
        description="Cut pictures out of their background and write them as the places want them where they go.",
        epilog=f"{rows}. Looked up in {LOOKED_UP}.",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILES", help="pictures, folders of pictures, or films, which move"
    )
    parser.add_argument("--for", dest="place", required=True, metavar="PLACE", help=", ".join(PRESETS))
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the files, which replaces none that is there"
    )
    parser.add_argument("--outline", action="store_true", help="with a white outline")
    parser.add_argument(
        "--moving", action="store_true", help="take the pictures as frames of one that moves, forth and back"
    )
    return finish_parser(parser)


def main(arguments: list[str]) -> int:
    """Export pictures. Prints a line a file, or one JSON object. Returns the exit code."""
    options = _parser().parse_args(arguments)
    preset = preset_of(options.place)

    from pipelines.core.pipeline import Step
    from pipelines.export.export import exported, plan
    from pipelines.export.files import check

    files = plan(_given(options), preset)
    folder = Path(check_writable(Path(options.out) / files[0].name)).parent
    for file in files:
        if (folder / file.name).exists():
            raise BadInput("export.would_overwrite", file=file.name)
    studio = open_studio(options)
    made: list[dict[str, Any]] = []
    with progress() as tell:
        for number, file in enumerate(exported(files, preset, studio.matting(), outline=options.outline), 1):
            path = folder / file.name
            write_atomically(path, file.data)
            check(path.read_bytes(), file.form, file.clear)
            tell(Step("export", number, len(files)))
            made.append({**file.to_json(), "path": str(path)})
    if options.json:
        print_json({"place": preset.name, "looked_up": LOOKED_UP, "files": made})
        return 0
    for facts in made:
        print(f"{facts['path']}  {facts['width']} x {facts['height']}, {facts['bytes'] / 1000:.1f} KB")
    if not preset.keeps_record:
        say("these files carry no records; the pictures that they were made of keep theirs")
    return 0


def _given(options: Namespace) -> list[Given]:
    """What the command line names, in order. BadInput when a file is no picture and no film."""
    from pipelines.export.export import in_motion, read_given
    from pipelines.io.folders import picture_files

    paths: list[Path] = []
    for name in options.files:
        try:
            paths += picture_files(Path(name)) if Path(name).is_dir() else [Path(name)]
        except OSError:
            raise BadInput("io.picture_missing", picture=str(name)[:80]) from None
    given = [read_given(path) for path in paths]
    if not given:
        raise BadInput("export.no_pictures")
    return [in_motion(given)] if options.moving else given
