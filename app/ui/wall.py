"""What the script of the tab Library asks the server: questions as JSON under /library, pictures under their names.

A question that changes something is a POST, which `Origins` guards. An answer holds HTML in both languages; an error is
one sentence. Whose library is asked follows from who asks, as everywhere.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.jobs.threads import run_in_own_thread
from app.library import Entry, Found, Library, Page, Progress, Query, read_query
from app.ui.context import PageContext
from app.ui.exporting import MOST_AT_ONCE, set_for
from app.ui.html import library as library_html
from app.ui.html import library_pictures as pictures_html
from app.ui.html.library_pictures import Addresses
from app.ui.i18n import both
from app.ui.questions import Asked, routes_of, text_of, texts_of
from pipelines.core.explain import explain
from pipelines.errors import BadInput, CannotSave
from pipelines.export.presets import preset_of
from pipelines.io.files import write_atomically
from pipelines.io.images import URI_HEAD, picture_format, read_bytes

PAGE = 96  # pictures of an answer
MOST_PAGE = 1000
MOST_IDS = 20_000
MOST_ZIPS = 16
FOREVER = "private, max-age=31536000, immutable"  # of an address that names the content
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}

_looking = threading.Lock()  # one search at a time: CLIP shares the device with the queue


class Wall:
    """The questions of one page's tab. Nothing of a visitor's is kept here but zips that he may fetch."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.folders = context, context.folders
        self._zips: dict[str, tuple[Path, Path]] = {}  # token -> the home of whoever asked, the file

    def routes(self) -> list[Route]:
        """POST /library/QUESTION with JSON; GET /library/thumbnail/ID, /library/file/ID and /library/zip/TOKEN."""
        questions: dict[str, Callable[[Asked], Asked]] = {
            "find": self.find,
            "cells": self.cells,
            "choices": self.choices,
            "large": self.large,
            "family": self.family,
            "beside": self.beside,
            "act": self.act,
            "undo": self.undo,
            "zip": self.zip,
            "export": self.export,
            "index": self.index,
            "broken": self.broken,
            "folder": self.folder,
        }
        return [
            *routes_of("library", questions),
            Route("/library/thumbnail/{id:path}", self._picture(small=True)),
            Route("/library/file/{id:path}", self._picture(small=False)),
            Route("/library/zip/{token}", self._fetch_zip),
        ]

    # ---------------------------------------------------------------------------------------------------- searching

    def find(self, asked: Asked) -> Asked:
        """A page of the wall for what the search and the filters say."""
        library = self._library(asked)
        query = query_of(asked)
        skip, count = _number(asked, "skip", 10**7), _number(asked, "count", MOST_PAGE) or PAGE
        page = self._page(library, query, skip, count)
        found = pictures_html.cells(page.found, self._addresses(asked), days=query.order == "date")
        number = f"{page.total:,}"
        told = both("lib_count_one") if page.total == 1 else both("lib_count", count=number)
        return {
            "cells": found,
            "found": len(page.found),
            "total": page.total,
            "told": told,
            "more": page.more,
            "order": query.order,
            "nothing": "" if page.total else pictures_html.nothing(_reason(query)),
            **_standing(library, page.progress),
        }

    def _page(self, library: Library, query: Query, skip: int, count: int) -> Page:
        if not query.looks:
            return library.page(query, skip, count)
        return self._looked(library, query, skip, count)

    @run_in_own_thread
    def _looked(self, library: Library, query: Query, skip: int, count: int) -> Page:
        with _looking:
            return library.page(query, skip, count, self.context.studio.clip())

    def cells(self, asked: Asked) -> Asked:
        """Pictures by their ids, as those of a stack that opens."""
        library = self._library(asked)
        found = [Found(library.find(name)) for name in _ids(asked)[:MOST_PAGE]]
        return {"cells": pictures_html.cells(found, self._addresses(asked))}

    def choices(self, asked: Asked) -> Asked:
        """What the menus offer in this folder: tools, models, tags; the folders; and how full the bin is."""
        library = self._library(asked)
        counts = library.choices()
        menus = {name: library_html.choices(name, counts.get(name, {})) for name in ("tool", "model", "tag")}
        binned = library.page(Query(binned=True, stacked=False), 0, 1).total if library.own else 0
        return {
            "menus": menus,
            "folder": library_html.folder_choices(self.folders.opened()),
            "tags": list(counts.get("tag", {}))[:24],
            "bin": both("lib_bin_count", count=f"{binned:,}") if binned else both("lib_bin"),
            "binned": binned,
            "sure": both("lib_empty_sure", count=f"{binned:,}"),
            "empty": both("lib_empty_bin"),
            "own": library.own,
        }

    # -------------------------------------------------------------------------------------------- one and some pictures

    def large(self, asked: Asked) -> Asked:
        """One picture and what can be done with it."""
        library = self._library(asked)
        entry = library.find(text_of(asked, "id"))
        return {"html": pictures_html.large(entry, self._addresses(asked), own=library.own)}

    def family(self, asked: Asked) -> Asked:
        """Where a picture comes from, and what came of it."""
        lineage = self._library(asked).lineage(text_of(asked, "id"))
        return {"html": pictures_html.family(lineage, self._addresses(asked))}

    def beside(self, asked: Asked) -> Asked:
        """Two to four pictures to compare."""
        ids = _ids(asked)
        if not 2 <= len(ids) <= 4:
            raise BadInput("library.compare_count", count=len(ids))
        entries = [self._library(asked).find(name) for name in ids]
        return {"html": pictures_html.beside(entries, self._addresses(asked))}

    # ------------------------------------------------------------------------------------------------------ working

    def act(self, asked: Asked) -> Asked:
        """Star, tag, note, bin, restore or empty: what was done, in words."""
        library, ids, what = self._library(asked), _ids(asked), text_of(asked, "do")
        count, facts = len(ids), {}
        if what in ("star", "unstar"):
            library.star(ids, what == "star")
        elif what in ("tag", "untag"):
            tag = " ".join(text_of(asked, "tag").split())
            library.tag(ids, **{"add" if what == "tag" else "remove": [tag] if tag else []})
            facts = {"tag": tag}
        elif what == "note":
            library.note(ids, text_of(asked, "note"))
        elif what == "bin":
            library.bin(ids)
        elif what == "restore":
            library.restore(ids)
        elif what == "empty":
            count = library.empty_bin()
        else:
            raise BadInput("library.act_unknown", act=what[:40])
        return {"said": both(f"lib_said_{what}", count=f"{count:,}", **facts), "undo": what != "empty"}

    def undo(self, asked: Asked) -> Asked:
        """Undo the last act."""
        act = self._library(asked).undo()
        return {"said": both("lib_undone" if act else "lib_undo_none"), "kind": act.kind if act else ""}

    def zip(self, asked: Asked) -> Asked:
        """Pack pictures: where the zip can be fetched from, for as long as the library keeps it."""
        return self._offered(self._library(asked).zip_of(_ids(asked)))

    def export(self, asked: Asked) -> Asked:
        """Pack pictures cut out and made ready for a place, or as one that moves: where the zip can be fetched from."""
        library, place, ids = self._library(asked), text_of(asked, "place"), _ids(asked)
        preset_of(place).check(1 if asked.get("moving") is True else len(ids), asked.get("moving") is True)
        if len(ids) > MOST_AT_ONCE:
            raise BadInput("export.too_many", place=place, count=len(ids), most=MOST_AT_ONCE)
        paths = [library.find(name).path for name in ids]
        sources = [(path.stem, read_bytes(path)) for path in paths]
        chosen = {name: asked.get(name) is True for name in ("outline", "moving")}
        data = set_for(self.context.studio, sources, place, **chosen)
        file = library.zip_place()
        write_atomically(file, data)
        return self._offered(file)

    def _offered(self, file: Path) -> Asked:
        token = secrets.token_urlsafe(18)
        self._zips = dict([*self._zips.items(), (token, (self.context.pictures.folder, file))][-MOST_ZIPS:])
        return {"address": f"library/zip/{token}{self.context.pictures.key()}", "name": file.name}

    def _fetch_zip(self, request: Request) -> Response:
        home, file = self._zips.get(request.path_params["token"], (None, Path()))
        if home != self.context.pictures.folder or not file.is_file():
            return PlainTextResponse(str(BadInput("library.zip_gone")), 404)
        return FileResponse(file, filename=file.name, headers={"Cache-Control": "no-store"})

    # ---------------------------------------------------------------------------------------------------- the index

    def index(self, asked: Asked) -> Asked:
        """How far the index is; first "start" or "stop" it, where that is asked. To start it loads CLIP."""
        library, what = self._library(asked), text_of(asked, "do")
        if what == "start":
            library.start_index(self.context.studio.clip())
        elif what == "stop":
            library.stop_index()
        return _standing(library, library.progress())

    def broken(self, asked: Asked) -> Asked:
        """The files that could not be opened."""
        return {"html": pictures_html.broken_files(self._library(asked).broken())}

    def folder(self, asked: Asked) -> Asked:
        """Open a folder of this machine."""
        return {"folder": self.folders.open(text_of(asked, "place"))}

    # ------------------------------------------------------------------------------------------------------- inside

    def _library(self, asked: Asked) -> Library:
        return self.folders.library(text_of(asked, "folder"))

    def _addresses(self, asked: Asked) -> Addresses:
        """The addresses of pictures of a folder. One that was made here has a name that the other tabs know."""
        folder, pictures = text_of(asked, "folder"), self.context.pictures
        ending = (f"&folder={quote(folder)}" if folder else "") + pictures.key().replace("?", "&")

        def address(kind: str, entry: Entry) -> str:
            return f"library/{kind}/{quote(entry.id)}?of={entry.content[:16]}{ending}"

        return Addresses(
            thumbnail=lambda entry: address("thumbnail", entry),
            file=lambda entry: address("file", entry) if folder else pictures.url(entry.path),
            name=lambda entry: "" if folder or entry.binned else pictures.name(entry.path),
        )

    def _picture(self, small: bool) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                library = self.folders.library(request.query_params.get("folder", ""))
                name = request.path_params["id"]
                path = library.thumbnail(name) if small else library.find(name).path
                with path.open("rb") as file:
                    kind = KINDS[picture_format(file.read(12))]
            except (BadInput, CannotSave, OSError) as problem:
                return PlainTextResponse(str(BadInput.of(explain(problem))), 404)
            kept = FOREVER if "of" in request.query_params else "private, no-cache"
            return FileResponse(path, media_type=kind, headers={"Cache-Control": kept})

        return answer


def query_of(asked: Asked) -> Query:
    """The query that the script tells. BadInput where a part of it is none; no path is taken from a browser."""
    given = texts_of(asked, "given")
    if not all(source.startswith(URI_HEAD) for source in given):
        raise BadInput("app.picture_not_here", picture="")
    query = read_query(
        text_of(asked, "text"),
        date=text_of(asked, "date"),
        seed=text_of(asked, "seed"),
        like=texts_of(asked, "like"),
        unlike=texts_of(asked, "unlike"),
        given=given,
        tool=text_of(asked, "tool"),
        model=text_of(asked, "model"),
        tag=text_of(asked, "tag"),
        words=text_of(asked, "words"),
        starred=asked.get("starred") is True,
        binned=asked.get("binned") is True,
        sort=text_of(asked, "sort"),
    )
    return replace(query, stacked=asked.get("stacked") is not False and not query.binned)


def _reason(query: Query) -> str:
    """Why a wall is empty."""
    if query.binned:
        return "binned"
    return "found" if query.filters else "new"


def _standing(library: Library, progress: Progress) -> Asked:
    broken = progress.broken if progress.running else len(library.broken())
    return {
        "filling": pictures_html.filling(progress, broken),
        "running": progress.running,
        "stage": progress.stage,
    }


def _ids(asked: Asked) -> list[str]:
    ids = list(dict.fromkeys(texts_of(asked, "ids")))
    if len(ids) > MOST_IDS:
        raise BadInput("library.too_many_at_once", count=len(ids), most=MOST_IDS)
    return ids


def _number(asked: Asked, name: str, most: int) -> int:
    value = asked.get(name)
    return min(max(value, 0), most) if isinstance(value, int) else 0
