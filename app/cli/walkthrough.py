"""The verb `walkthrough`: draw a picture of Diffuse once more, and show where its words look and what each step saw."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.progress import ProgressLine
from app.cli.run import load_recorded, picture_folder
from pipelines.core.arguments import Parser
from pipelines.core.generators import finished, mapped
from pipelines.errors import BadInput

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from PIL import Image

    from pipelines.diffuse.walkthrough import Explanation


def main(arguments: list[str]) -> int:
    """Write two sheets beside what is told: the words over the picture, and the guesses of the steps."""
    parser = Parser(prog="launch.py walkthrough", description="Show how a picture of Diffuse was drawn.")
    parser.add_argument("file", metavar="FILE.png", help="a picture that Diffuse drew")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the sheets (default: ATELIER_OUTPUTS or outputs/, and the date)",
    )
    parser.add_argument("--pack", metavar="NAME", help="model pack (default: the record's own)")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or mps (default: the best one)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    options = parser.parse_args(arguments)

    from pipelines.core.record import check_complete, read_record
    from pipelines.studio import PIPELINES

    record = read_record(options.file, PIPELINES)
    check_complete(record)
    if record.pipeline != "diffuse":
        raise BadInput("diffuse.explain_other", pipeline=record.pipeline)
    folder = picture_folder(options.out)
    _, pipeline, _ = load_recorded(record, options.pack, options.device)
    settings = pipeline.Settings.from_dict(record.settings)
    found = _watched(pipeline, settings, int(record.picture["seed"]))
    sheets = {name: folder / f"{Path(options.file).stem}-{name}.png" for name in ("words", "guesses")}
    _write(sheets["words"], _words(found), max(len(found.word_maps), 1))
    _write(sheets["guesses"], _guesses(found), len(found.moments))
    _tell(found, sheets, options.json)
    return 0


def _watched(pipeline: Any, settings: Any, seed: int) -> Explanation:
    from pipelines.diffuse.walkthrough import explain

    line = ProgressLine()
    try:
        return finished(mapped(explain(pipeline, settings, seed), line.show))
    finally:
        line.end()


def _words(found: Explanation) -> list[Image.Image]:
    """The picture as each word sees it; the picture alone when the prompt has no words."""
    from pipelines.diffuse.walkthrough import word_map_picture

    return [word_map_picture(found.picture, word.map) for word in found.word_maps] or [found.picture]


def _guesses(found: Explanation) -> list[Image.Image]:
    """A row with guidance, and one without it where the run had any."""
    plain = [moment.unguided for moment in found.moments if moment.unguided is not None]
    return [*(moment.guess for moment in found.moments), *plain]


def _write(path: Path, pictures: list[Image.Image], columns: int) -> None:
    from pipelines.io.files import write_atomically
    from pipelines.io.images import to_tensor
    from pipelines.training.report import image_grid

    file = io.BytesIO()
    image_grid(to_tensor(pictures), columns).save(file, "PNG")
    write_atomically(path, file.getvalue())


def _tell(found: Explanation, sheets: dict[str, Path], as_json: bool) -> None:
    if as_json:
        facts: dict[str, Any] = {
            "words": [{"word": word.text, "share": round(word.share, 4)} for word in found.word_maps],
            "schedule": [
                {"picture": round(moment.picture, 4), "noise": round(moment.noise, 4)}
                for moment in found.moments
            ],
        }
        facts |= {f"{name}_sheet": str(path) for name, path in sheets.items()}
        print(json.dumps(facts, allow_nan=False))
        return
    for word in found.word_maps:
        print(f"{word.text}: {word.share:.1%} of the attention")
    for path in sheets.values():
        print(path)
