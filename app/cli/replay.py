"""The verb `replay`: run a picture's record again and compare the pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.progress import FAILED
from app.cli.run import load, picture_folder, watch
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.core.pipeline import Result
    from pipelines.core.record import Record


def replay(arguments: list[str]) -> int:
    """Run a picture's record again. Exit code 0 when every pixel is the same, 1 when not."""
    parser = Parser(
        prog="launch.py replay", description="Run a picture's record again and compare the pixels."
    )
    parser.add_argument("file", metavar="FILE.png", help="a picture that Atelier made")
    parser.add_argument("--out", metavar="DIR", help="also save the new picture in this folder")
    parser.add_argument("--pack", metavar="NAME", help="model pack (default: the record's own)")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or mps (default: the best one)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    options = parser.parse_args(arguments)

    from pipelines.core.record import check_complete, compare, read_record, record_of, write_png
    from pipelines.io.images import open_picture
    from pipelines.studio import PIPELINES
    from pipelines.weights.catalog import is_known

    old = read_record(options.file, PIPELINES)
    check_complete(old)
    image = open_picture(options.file)
    settings = PIPELINES[old.pipeline].Settings.from_dict(old.settings)
    folder = picture_folder(options.out) if options.out else None
    names = {part: fact["name"] for part, fact in old.models.items()}
    made_with = {} if options.pack else {part: name for part, name in names.items() if is_known(name)}
    studio, pipeline, _ = load(old.pipeline, options.pack or old.pack, options.device, made_with)
    result, _ = watch(pipeline, settings)
    rank, picture = _same_picture(result, old)
    new = record_of(
        pipeline=old.pipeline,
        pack=studio.pack,
        device=studio.device,
        models=studio.models(old.pipeline),
        settings=result.settings,
        picture=picture,
        rank=rank,
    )
    verdict = compare(image, picture.image, old, new)
    path = None
    if folder:
        path = folder / f"{Path(options.file).stem}-replay.png"
        write_png(path, picture.image, new)
    if options.json:
        facts = {
            "identical": verdict.identical,
            "largest_difference": verdict.largest,
            "share": verdict.share,
        }
        facts |= {"environment": verdict.environment, "path": str(path) if path else None}
        print(json.dumps(facts | {"record": json.loads(new.to_json())}, allow_nan=False))
    else:
        print(verdict.sentence())
    return 0 if verdict.identical else FAILED


def _same_picture(result: Result, record: Record) -> tuple[int, Any]:
    """Of a replayed run the picture that a record is about, by its seed, and its rank now."""
    ranked = list(enumerate(result.pictures, start=1))
    same = [one for one in ranked if one[1].seed == record.picture["seed"]]
    if len(same) == 1:
        return same[0]
    place = min(record.picture["rank"], len(ranked)) - 1
    if place < 0:
        raise BadInput("cli.nothing_to_compare")
    return ranked[place]
