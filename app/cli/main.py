"""The command line: its verbs and their exit codes. Results go to standard output, all else to standard error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

from app.cli.commands import COMMANDS, overview
from app.cli.progress import FAILED, INTERRUPTED, WRONG, one_ending, say
from app.cli.run import ROOT, run_pipeline
from pipelines.errors import BadInput, CannotSave, Message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 when it failed, 2 for wrong input, 130 after Ctrl+C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nobody is called unless the user asks for it
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    for stream in (sys.stdout, sys.stderr):  # a prompt in Chinese must not end in a traceback on any terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with one_ending():
            return _dispatch(arguments)
    except BadInput as problem:
        return _failed(problem.message, WRONG, arguments)
    except CannotSave as problem:
        return _failed(problem.message, FAILED, arguments)
    except KeyboardInterrupt:
        say("stopped; nothing unfinished was kept")
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except SystemExit as end:  # argparse after --help
        return end.code if isinstance(end.code, int) else FAILED
    except Exception as problem:
        if os.environ.get("ATELIER_DEBUG"):
            raise
        from pipelines.core.explain import explain

        message = explain(problem)
        if message.code == "core.broke":  # there is no server, and no log
            message = Message("cli.broke", {"kind": type(problem).__name__})
        return _failed(message, FAILED, arguments)


def _failed(message: Message, code: int, arguments: Sequence[str]) -> int:
    """Say why; with --json also on standard output, with code and facts. Returns the exit code."""
    say(str(message))
    if "--json" in arguments:
        print(json.dumps({"error": {"text": str(message), **message.to_json()}}))
    return code


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        print(overview(), end="")
        return 0
    if arguments[:1] == ["--version"]:
        from pipelines.core.record import VERSION

        print(f"Atelier {VERSION}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        arguments = ["ui", *arguments]
    verb, *rest = arguments
    if verb == "test":
        return _test(rest)
    modules = {command.verb: command.module for command in COMMANDS if command.module}
    if verb in modules:
        return import_module(modules[verb]).main(rest)
    from pipelines.studio import PIPELINES

    if verb not in PIPELINES:
        known = ", ".join(dict.fromkeys([*PIPELINES, *(command.verb for command in COMMANDS)]))
        raise BadInput("cli.command_unknown", command=verb[:40], known=known)
    return run_pipeline(verb, PIPELINES[verb], rest)


def _test(arguments: list[str]) -> int:
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
