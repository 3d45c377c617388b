"""The page in the browser."""

from __future__ import annotations

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
) -> int:
    """Open the studio in the browser and serve it until Ctrl+C. Returns the exit code."""
    from app.ui import page  # gradio and torch take seconds to import, and --help should not

    return page.serve(
        *page.open_studio(pack, device, Path(folder), use),
        serving=serving,
        open_browser=open_browser,
        mcp=mcp,
    )
