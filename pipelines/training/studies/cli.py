"""`python launch.py study NAME`: comparisons of the field, done again here. The same command again goes on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.core.arguments import Parser, number
from pipelines.errors import BadInput
from pipelines.io.files import check_writable
from pipelines.training.cli import ASSETS
from pipelines.training.data.dataset import DATA_FILE
from pipelines.training.studies.study import Study


def codecs(study: Study) -> dict[str, Any]:
    """VQ-VAE, dVAE and VQGAN."""
    from pipelines.training.studies.codecs import study_codecs

    return study_codecs(study)


def efficiency(study: Study) -> dict[str, Any]:
    """Bag of words and Transformer, contrastive and predicting."""
    from pipelines.training.studies.clip_efficiency import study_efficiency

    return study_efficiency(study)


STUDIES: dict[str, Callable[[Study], dict[str, Any]]] = {
    "clip-efficiency": efficiency,
    "codecs": codecs,
}


def main(argv: list[str], studies: Mapping[str, Callable[[Study], dict[str, Any]]] | None = None) -> int:
    """Run one study and print its figures; returns the exit code. `studies` are those there are, else STUDIES."""
    studies = studies or STUDIES
    options = _parser(studies).parse_args(argv)
    study = Study(
        options.out / options.name,
        options.data,
        options.pack,
        options.minutes,
        options.steps,
        options.clock == "processor",
        options.seed,
    )
    try:
        check_writable(study.folder / "figures.json")
        figures = studies[options.name](study)
    except (BadInput, FileNotFoundError, ArithmeticError) as error:
        print(f"atelier: {error}", file=sys.stderr)
        return 2
    study.write(figures)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, values in figures.items():
            print(f"{name:28} " + "  ".join(f"{key} {value}" for key, value in values.items()))
        print(f"pictures and figures are in {study.folder}", file=sys.stderr)
    return 0


def _parser(studies: Mapping[str, Any]) -> Parser:
    parser = Parser(
        prog="launch.py study",
        description="Do a comparison of the field again. The same command again goes on where it stopped.",
        epilog="clip-efficiency: texts as bags of words or by a Transformer, contrastive or predicted: zero-shot accuracy "
        "against pictures seen, one plot. codecs: VQ-VAE, dVAE and VQGAN of as many tokens on the same data with the same "
        "time: PSNR, SSIM, codes used, the critic's R@1 after a round trip, and a sheet.",
    )
    add: Callable[..., argparse.Action] = parser.add_argument
    add("name", choices=sorted(studies))
    add("--minutes", type=number(float, 0.01, 100_000), default=30.0, help="of all trainings (default 30)")
    add("--steps", type=number(int, 1, 10**9), help="of each training, instead of minutes")
    add("--seed", type=number(int, 0, 2**32 - 1), default=0)
    add("--data", type=Path, default=DATA_FILE, help=f"made by launch.py data (default {DATA_FILE})")
    add("--pack", type=Path, default=ASSETS, help="whose CLIP, critic and vocabulary are used (assets/tiny)")
    add("--out", type=Path, default=Path("studies"), help="where the study keeps what it has (studies)")
    add(
        "--clock",
        choices=("wall", "processor"),
        default="processor",
        help="what minutes are: of the clock, or of computing, which waits do not shorten (default processor)",
    )
    add("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
