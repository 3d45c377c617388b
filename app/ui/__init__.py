"""The page in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.serving import LOCAL, Serving


def serve(
    *,
    pack: str = "tiny",
    device: str = "auto",
    use: dict[str, str] | None = None,
    folder: str | Path = "outputs",
    serving: Serving = LOCAL,
    open_browser: bool = True,
    mcp: bool = False,
    folders: Sequence[Path] = (),
) -> int:
    """Open the studio in the browser and serve it until Ctrl+C. Returns the exit code.

    `folders` are shown in the Library, beside what was made here.
    """
    from app.ui import page  # gradio and torch take seconds to import, and --help should not

    return page.serve(
        *page.open_studio(pack, device, Path(folder), use),
        serving=serving,
        open_browser=open_browser,
        mcp=mcp,
        folders=folders,
    )
