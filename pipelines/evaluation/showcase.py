"""`python launch.py showcase`: the pictures of the README and of the empty page, remade from prompts and seed 0."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from pipelines.core.arguments import Parser
from pipelines.core.execute import run
from pipelines.core.pipeline import Result, Step
from pipelines.core.record import record_of, write_png
from pipelines.diffuse.settings import DiffuseSettings
from pipelines.edit.settings import EditSettings
from pipelines.generate.settings import GenerateSettings
from pipelines.io.files import write_atomically
from pipelines.io.images import open_picture, picture_to_uri, to_tensor
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import Studio
from pipelines.training.report import image_grid
from pipelines.weights.catalog import ASSETS

PROMPTS = (
    "a red heart",
    "grinning cat",
    "woman with red hair",
    "1st place medal",
    "strawberry",
    "clock",
    "哭脸",
    "sunglasses",
    "pizza",
    "angry face",
    "christmas tree",
    "a blue heart on a yellow background",
)
SHEET = (  # 24 names, 8 of several parts, 8 in Chinese, fixed before any picture was seen
    *("cat face", "dog face", "lion", "elephant", "fish", "butterfly", "tree", "rose"),
    *("sun", "moon", "rainbow", "snowman", "red apple", "banana", "strawberry", "pizza"),
    *("birthday cake", "car", "airplane", "ship", "house", "castle", "book", "guitar"),
    *("a blue heart on a yellow background", "two cats", "three red apples", "four balloons"),
    *(
        "a small star left of a house",
        "a green frog with a crown",
        "a rocket on a purple background",
        "cat and moon",
    ),
    *("红苹果", "小狗", "太阳", "雪人", "生日蛋糕", "火箭", "蓝色的鱼", "黄色背景上的房子"),
)
SHEET_COLUMNS = 8
OPTIMIZED = (
    "a red heart",
    "cat face",
    "green apple",
    "rocket",
    "sunflower",
    "grinning face",
    "fire",
    "ghost",
)
EDIT_STRIP = 5
EDITED = (
    ("smiling face", "nauseated face"),
    ("house", "house at night"),
    ("apple", "green apple"),
    ("car", "taxi"),
    ("orange", "lemon"),
    ("flower", "rose"),
)


def main(argv: list[str]) -> int:
    """Write Generate's best of 16 for each prompt, with its record inside, and the four sheets."""
    parser = Parser(prog="launch.py showcase", description="Remake the example pictures.")
    parser.add_argument(
        "--only", choices=("diffuse", "generate", "optimize", "edit"), help="one of the sheets"
    )
    parser.add_argument(
        "--out", type=Path, default=ASSETS / "examples", help="folder (default assets/examples)"
    )
    options = parser.parse_args(argv)
    out, studio = options.out, Studio("tiny", "cpu")
    sheets: dict[str, Callable[[], None]] = {
        "diffuse": lambda: _write_sheet(out / "diffuse-sheet.png", _diffused(studio), SHEET_COLUMNS),
        "generate": lambda: _generated(studio, out),
        "optimize": lambda: _write_sheet(out / "optimize-sheet.png", _optimized(studio), len(OPTIMIZED)),
        "edit": lambda: _write_sheet(out / "edit-sheet.png", _edited(studio), 2 * EDIT_STRIP),
    }
    for name, make in sheets.items():
        if options.only in (None, name):
            make()
    return 0


def _diffused(studio: Studio) -> list[Image.Image]:
    """The best of 16 for each prompt of SHEET, seed 0."""
    pipeline, pictures = studio.pipeline("diffuse"), []
    for prompt in SHEET:
        best = _result(run(pipeline, DiffuseSettings(prompt=prompt, candidates=16, keep=1))).pictures[0]
        pictures.append(best.image)
        print(f"{prompt}: {best.score:.3f}", file=sys.stderr)
    return pictures


def _generated(studio: Studio, out: Path) -> None:
    """The best of 16 for each prompt, with its record inside, and a sheet of the best four."""
    pipeline, models = studio.pipeline("generate"), studio.models("generate")
    columns = []
    for number, prompt in enumerate(PROMPTS, start=1):
        result = _result(run(pipeline, GenerateSettings(prompt=prompt)))
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
    _write_sheet(out / "sheet.png", rows, len(PROMPTS))
    write_atomically(out.parent / "thumbnail.jpg", thumbnail([column[0] for column in columns]))


def thumbnail(pictures: list[Image.Image]) -> bytes:
    """Twelve pictures on the page's paper, as the JPEG of 1200 x 630 that is shown where the project is linked to."""
    card = Image.new("RGB", (1200, 630), "#FAF8F4")
    for index, picture in enumerate(pictures[:12]):
        tile = picture.convert("RGB").resize((176, 176), Image.Resampling.LANCZOS)
        card.paste(tile, (22 + index % 6 * 196, 129 + index // 6 * 196))
    file = io.BytesIO()
    card.save(file, "JPEG", quality=90)
    return file.getvalue()


def _optimized(studio: Studio) -> list[Image.Image]:
    """Three rows: a picture that the prior drew, what Optimize makes of it, and what it grows from a splash."""
    optimize = studio.pipeline("optimize")
    rows: list[list[Image.Image]] = [[], [], []]
    for prompt in OPTIMIZED:
        drawn = optimize.prepare(OptimizeSettings(prompt=prompt, start="drawn"))
        assert isinstance(drawn, OptimizeSettings)
        rows[0].append(open_picture(drawn.image))
        for row, settings in ((1, drawn), (2, OptimizeSettings(prompt=prompt))):
            best = _result(run(optimize, settings)).pictures[0]
            rows[row].append(best.image)
            print(f"{prompt}: {best.facts['clip']:.3f}, critic {best.score:.3f}", file=sys.stderr)
    return [picture for row in rows for picture in row]


def _edited(studio: Studio) -> list[Image.Image]:
    """For each pair of texts a strip of strengths from 0 to 1.5 by instant edits, on Diffuse's best for the source."""
    diffuse, edit, pictures = studio.pipeline("diffuse"), studio.pipeline("edit"), []
    for source, target in EDITED:
        drawn = _result(run(diffuse, DiffuseSettings(prompt=source, candidates=16, keep=1))).pictures[0]
        image = picture_to_uri(drawn.image)
        settings = EditSettings(source=source, prompt=target, mode="instant", strip=EDIT_STRIP, image=image)
        result = _result(run(edit, settings))
        pictures += [
            picture.image
            for picture in sorted(result.pictures, key=lambda picture: picture.facts["strength"])
        ]
        facts = result.pictures[0].facts
        print(
            f"{source} -> {target}: {facts['critic direction']:.3f}, SSIM {facts['SSIM']:.2f}",
            file=sys.stderr,
        )
    return pictures


def _result(events: Iterable[Step | Result]) -> Result:
    *_, result = events
    assert isinstance(result, Result)
    return result


def _write_sheet(path: Path, pictures: list[Image.Image], columns: int) -> None:
    file = io.BytesIO()
    image_grid(to_tensor(pictures), columns).save(file, "PNG")
    write_atomically(path, file.getvalue())
