"""`python launch.py showcase`: the pictures of the README and of the empty page, remade from prompts and seed 0."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from pipelines.arguments import Parser
from pipelines.base import Result, run
from pipelines.catalog import ASSETS
from pipelines.dalle import GenerateSettings
from pipelines.files import write_atomically
from pipelines.images import to_tensor
from pipelines.record import record_of, write_png
from pipelines.studio import Studio
from pipelines.training.fit import sheet_of

PROMPTS = (
    "a red heart",
    "banana",
    "cat face",
    "a 3d dog face",
    "生日蛋糕",
    "rocket",
    "green apple",
    "grinning face",
    "carrot",
    "sad face",
    "sunflower",
    "红心",
)


def main(argv: list[str]) -> int:
    """Write the best of 16 for each prompt, with its record inside, and the four best of each as one sheet."""
    parser = Parser(prog="launch.py showcase", description="Remake the example pictures.")
    parser.add_argument(
        "--out", type=Path, default=ASSETS / "examples", help="folder (default assets/examples)"
    )
    out = parser.parse_args(argv).out
    studio = Studio("tiny", "cpu")
    pipeline, models = studio.pipeline("generate"), studio.models("generate")
    columns = []
    for number, prompt in enumerate(PROMPTS, start=1):
        *_, result = run(pipeline, GenerateSettings(prompt=prompt))
        assert isinstance(result, Result)
        best = result.pictures[0]
        record = record_of(
            pipeline="generate",
            pack=studio.pack,
            device=studio.device,
            models=models,
            settings=result.settings,
            picture=best,
            rank=1,
        )
        name = re.sub(r"\W+", "-", prompt).strip("-")
        write_png(out / f"{number:02}-{name}.png", best.image, record)
        columns.append([picture.image for picture in result.pictures])
        print(f"{prompt}: {best.score:.3f}", file=sys.stderr)
    rows = [column[k] for k in range(4) for column in columns]
    file = io.BytesIO()
    sheet_of(to_tensor(rows), len(PROMPTS)).save(file, "PNG")
    write_atomically(out / "sheet.png", file.getvalue())
    return 0
