"""Sets of webdataset tars by their names, and a sample of what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import islice, product
from pathlib import Path

from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.training.data.sources import Found, Reading, files_of, pictures_in_tar

SAMPLE, SAMPLED_TARS = 2_048, 16  # pictures that are looked at, and from how many tars' beginnings
MOST_TARS = 100_000
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def tars_of(named: Path) -> list[Path]:
    """The tars of a folder, in natural order, or those that a pattern names: `shard-{000..010}.tar`, or `*`, `?` and `[]`.

    BadInput when there is none, and when one of a brace form is not there.
    """
    text = str(home_path(named))
    if named.exists():
        tars = [path for path in files_of(Path(text), Reading()) if path.suffix.lower() == ".tar"]
    elif "{" in text:
        tars = [Path(name) for name in expanded(text)]
        if missing := [path for path in tars if not path.is_file()]:
            raise BadInput("training.tar_missing", file=missing[0], missing=len(missing), tars=len(tars))
    else:
        tars = sorted(Path(name) for name in glob(text, recursive=True) if Path(name).is_file())
    if not tars:
        raise BadInput("training.no_tars", data=named)
    return tars


def expanded(text: str) -> list[str]:
    """The names that a text with braces stands for, as a shell writes them out: {000..010}, {a,b}.

    BadInput for more than MOST_TARS.
    """
    parts = BRACES.split(text)  # between braces and inside them in turn
    choices = [_choices(part) if k % 2 else [part] for k, part in enumerate(parts)]
    names = ["".join(words) for words in islice(product(*choices), MOST_TARS + 1)]
    if len(names) > MOST_TARS:
        raise BadInput("training.too_many_tars", most=MOST_TARS)
    return names


def _choices(inside: str) -> list[str]:
    numbers = RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    step, width = (1 if last >= first else -1), max(map(len, numbers.groups()))
    padded = width if any(len(word) > 1 and word[0] == "0" for word in numbers.groups()) else 0
    return [f"{number:0{padded}}" for number in islice(range(first, last + step, step), MOST_TARS + 1)]


def sample_of_tars(tars: Sequence[Path], reading: Reading) -> Iterator[Found]:
    """Up to SAMPLE pictures, from the beginnings of up to SAMPLED_TARS tars that are spread evenly over all."""
    count = min(len(tars), SAMPLED_TARS)
    for k in range(count):
        tar = tars[k * len(tars) // count]
        yield from islice(pictures_in_tar(tar, tar.name, reading), SAMPLE // count)
