"""The command line: its verbs and their exit codes. Results go to standard output, all else to standard error."""

from __future__ import annotations

import getpass
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from app.cli.flags import model_flags, parts_in_use
from app.cli.progress import FAILED, INTERRUPTED, WRONG, say
from app.cli.replay import replay
from app.cli.run import ROOT, outputs, picture_folder, run_pipeline
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput, CannotSave, Message

HELP = """\
Atelier makes pictures with the CLIP family.

  python launch.py                      open the studio in the browser
  python launch.py generate PROMPT      draw candidates with DALL·E and rank them with CLIP
  python launch.py optimize PROMPT      let CLIP's gradient grow a picture (VQGAN-CLIP)
  python launch.py edit FILE            change a picture from one text to another (DiffusionCLIP)
  python launch.py replay FILE.png      run a picture's record again and compare
  python launch.py models               the model packs: what is there, size, licence, origin
  python launch.py deploy OWNER/NAME    send this to a Hugging Face Space
  python launch.py data                 build the training data
  python launch.py train NAME           train one of the small models
  python launch.py evaluate             measure the models
  python launch.py bench NAME           measure speed
  python launch.py showcase             remake the example pictures
  python launch.py test                 run the tests

Each of them tells its flags with --help.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 when it failed, 2 for wrong input, 130 after Ctrl+C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nobody is called unless the user asks for it
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    for stream in (sys.stdout, sys.stderr):  # a prompt in Chinese must not end in a traceback on any terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
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
    verbs: dict[str, Callable[[list[str]], int]] = {
        "ui": _ui,
        "replay": replay,
        "models": _elsewhere("app.cli.models"),
        "deploy": _elsewhere("app.deploy"),
        "data": _elsewhere("pipelines.training.data.cli"),
        "train": _elsewhere("pipelines.training.cli"),
        "evaluate": _elsewhere("pipelines.evaluation.cli"),
        "bench": _elsewhere("pipelines.benchmarks.cli"),
        "showcase": _elsewhere("pipelines.evaluation.showcase"),
        "test": _test,
    }
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        print(HELP, end="")
        return 0
    if arguments[:1] == ["--version"]:
        from pipelines.core.record import VERSION

        print(f"Atelier {VERSION}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        return _ui(arguments)
    verb, *rest = arguments
    if verb in verbs:
        return verbs[verb](rest)
    from pipelines.studio import PIPELINES

    if verb not in PIPELINES:
        raise BadInput("cli.command_unknown", command=verb[:40], known=", ".join([*PIPELINES, *verbs]))
    return run_pipeline(verb, PIPELINES[verb], rest)


def _ui(arguments: list[str]) -> int:
    """Serve the page until Ctrl+C, on this machine unless other hosts are asked for."""
    from app.serving import PORT, add_flags, check_free, serving_of

    parser = Parser(prog="launch.py ui", description="Open the studio in the browser.")
    add_flags(parser)
    parser.add_argument("--no-browser", action="store_true", help="only serve, open no browser")
    parser.add_argument(
        "--mcp",
        action="store_true",
        default=os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true",
        help="also serve the tools to agents, by the Model Context Protocol (default: what GRADIO_MCP_SERVER says)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for pictures and jobs (default: ATELIER_OUTPUTS or outputs/)"
    )
    model_flags(parser)
    options = parser.parse_args(arguments)
    serving = serving_of(
        host=options.host,
        port=options.port,
        allow_host=options.allow_host,
        password=_password(options.password),
        open_to_all=options.open_to_all,
        root_path=options.root_path,
        shared_library=options.shared_library,
        environment=os.environ,
    )
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH"):  # they have been read
        os.environ.pop(name, None)
    check_free(serving.host, serving.port or PORT)

    from app.ui import serve

    folder = picture_folder(options.out) if options.out else outputs()
    return serve(
        pack=options.pack,
        device=options.device,
        use=parts_in_use(options.use),
        folder=folder,
        serving=serving,
        open_browser=not options.no_browser,
        mcp=options.mcp,
    )


def _password(given: str | None) -> str | None:
    """The password of --password or of the environment; asked for in the terminal when the flag stands alone."""
    if given is None:
        return os.environ.get("ATELIER_PASSWORD") or None
    if not given:
        try:
            given = getpass.getpass("password for the studio's visitors: ")
        except EOFError:
            given = ""
    if not given:
        raise BadInput("cli.password_empty")
    return given


def _elsewhere(module: str) -> Callable[[list[str]], int]:
    """A verb that has its own file: `main(arguments)` there, imported when it is asked for."""

    def verb(arguments: list[str]) -> int:
        return importlib.import_module(module).main(arguments)

    return verb


def _test(arguments: list[str]) -> int:
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
