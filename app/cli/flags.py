"""The flags of the command line: made from the fields of a pipeline's Settings, and those that several verbs share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.core.arguments import Parser
from pipelines.errors import BadInput, Message
from pipelines.io.files import home_path

if TYPE_CHECKING:  # torch takes a second to import, and --help should not
    from pipelines.core.pipeline import Pipeline

MOST_BYTES = 1_000_000  # of a settings file


def pipeline_parser(name: str, kind: type[Pipeline[Any]]) -> Parser:
    """The flags of a pipeline: one for each field of its Settings, and those that all pipelines share."""
    from pipelines.core.pipeline import HasTimelapse, LearnsDirection, Restyles, Resumable

    resumable = issubclass(kind, Resumable)
    words = (kind.__doc__ or "").strip().split("\n\n")[0]
    parser = Parser(prog=f"launch.py {name}", description=" ".join(words.split()))
    for knob in kind.Settings.knobs():
        text = knob.help.replace("%", "%%") + knob.range_text()
        flag = "--" + (knob.flag or knob.name).replace("_", "-")
        if knob.name == kind.Settings.subject:
            many = "*" if resumable or takes_several(kind) else "+"
            metavar = "FILE" if knob.kind == "picture" else knob.name.upper()
            parser.add_argument(
                knob.name, nargs="?" if knob.kind == "picture" else many, metavar=metavar, help=text
            )
        elif knob.type is bool:
            parser.add_argument(
                flag, dest=knob.name, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            metavar = "FILE" if knob.kind == "picture" else {int: "N", float: "X"}.get(knob.type, "TEXT")
            parser.add_argument(flag, dest=knob.name, metavar=metavar, help=text)
    _former_flags(parser, kind)
    if takes_several(kind):
        text = "draw the prompts of a text file too, one a line; {red|blue} makes one of each"
        parser.add_argument("--prompts", metavar="FILE", help=text)
    if flag := kind.Settings.file_flag:
        text = (
            f"settings of {flag.title()} Diffusion, a file or - for standard input; other flags change them"
        )
        parser.add_argument(f"--{flag}", dest="settings_file", metavar="FILE", help=text)
    if resumable:
        parser.add_argument(
            "--resume", metavar="DIR", help="go on with a run; other flags change it from there on"
        )
    if issubclass(kind, HasTimelapse):
        parser.add_argument("--video", metavar="FILE", help="also write how it grew, as .mp4 or .webp")
    if issubclass(kind, Restyles):
        parser.add_argument("--frames", metavar="FILE", help="restyle a folder of pictures or a short film")
    if issubclass(kind, LearnsDirection):
        parser.add_argument(
            "--save-direction", metavar="FILE", help="also keep what was learned, as .safetensors"
        )
    _shared_flags(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output at the end"
    )
    return parser


def takes_several(kind: type[Pipeline[Any]]) -> bool:
    """Whether one call may draw several prompts."""
    return kind.Settings.grammar == "terms"


def _former_flags(parser: Parser, kind: type[Pipeline[Any]]) -> None:
    """The flags by former names of settings, which work and are not shown in the help."""
    types = {knob.name: knob.type for knob in kind.Settings.knobs()}
    for former, present in kind.Settings.aliases.items():
        flag, action = "--" + former.replace("_", "-"), "store"
        if types[present] is bool:
            action = argparse.BooleanOptionalAction
        parser.add_argument(flag, dest=former, action=action, default=None, help=argparse.SUPPRESS)


def _shared_flags(parser: Parser) -> None:
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the pictures (default: ATELIER_OUTPUTS or outputs/, and the date)",
    )
    model_flags(parser)


def model_flags(parser: Parser, lanes: bool = False) -> None:
    """The flags that name models and the device; `lanes` tells of several devices, too."""
    parser.add_argument("--pack", default="tiny", metavar="NAME", help="model pack (default: tiny)")
    parser.add_argument(
        "--use",
        action="append",
        default=[],
        metavar="PART=MODEL",
        help="another model for a part of the pack, for example clip=clip-vit-l-14; may be given again",
    )
    text = "cpu, cuda or mps (default: the best one)"
    if lanes:
        text += "; several at once as cuda:0,cuda:1, or cpu:2 for two processes that share the processor's threads"
    parser.add_argument("--device", default="auto", metavar="NAME", help=text)


def set_flag(parser: Parser, of: str) -> None:
    """--set NAME=VALUE: settings of many runs at once; `of` says of which."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a setting of {of}; may be given again",
    )


def common_settings(pairs: list[str]) -> dict[str, Any]:
    """What --set gave: ["candidates=4"] -> {"candidates": "4"}."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise BadInput("batch.set_form", given=pair[:60])
    return {name.strip(): value for name, _, value in (pair.partition("=") for pair in pairs)}


def parts_in_use(pairs: list[str]) -> dict[str, str]:
    """["clip=clip-vit-l-14"] -> {"clip": "clip-vit-l-14"}."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise BadInput("cli.use_form", use=pair[:60])
    return {part: name for part, _, name in (pair.partition("=") for pair in pairs)}


def settings_values(kind: type[Pipeline[Any]], options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, in their types where they can be read so; Settings itself checks them.

    BadInput when one is given by its present and by its former name.
    """
    values: dict[str, Any] = {}
    knobs = {knob.name: knob for knob in kind.Settings.knobs()}
    former = {name: knobs[present] for name, present in kind.Settings.aliases.items()}
    for name, knob in (knobs | former).items():
        value = getattr(options, name)
        if value is None:
            continue
        if isinstance(value, list):  # the words of a prompt
            if not value and (getattr(options, "resume", None) or getattr(options, "settings_file", None)):
                continue
            value = " ".join(value)
        elif knob.type in (int, float):
            value = _number(value)
        values[name] = value
    return kind.Settings.current_names(values)


def settings_of_file(
    kind: type[Pipeline[Any]], path: str, beside: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Message]]:
    """The settings in another program's file by present names, and what is told of it.

    `beside` are those that the flags give. BadInput when the file cannot be read, is larger than MOST_BYTES or holds no
    settings.
    """
    try:
        if path == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(home_path(path), "rb") as file:
                content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig") if len(content) <= MOST_BYTES else ""
    except (OSError, ValueError):
        raise BadInput("cli.settings_file", file=path[:80]) from None
    return kind.Settings.read_file(text, beside)


def _number(text: str) -> int | float | str:
    """The number that a text spells, or the text, for Settings to complain about."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
