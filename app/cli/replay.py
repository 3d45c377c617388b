"""The verb `replay`: run a picture's record again and compare the pixels."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from app.cli.progress import FAILED
from app.cli.run import load_recorded, picture_folder, watch
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput


def main(arguments: list[str]) -> int:
    """Run a picture's record again. Exit code 0 when every pixel is the same, 1 when not."""
    parser = Parser(
        prog="launch.py replay", description="Run a picture's record again and compare the pixels."
    )
    parser.add_argument("file", metavar="FILE.png", help="a picture that Atelier made")
    parser.add_argument("--out", metavar="DIR", help="also save the new picture in this folder")
    parser.add_argument("--pack", metavar="NAME", help="model pack (default: the record's own)")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or mps (default: the record's own)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    options = parser.parse_args(arguments)

    from pipelines.core.record import check_complete, read_record, write_png
    from pipelines.core.replay import replay as run_again
    from pipelines.io.images import open_picture
    from pipelines.studio import PIPELINES

    old = read_record(options.file, PIPELINES)
    check_complete(old)
    image = open_picture(options.file)
    folder = picture_folder(options.out) if options.out else None
    device = _recorded(old.device) if options.device == "auto" else options.device
    studio, *_ = load_recorded(old, options.pack, device)
    again = run_again(image, old, studio, lambda pipeline, settings: watch(pipeline, settings)[0])
    verdict = again.comparison
    path = None
    if folder:
        path = folder / f"{Path(options.file).stem}-replay.png"
        write_png(path, again.picture.image, again.record)
    if options.json:
        facts = {
            "identical": verdict.identical,
            "largest_difference": verdict.largest,
            "mean_difference": verdict.mean,
            "share": verdict.share,
            "compared_at": verdict.reduced,
        }
        facts |= {"environment": verdict.environment, "unknown": verdict.unknown}
        facts |= {"path": str(path) if path else None}
        print(json.dumps(facts | {"record": json.loads(again.record.to_json())}, allow_nan=False))
    else:
        print(verdict.sentence())
    return 0 if verdict.identical else FAILED


def _recorded(device: str) -> str:
    """The record's device where this machine has it, else "auto"."""
    from pipelines.models.device import choose_device

    with suppress(BadInput):
        return str(choose_device(device if re.fullmatch(r"(cpu|cuda|mps)(:\d)?", device) else "auto"))
    return "auto"
