"""The verb `models`: what there is, what it needs, and getting, adding and removing models."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.cli.progress import INTERRUPTED, ProgressLine, say
from app.space import free_memory
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.weights.checkpoint import Checkpoint, size_of
from pipelines.weights.install import add, find, install, installed, published, remove
from pipelines.weights.open_weights import OPEN_WEIGHTS

COLUMNS = ("pack", "name", "role", "there", "size", "memory", "runs here", "good for", "licence", "origin")


def main(arguments: Sequence[str]) -> int:
    """`models`, and its verbs `fetch`, `add`, `remove` and `seal`. Returns the exit code; BadInput for wrong input."""
    verbs: dict[str, Callable[[list[str]], int]] = {
        "fetch": _fetch,
        "add": _add,
        "remove": _remove,
        "seal": _seal,
    }
    if arguments and arguments[0] in verbs:
        return verbs[arguments[0]](list(arguments[1:]))
    return _list(list(arguments))


def _list(arguments: list[str]) -> int:
    parser = Parser(
        prog="launch.py models",
        description="The model packs: what is there, size, memory, licence, origin. "
        "models fetch NAME downloads one, models add PATH --name NAME takes yours, models remove NAME deletes one.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    options = parser.parse_args(arguments)
    rows = all_models()
    if options.json:
        print(json.dumps({"models": rows, "memory": free_memory()}))
        return 0
    table = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    where = "  ".join(f"{device} {count / 1e9:.1f} GB" for device, count in free_memory().items())
    print(f"\nfree memory: {where}; get a model with: python launch.py models fetch NAME", file=sys.stderr)
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['bytes'] / 1e6:,.1f} MB" if row["exact"] else f"about {row['bytes'] / 1e6:,.0f} MB"
    memory = f"{row['memory'] / 1e9:.1f} GB" if row["memory"] else ""
    runs = {True: "yes", False: "no", None: ""}[row["runs"]]
    there = "yes" if row["there"] else "no"
    facts = (row["about"], row["licence"], row["origin"])
    return (row["pack"], row["name"], row["role"], there, size, memory, runs, *facts)


def all_models() -> list[dict[str, Any]]:
    """Every model as plain values: the shipped pack, the open weights, and the user's own.

    "bytes" is what it takes on disk, or the download when it is not there; "exact" tells whether that is no estimate.
    "memory" is an estimate in bytes, and "runs" says whether that much is free on the GPU or in this machine's RAM now;
    both are None where they are not known. "about" is what the model is good for.
    """
    from pipelines.weights.catalog import CHECKPOINTS
    from pipelines.weights.own_packs import own_parts

    free = max(free_memory().values())
    rows = [_row(checkpoint, free) for checkpoint in (CHECKPOINTS | OPEN_WEIGHTS).values()]
    rows += [_row(checkpoint, free) for checkpoint in own_parts()]
    return rows + [_own(name, free) for name in installed() if name not in OPEN_WEIGHTS]


def _row(checkpoint: Checkpoint, free: int) -> dict[str, Any]:
    """A model of the catalog. For those of the tiny pack, memory is four times their size."""
    facts = ["pack", "name", "role", "licence", "origin", "about"]
    size, memory, exact = checkpoint.size, 4 * checkpoint.size, True
    row: dict[str, Any] = {name: getattr(checkpoint, name) for name in facts}
    if checkpoint.files:
        row |= {"pinned": checkpoint.pinned, "conversion_memory": checkpoint.conversion_memory}
        exact = checkpoint.present or checkpoint.exact
        size, memory = size if checkpoint.present else checkpoint.download_bytes, checkpoint.memory
    size_facts = {"bytes": size, "exact": exact, "memory": memory, "runs": memory <= free}
    return row | {"there": checkpoint.present, **size_facts}


def _own(name: str, free: int) -> dict[str, Any]:
    """A model that the user added; its file tells what it is."""
    from safetensors import SafetensorError, safe_open

    path = find(name)
    assert path is not None
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError):
            metadata = {"kind": "damaged"}
    try:
        facts = json.loads(metadata.get("facts", "{}"))
    except ValueError:
        facts = {}
    terms = {key: str(facts.get(key, "not stated")) for key in ("licence", "origin")}
    row = {"pack": "own", "name": name, "role": metadata.get("kind", path.suffix.removeprefix(".")), **terms}
    need = 2 * size_of(path)
    size_facts = {"bytes": size_of(path), "exact": True, "memory": need, "runs": need <= free}
    return row | {"about": "", "there": True, **size_facts}


# ---------------------------------------------------------------------------------------------- fetch, add, remove


def _fetch(arguments: list[str]) -> int:
    parser = Parser(
        prog="launch.py models fetch",
        description="Download a model of the full pack, prove it and convert it.",
    )
    parser.add_argument("name", metavar="NAME", help="its name in the list of `models`")
    parser.add_argument("--yes", action="store_true", help="the licence is read and agreed to; do not ask")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    options = parser.parse_args(arguments)
    checkpoint = published(options.name)
    new: list[str] = []
    if not checkpoint.present:
        _show(checkpoint)
        _agree(options.yes)
        line, steps = ProgressLine(), install(checkpoint)
        try:
            while True:
                line.show(next(steps))
        except StopIteration as end:
            new = end.value
        except KeyboardInterrupt:
            say(f"stopped; python launch.py models fetch {checkpoint.name} goes on from there")
            return INTERRUPTED
        finally:
            line.end()
            steps.close()
    for name in new:
        say(f"{name} is not pinned: its SHA-256 was not known beforehand and is now remembered")
    facts = {"name": checkpoint.name, "path": str(checkpoint.path), "bytes": checkpoint.size}
    _tell(options.json, {**facts, "unpinned": new})
    return 0


def _show(checkpoint: Checkpoint) -> None:
    """What is about to be downloaded, on standard error: standard output is for the result."""
    rows = {
        "model": f"{checkpoint.name}: {checkpoint.about}",
        "origin": checkpoint.origin,
        "licence": checkpoint.licence,
        "size": f"{'' if checkpoint.exact else 'about '}{checkpoint.download_bytes / 1e6:,.0f} MB to download",
        "memory": "; ".join(_memory(checkpoint)),
        "SHA-256": "published" if checkpoint.pinned else "not pinned: the publisher tells none that we know",
        "from": "\n          ".join("\n       or ".join(file.urls) for file in checkpoint.files),
    }
    for name, text in rows.items():
        if text:
            print(f"{name:<8}  {text}", file=sys.stderr)


def _memory(checkpoint: Checkpoint) -> Iterator[str]:
    """What running and converting a model take, in words."""
    if checkpoint.memory:
        yield f"about {checkpoint.memory / 1e9:.1f} GB to run"
    if checkpoint.conversion_memory:
        disk = 3 * checkpoint.download_bytes  # the download, a copy outside of the pickle, and the result
        yield (
            f"about {checkpoint.conversion_memory / 1e9:.1f} GB to convert, "
            f"and up to {disk / 1e9:.1f} GB of disk until that is done"
        )


def _agree(agreed: bool) -> None:
    """Ask for a yes to the licence. BadInput without one, or where nobody can be asked."""
    if agreed:
        return
    if not sys.stdin.isatty():
        raise BadInput("cli.licence_not_agreed")
    print("Download under this licence? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadInput("cli.not_downloaded")


def _add(arguments: list[str]) -> int:
    parser = Parser(
        prog="launch.py models add",
        description="Convert a model that you have: safetensors, PyTorch's .pt, .ckpt or .pkl, or Flax's msgpack.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="its file, its two files, or its folder")
    parser.add_argument("--name", required=True, metavar="NAME", help="what it is to be called")
    parser.add_argument("--family", metavar="FAMILY", help="what kind of model it is (default: found out)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    options = parser.parse_args(arguments)
    kind = add([home_path(path) for path in options.paths], options.name, options.family)
    path = find(options.name)
    assert path is not None
    _tell(options.json, {"name": options.name, "path": str(path), "bytes": size_of(path), "kind": kind})
    return 0


def _remove(arguments: list[str]) -> int:
    parser = Parser(prog="launch.py models remove", description="Delete a model from the models folder.")
    parser.add_argument("name", metavar="NAME", help="its name in the list of `models`")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    options = parser.parse_args(arguments)
    _tell(options.json, {"name": options.name, "path": None, "bytes": remove(options.name)})
    return 0


def _seal(arguments: list[str]) -> int:
    parser = Parser(
        prog="launch.py models seal",
        description="Note size and SHA-256 of the shipped pack's files, after one of them was trained anew.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    options = parser.parse_args(arguments)
    from pipelines.studio import Studio
    from pipelines.weights.catalog import ASSETS, CHECKPOINTS
    from pipelines.weights.manifest import MANIFEST, seal

    def load_all() -> None:
        studio = Studio("tiny", "cpu")
        for checkpoint in CHECKPOINTS.values():
            if checkpoint.pack == "tiny":
                studio.load(checkpoint.name)

    folder = ASSETS / "tiny"
    count = seal(folder, load_all)
    size = sum(file.stat().st_size for file in folder.iterdir())
    _tell(
        options.json,
        {"name": "tiny", "path": str(folder / MANIFEST), "bytes": size, "kind": f"{count} files"},
    )
    return 0


def _tell(as_json: bool, facts: dict[str, Any]) -> None:
    if as_json:
        print(json.dumps(facts))
    elif facts["path"] is None:
        print(f"{facts['name']} removed, {facts['bytes'] / 1e6:,.1f} MB freed")
    else:
        print(
            f"{facts['path']}  {facts['bytes'] / 1e6:,.1f} MB{'  ' + facts['kind'] if 'kind' in facts else ''}"
        )
