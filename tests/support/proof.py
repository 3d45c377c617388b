"""Proof that a change of the code moved no pixel: `python -m tests.support.proof OUT.json [--against BEFORE.json]`.

Draws one small picture, or a few, in every mode of every pipeline: with the shipped pack, with random Stable Diffusions,
and from the record of every picture in assets/examples and tests/records. Writes the SHA-256 of the pixels of each case.
With `--against` it compares with the hashes of an earlier run, tells the cases that differ, and ends with code 1 if any.
Hashes agree on one machine only, so run it before a change and after it. One thread, about two minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pipelines.core.execute import run
from pipelines.core.pipeline import Pipeline, Result
from pipelines.core.record import read_record
from pipelines.studio import PIPELINES, Studio
from tests.support.tiny import tiny_diffuse

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "assets" / "examples"
PICTURE = str(EXAMPLES / "02-grinning-cat.png")
OTHER = str(EXAMPLES / "05-strawberry.png")
TWO_REGIONS = json.dumps([{"at": "left", "prompt": "a red apple"}, {"at": "right", "prompt": "a green leaf"}])

GENERATE: dict[str, dict[str, Any]] = {
    "plain": {"candidates": 4, "keep": 4},
    "chinese": {"prompt": "红色的心", "candidates": 3},
    "sampling": {"temperature": 1.1, "top_k": 20, "top_p": 0.9, "guidance": 1.5, "candidates": 3},
    "variation": {"image": PICTURE, "likeness": 0.6, "candidates": 3},
    "completion": {"image": PICTURE, "keep_rows": 5, "candidates": 3},
    "duplicates": {"hide_duplicates": True, "candidates": 6},
}
OPTIMIZE: dict[str, dict[str, Any]] = {
    "plain": {},
    "several texts": {"prompt": "a red heart:1 | a blue star:0.5 | noise:-0.2"},
    "story": {"prompt": "a red heart ^ a green apple"},
    "from a picture": {"init": PICTURE},
    "image prompts": {"image_prompts": f"{OTHER}:0.5"},
    "large": {"size": "192x128"},
    "palette": {"palette": "#ff0000 #00ff00 #ffffff"},
    "noise prompts": {"noise_prompts": "7:0.3"},
    "changes": {"changes": json.dumps({"5": {"prompt": "a green apple"}})},
    "zoom": {"animate": 4, "zoom": 1.05, "rotate": 3.0},
}
EDIT: dict[str, dict[str, Any]] = {
    "instant": {"mode": "instant", "image": PICTURE, "source": "a cat", "prompt": "a fox", "strip": 2},
    "quick": {
        "mode": "quick",
        "image": PICTURE,
        "source": "a cat",
        "prompt": "a fox",
        "updates": 3,
        "strip": 3,
    },
    "reusable": {
        "mode": "reusable",
        "image": OTHER,
        "source": "red",
        "prompt": "blue",
        "updates": 3,
        "strip": 2,
    },
    "paper": {"mode": "paper", "image": OTHER, "source": "red", "prompt": "blue", "updates": 2, "strip": 1},
    "automatic mask": {"mode": "quick", "image": PICTURE, "updates": 3, "automatic_mask": True, "strip": 1},
    "an example": {
        "mode": "quick",
        "source": "an apple",
        "prompt": "a green apple",
        "updates": 3,
        "strip": 2,
    },
}
DIFFUSE: dict[str, dict[str, Any]] = {
    "plain": {"candidates": 2},
    "from a picture": {"image": PICTURE, "candidates": 2, "steps": 6},
    "guided": {"guidance": 4.0, "negative_prompt": "blue", "steps": 5, "candidates": 2},
}


def cases() -> Iterator[tuple[str, Pipeline[Any], dict[str, Any]]]:
    """Every case: its name, the pipeline and the settings as plain values."""
    for name, values in GENERATE.items():
        yield f"generate/{name}", studio().pipeline("generate"), values
    for name, values in OPTIMIZE.items():
        yield f"optimize/{name}", studio().pipeline("optimize"), {"steps": 12, "cutouts": 8, **values}
    for name, values in EDIT.items():
        yield f"edit/{name}", studio().pipeline("edit"), {"steps": 6, **values}
    for kind in ("1.5", "2.1", "turbo", "xl"):
        for name, values in DIFFUSE.items():
            yield f"diffuse {kind}/{name}", tiny_diffuse(kind), values
    for path in sorted([*EXAMPLES.glob("[0-9]*.png"), *ROOT.glob("tests/records/*/*.png")]):
        record = read_record(path, PIPELINES)
        yield f"replay/{path.parent.name}/{path.stem}", studio().pipeline(record.pipeline), record.settings


@cache
def studio() -> Studio:
    """The shipped pack on the processor."""
    return Studio("tiny", "cpu")


def pixels(pipeline: Pipeline[Any], values: dict[str, Any]) -> str:
    """The SHA-256 over sizes and pixels of all pictures of a run."""
    *_, result = run(pipeline, pipeline.Settings.from_dict(values))
    assert isinstance(result, Result)
    digest = hashlib.sha256()
    for picture in result.pictures:
        digest.update(repr(picture.image.size).encode() + picture.image.tobytes())
    return digest.hexdigest()


def main() -> int:
    """Draw, write, compare. Exit code 1 when a case differs or is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--against", type=Path, metavar="BEFORE.json")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose names hold this word")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(options.against.read_text("utf-8")) if options.against else {}
    hashes: dict[str, str] = {}
    for name, pipeline, values in cases():
        if options.only not in name:
            continue
        try:
            hashes[name] = pixels(pipeline, values)
        except Exception as error:  # a case that fails is told like one that differs
            hashes[name] = f"{type(error).__name__}: {error}"
        mark = "" if not before else "equal" if before.get(name) == hashes[name] else "DIFFERS"
        print(
            f"{name}  {hashes[name][: 40 if ':' in hashes[name] else 12]}  {mark}",
            file=sys.stderr,
            flush=True,
        )
        options.out.write_text(json.dumps(hashes, indent=1, ensure_ascii=False), "utf-8")
    expected = [name for name in before if options.only in name]
    different = [name for name in expected if before[name] != hashes.get(name)]
    print(f"{len(hashes)} cases" + (f", {len(different)} of {len(expected)} differ" if before else ""))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
