"""Pictures cut out and made ready for where they go, by plain addresses: one that was made here, or a set as a zip.

/export/PLACE/NAME gives the file of a picture for a place of `pipelines.export.presets`, or a zip where there are several.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.jobs.threads import run_in_own_thread
from app.ui.context import PageContext
from app.ui.i18n import LANGUAGES
from pipelines.core.explain import explain
from pipelines.errors import BadInput, CannotSave
from pipelines.export.export import Exported, Given, exported, given_of, in_motion, plan
from pipelines.export.presets import Preset, preset_of

KINDS = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".webm": "video/webm",
    ".ico": "image/x-icon",
}
MOST_AT_ONCE = 120  # pictures that a browser may ask for

_working = threading.Lock()  # one at a time: it shares the device with the queue


@run_in_own_thread
def files_for(studio: Any, given: Sequence[Given], preset: Preset, outline: bool) -> list[Exported]:
    """The files of pictures for a place. BadInput when the place does not take them."""
    files = plan(given, preset)
    with _working:
        return list(exported(files, preset, studio.matting(), outline=outline))


def set_for(
    studio: Any, sources: Sequence[tuple[str, bytes]], place: str, *, outline: bool, moving: bool
) -> bytes:
    """The zip of pictures, (name, file) each, for a place; as frames of one that moves when they are `moving`.

    BadInput when the place is not known or does not take them.
    """
    given = [given_of(data, name) for name, data in sources]
    return packed(files_for(studio, [in_motion(given)] if moving else given, preset_of(place), outline))


def packed(files: Sequence[Exported]) -> bytes:
    """A zip of files, stored as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, mode="w", compression=zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.writestr(file.name, file.data)
    return buffer.getvalue()


def routes(context: PageContext) -> list[Route]:
    """GET /export/PLACE/NAME, with ?outline=1 for a white outline."""

    def answer(request: Request) -> Response:
        place, name = request.path_params["place"], request.path_params["name"]
        try:
            preset, path = preset_of(place), context.pictures.path(name)
            given = given_of(path.read_bytes(), path.stem)
            files = files_for(context.studio, [given], preset, "outline" in request.query_params)
        except (BadInput, CannotSave, OSError) as problem:
            told = BadInput.of(explain(problem))
            return PlainTextResponse("\n".join(told.text(language) for language in LANGUAGES), 404)
        if len(files) == 1:
            return _saved(files[0].name, files[0].data, KINDS[files[0].form.suffix])
        stem = files[0].name.removesuffix(preset.joint + files[0].form.ending + files[0].form.suffix)
        return _saved(f"{stem}-{place}.zip", packed(files), "application/zip")

    return [Route("/export/{place}/{name:path}", answer)]


def _saved(name: str, data: bytes, kind: str) -> Response:
    headers = {
        "Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type=kind, headers=headers)
