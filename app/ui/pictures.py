"""How the page gets at picture files: by short addresses under /picture, never by paths of the machine."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote

from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.core.record import without_pictures
from pipelines.errors import BadInput
from pipelines.io.files import named, shown_name
from pipelines.io.formats import picture_format

SHEET_PIXELS = 512  # width of all previews together
BARE = "bare"  # "?download=bare": the file without the pictures that were given


@dataclass(frozen=True)
class Pictures:
    """The finished pictures of whoever asks, in the folder that `home` tells, and the examples of the studio.

    `key` tells what their addresses need at their end.
    """

    home: Callable[[], Path]
    examples: Path
    key: Callable[[], str] = str

    @property
    def folder(self) -> Path:
        return self.home()

    def url(self, path: str | Path) -> str:
        """The address of a finished picture, relative to the page."""
        return "picture/" + quote(self.name(path)) + self.key()

    def name(self, path: str | Path) -> str:
        """What the page calls a finished picture; `path` takes it back."""
        return shown_name(Path(path).absolute().relative_to(self.folder.absolute()).as_posix())

    def path(self, name: str, *, example: bool = False) -> Path:
        """The file behind a name that came from a browser. BadInput when it is no picture of ours.

        A name leads out of the folder only where whoever owns the folder has put a link there.
        """
        parts = PurePath(name)
        path = (self.examples if example else self.folder).absolute()
        try:
            good = not parts.anchor and ".." not in parts.parts and not parts.name.startswith(".")
            path = named(path, name)
            good = good and path.suffix == ".png" and path.is_file()
        except (OSError, ValueError):  # a null byte, a name too long
            good = False
        if not good:
            raise BadInput("app.picture_not_here", picture=name[:60])
        return path

    def example_names(self) -> list[str]:
        """The pictures shown before there is anything else."""
        return sorted(path.name for path in self.examples.glob("*.png"))[:12]

    def routes(self) -> list[Route]:
        """What the server answers with: the files as they were written, records inside."""

        def answer(example: bool):
            def endpoint(request: Request) -> Response:
                try:
                    path = self.path(request.path_params["name"], example=example)
                    _check_png(path)
                    bare = request.query_params.get("download") == BARE
                    contents = without_pictures(path) if bare else b""
                except BadInput as problem:
                    return PlainTextResponse(str(problem), 404)
                saved = f"atelier-{shown_name(path.name)}" if "download" in request.query_params else None
                headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
                if bare:
                    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(saved or '')}"
                    return Response(contents, media_type="image/png", headers=headers)
                return FileResponse(path, media_type="image/png", filename=saved, headers=headers)

            return endpoint

        return [
            Route("/picture/{name:path}", answer(example=False)),
            Route("/example/{name:path}", answer(example=True)),
        ]


def _check_png(path: Path) -> None:
    """BadInput when a file is something else than its name says, such as a page of HTML."""
    try:
        with path.open("rb") as file:
            kind = picture_format(file.read(12))
    except (OSError, BadInput):
        kind = ""
    if kind != "PNG":
        raise BadInput("app.picture_not_here", picture=path.name[:60])


def preview_uri(image: Image.Image, width: int) -> str:
    """A small picture as a data URI, at most `width` pixels wide; for previews only."""
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
