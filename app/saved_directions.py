"""The shelf: directions that were kept, small files in one folder, to be put on any picture later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.kept_files import keep, kept_file, newest
from pipelines.edit.directions import Direction, read_direction
from pipelines.errors import BadInput

MOST_SHOWN = 24  # the newest
MOST_USED = 6  # at once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """One direction on the shelf: its file's name, its size in bytes, and what it says of itself."""

    name: str
    size: int
    facts: dict[str, Any]

    @property
    def words(self) -> tuple[str, str]:
        """From what to what."""
        return self.facts["source"], self.facts["target"]


@dataclass(frozen=True)
class Shelf:
    """The directions of whoever asks, in the folder that `home` tells. Names that come from a browser pass `path`."""

    home: Callable[[], Path]

    @property
    def folder(self) -> Path:
        return self.home() / "directions"

    def keep(self, direction: Direction) -> str:
        """Save a direction under a name made of its words; the same direction twice is one file."""
        return keep(self.folder, direction.to_bytes(), direction.facts["target"])

    def path(self, name: str) -> Path:
        """The file behind a name. BadInput when it is no direction of ours."""
        path = kept_file(self.folder, name)
        if path is None:
            raise BadInput("app.direction_gone", direction=name[:60])
        return path

    def kept(self) -> list[Kept]:
        """What is on the shelf, newest first; files that are no directions are passed over."""
        files = newest(self.folder, MOST_SHOWN)
        read = [_read(path, stat.st_mtime_ns, stat.st_size) for path, stat in files]
        return [direction for direction in read if direction is not None]

    def setting(self, uses: dict[str, float]) -> tuple[str, str, str]:
        """What EditSettings.directions wants for {name: strength}, and the words from and to of them all."""
        if len(uses) > MOST_USED:
            raise BadInput("app.too_many_directions", count=len(uses), most=MOST_USED)
        read = [(read_direction(self.path(name)), strength) for name, strength in uses.items()]
        listed = " | ".join(f"{direction.to_uri()}:{strength:g}" for direction, strength in read)
        source, target = (
            ", ".join(dict.fromkeys(direction.facts[key] for direction, _ in read))
            for key in ("source", "target")
        )
        return listed, source[:400], target[:400]

    def routes(self) -> list[Route]:
        """/direction/NAME.safetensors."""

        def answer(request: Request) -> Response:
            try:
                path = self.path(request.path_params["name"])
            except BadInput as problem:
                return PlainTextResponse(str(problem), 404)
            headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
            return FileResponse(
                path, media_type="application/octet-stream", filename=path.name, headers=headers
            )

        return [Route("/direction/{name}", answer)]


@lru_cache(maxsize=256)
def _read(path: Path, changed: int, size: int) -> Kept | None:
    try:
        return Kept(path.name, size, read_direction(path).facts)
    except BadInput:
        return None
    except Exception:  # whatever is wrong with one file, the others are shown
        log.exception("the direction %r cannot be read", path.name)
        return None
