"""The names of the icons as a small file, from which See takes what else a picture might show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines.io.files import write_atomically
from pipelines.training.data.icons import Icon

NAMES_FILE = Path(__file__).parents[3] / "assets" / "tiny" / "names.json"


def paired_names(icons: Sequence[Icon]) -> list[tuple[str, str]]:
    """Pairs of an English and a Chinese name, one for each thing, sorted: of its English names the commonest.

    Things without a Chinese name are left out: their English one is often garbled.
    """
    named: dict[str, Counter[str]] = {}
    for icon in icons:
        if icon.chinese:
            named.setdefault(icon.chinese, Counter())[icon.name] += 1
    return sorted((max(sorted(names), key=names.__getitem__), chinese) for chinese, names in named.items())


def write_names(icons: Sequence[Icon], path: Path) -> None:
    """Write the pairs as JSON, one a line."""
    lines = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in paired_names(icons))
    write_atomically(path, f"[\n{lines}\n]\n".encode())
