"""`python launch.py data`: build the training data.

`build` fetches icon sets at pinned versions with the ordinary npm client, renders every icon to 128x128 RGBA and
writes one safetensors file: lossless WebP bytes, offsets, and names in English and Chinese as metadata. Beside it come
some of the held-out icons at larger sizes (`larger.py`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pipelines.core.arguments import Parser
from pipelines.io.files import write_atomically
from pipelines.training.data.dataset import DATA_FILE, Dataset, data_bytes
from pipelines.training.data.examples import EXAMPLE_SIZE, EXAMPLES_FILE, write_examples
from pipelines.training.data.icons import (
    ICON_SETS,
    NAMES_PACKAGE,
    VALIDATION_STYLE,
    WORDS_PACKAGE,
    read_drawings,
    read_icon_sets,
    read_wordnet,
    render,
)
from pipelines.training.data.larger import LARGER_NAME, SIDES, write_larger
from pipelines.training.data.names import NAMES_FILE, write_names
from pipelines.training.data.outside import OUTSIDE_NAME, OUTSIDE_SET, STYLE, write_outside


def build(path: Path = DATA_FILE) -> None:
    """Fetch, render, name, and write the data file. Needs the npm client and the package resvg-py."""
    with tempfile.TemporaryDirectory() as folder:
        modules = _fetched(
            folder, [*map(_package, ICON_SETS), "@".join(NAMES_PACKAGE), "@".join(WORDS_PACKAGE)]
        )
        icons, drawings = read_icon_sets(modules)
        phrases = read_wordnet(modules / WORDS_PACKAGE[0] / "dict")
        _draw_larger(path, modules)
    print(f"rendering {len(icons):,} icons", file=sys.stderr)
    with ProcessPoolExecutor() as pool:
        pictures = list(pool.map(render, drawings, chunksize=64))
    kept = [(icon, blob) for icon, blob in zip(icons, pictures, strict=True) if blob is not None]
    icons, blobs = [icon for icon, _ in kept], [blob for _, blob in kept]
    data = data_bytes(blobs, icons, phrases)
    write_atomically(path, data)
    print(
        f"{path}: {len(blobs):,} icons, {len(phrases):,} phrases, {len(data) / 1e6:.1f} MB", file=sys.stderr
    )


def build_larger(path: Path = DATA_FILE) -> None:
    """Fetch only the held-out icons and write what lies beside the data file at `path`."""
    with tempfile.TemporaryDirectory() as folder:
        _draw_larger(path, _fetched(folder, [_package(VALIDATION_STYLE)]))


def build_outside(path: Path = DATA_FILE) -> None:
    """Fetch a set that is no training data and write what `evaluate --outside` edits, beside the data file at `path`."""
    path = path.with_name(OUTSIDE_NAME)
    with tempfile.TemporaryDirectory() as folder:
        modules = _fetched(folder, [f"@iconify-json/{STYLE}@{OUTSIDE_SET.version}"])
        count = write_outside(path, read_drawings(modules, STYLE))
    print(f"{path}: {count} icons of {STYLE} ({OUTSIDE_SET.licence})", file=sys.stderr)


def _package(style: str) -> str:
    return f"@iconify-json/{style}@{ICON_SETS[style].version}"


def _fetched(folder: str, packages: list[str]) -> Path:
    """The folder node_modules, in `folder`, with these npm packages."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("the data is built from npm packages; install Node.js, which brings npm")
    print(f"fetching {len(packages)} npm packages", file=sys.stderr)
    (Path(folder) / "package.json").write_text("{}")
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", *packages]
    subprocess.run(command, cwd=folder, check=True)
    return Path(folder) / "node_modules"


def _draw_larger(data_file: Path, modules: Path) -> None:
    path = data_file.with_name(LARGER_NAME)
    count = write_larger(path, list(read_drawings(modules, VALIDATION_STYLE).values()))
    print(f"{path}: {count} icons at {', '.join(map(str, SIDES))} pixels", file=sys.stderr)


def main(argv: list[str]) -> int:
    """`python launch.py data`: build the data file, say what is in it, and renew the pack's example pictures and names."""
    parser = Parser(prog="launch.py data", description="Build the training data from npm packages.")
    parser.add_argument(
        "--out", type=Path, default=DATA_FILE, help=f"the file to write (default {DATA_FILE})"
    )
    parser.add_argument(
        "--examples",
        action="store_true",
        help="fetch nothing; only write the pictures that Edit learns from, assets/tiny/pictures.safetensors, "
        "and the names that See knows, assets/tiny/names.json, out of the data file that is there",
    )
    parser.add_argument(
        "--larger",
        action="store_true",
        help=f"fetch only the held-out icons and write some of them at {SIDES[-1]} pixels, {LARGER_NAME} beside FILE, "
        "for `evaluate --only export`",
    )
    parser.add_argument(
        "--outside",
        action="store_true",
        help=f"fetch only some pictures of {STYLE}, which is no training data, and write {OUTSIDE_NAME} beside FILE, "
        "for `evaluate --outside`",
    )
    options = parser.parse_args(argv)
    try:
        if options.larger or options.outside:
            (build_larger if options.larger else build_outside)(options.out)
            return 0
        if not options.examples:
            build(options.out)
        emoji = Dataset(options.out, EXAMPLE_SIZE)
    except (OSError, subprocess.CalledProcessError, ImportError) as error:
        print(f"the data could not be {'read' if options.examples else 'built'}: {error}", file=sys.stderr)
        return 1
    if not options.examples:
        for style in ICON_SETS:
            print(f"{style:20} {sum(icon.style == style for icon in emoji.icons):6,} icons", file=sys.stderr)
    write_examples(emoji, EXAMPLES_FILE)
    write_names(emoji.icons, NAMES_FILE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
