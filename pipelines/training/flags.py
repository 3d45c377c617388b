"""The flags of `python launch.py train`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipelines.core.arguments import Parser, number
from pipelines.training import own
from pipelines.training.control import Control
from pipelines.training.data.dataset import DATA_FILE

SAVE_SECONDS = 300.0
SIZES = ("tiny", "small", "base", "large")
CODECS = ("vqgan", "vqvae", "dvae")
CONDITIONS, TEXT_KINDS = ("none", "class", "text"), ("transformer", "bag", "cbow")
DEFAULTS = (CODECS[0], CONDITIONS[0], TEXT_KINDS[0], "softmax")


def parser_of(networks: Iterable[str]) -> Parser:
    """The flags of `train`, for these networks."""
    names = sorted(networks)
    parser = Parser(
        prog="launch.py train",
        description="Train one of the small networks. The same command again goes on where it stopped. "
        "`train queue FILE` runs a list of trainings: see train queue --help.",
    )
    add = parser.add_argument
    add(
        "name",
        choices=[*names, own.PACK],
        metavar="NAME",
        help=f"{', '.join(names)}; {own.PACK}: all that the tools need, from a folder of pictures",
    )
    add(
        "--size",
        choices=SIZES,
        default="tiny",
        help="tiny is what the pack ships; small and base want a GPU, and large, of dalle and transformer, several",
    )
    add("--minutes", type=number(float, 0.01, 100_000), default=20.0, help="time budget (default 20)")
    add(
        "--steps",
        type=number(int, 1, 10**9),
        help="a budget in steps instead; then a resumed run repeats exactly",
    )
    add(
        "--batch",
        type=number(int, 1, 65_536),
        help="samples a step in each process (default: the size's own)",
    )
    add("--seed", type=number(int, 0, 2**32 - 1), default=0)
    add(
        "--data",
        type=Path,
        default=DATA_FILE,
        help="a folder of pictures with captions (.txt beside them, captions.jsonl, metadata.csv, metadata.jsonl, or "
        f"webdataset tars), or a file made by launch.py data (default {DATA_FILE})",
    )
    add("--json", action="store_true", help="print one JSON object on standard output at the end")
    add("--state", type=Path, default=Path("runs"), help="where trainings keep their state (runs)")
    add(
        "--out",
        type=Path,
        help="where the finished weights go (assets/tiny; of a folder packs/ with the folder's name)",
    )
    add(
        "--start",
        type=Path,
        help="clip, critic, vqgan, codec, dalle, prior, matting: an earlier checkpoint, whose fitting tensors are taken",
    )
    _add_flags_of_runs(parser)
    _add_flags_of_networks(parser)
    _add_flags_of_folders(parser)
    return parser


def _add_flags_of_runs(parser: Parser) -> None:
    """How a training runs, whatever it learns."""
    add = parser.add_argument
    add(
        "--save-every",
        type=number(float, 1, 100_000),
        help=f"seconds (default {SAVE_SECONDS:.0f}; of a folder {own.SAVE_SECONDS:.0f})",
    )
    add(
        "--report-every",
        type=number(float, 0.1, 100_000),
        default=20.0,
        help="minutes between two lines of figures, sheets and kept states (default 20)",
    )
    add(
        "--sample-every",
        type=number(float, 0.01, 100_000),
        help="minutes between two sheets that are drawn in between; few of them are kept (default: none are drawn)",
    )
    add(
        "--control",
        type=Control,
        help="a folder where it tells how it stands and looks whether to wait, pause or stop; for one process",
    )
    add(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="what minutes are: of the clock, or of computing, which waits do not shorten (default wall)",
    )
    add(
        "--workers",
        type=number(int, 0, 256),
        help="processes that prepare batches ahead (default: none beside a CPU, most cores beside a GPU)",
    )
    add(
        "--processes",
        type=number(int, 1, 64),
        default=1,
        help="train on so many processes of this machine; one that dies ends all, and fewer go on (default 1)",
    )
    add(
        "--precision",
        choices=("no", "bf16"),
        help="mixed precision (default: bf16 on a GPU, on a CPU whichever is faster)",
    )
    add(
        "--compile", action="store_true", help="compile the networks first; pays on a GPU after a few minutes"
    )
    add("--background", action="store_true", help="give way to other work on this machine")


def _add_flags_of_networks(parser: Parser) -> None:
    add = parser.add_argument
    add("--codec", choices=CODECS, help="dalle and transformer: whose tokens are learned (default vqgan)")
    add("--condition", choices=CONDITIONS, help="transformer: what it is told (default none)")
    add("--text", choices=TEXT_KINDS, help="clip and critic: the text tower (default transformer)")
    add(
        "--loss",
        choices=("softmax", "sigmoid"),
        help="clip and critic: sigmoid is SigLIP's (default softmax)",
    )
    add(
        "--chunk",
        type=number(int, 1, 65_536),
        help="clip and critic: pictures encoded at once, for batches larger than memory; the gradients stay those of "
        "the batch (default: all)",
    )
    add(
        "--shard",
        action="store_true",
        default=None,
        help="dalle: divide the network among the processes (FSDP), each of which keeps a share of weights, gradients and "
        "optimizer; the state fits any number of processes, and a plan of the memory is printed first",
    )
    add(
        "--plan",
        action="store_true",
        default=None,
        help="dalle: print the plan of the memory, and train nothing",
    )


def _add_flags_of_folders(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--check",
        action="store_true",
        help="of a folder: tell what is in it and how long it takes, and train nothing",
    )
    add(
        "--stream",
        action="store_true",
        help="of webdataset tars, in a folder or named as 'shard-{000..010}.tar' or 'shard-*.tar': read them in a stream, "
        f"each process its own, where all of it would not fit into memory; for {', '.join(own.STREAMED)}",
    )
    parser.set_defaults(tars=())  # those of the stream
    add("--licence", help="of a folder: what its pictures are under; it stands in the pack's card")
    add("--fresh", action="store_true", help="of a folder: begin from nothing and not from what the pack has")
