"""The verb `ui`: the studio in the browser."""

from __future__ import annotations

import getpass
import os

from app.cli.flags import model_flags, parts_in_use
from app.cli.run import outputs, picture_folder
from pipelines.core.arguments import Parser
from pipelines.errors import BadInput
from pipelines.io.files import home_path


def main(arguments: list[str]) -> int:
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
    parser.add_argument(
        "--folder",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of pictures from elsewhere, which the Library shows and only reads; may be given again",
    )
    model_flags(parser, lanes=True)
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
    if options.folder and serving.apart:
        raise BadInput("library.folder_apart")

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
        folders=[home_path(folder) for folder in options.folder],
    )


def _password(password: str | None) -> str | None:
    """The password of --password or of the environment; asked for in the terminal when the flag stands alone."""
    if password is None:
        return os.environ.get("ATELIER_PASSWORD") or None
    if not password:
        try:
            password = getpass.getpass("password for the studio's visitors: ")
        except EOFError:
            password = ""
    if not password:
        raise BadInput("cli.password_empty")
    return password
