"""What a user does to pictures: stars, tags, notes, the bin, and undoing it; and how pictures are known by their ids."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from app.library.bin import Bin
from app.library.entry import Act
from app.library.facts import SHOWN
from app.library.files import BIN, Places
from app.library.index import Index
from app.library.marks import MarksFile
from pipelines.errors import BadInput

MOST_AT_ONCE = 20_000  # pictures that one act changes


class Working:
    """The part of Library that changes something. An act is noted once it is done, and can be undone."""

    def __init__(self, places: Places, closing: threading.Event) -> None:
        self.places, self.folder = places, places.folder
        self._closing = closing
        self._index = Index(places, closing)
        self._marks = MarksFile(places.marks)
        self._bin = Bin(places)

    @property
    def own(self) -> bool:
        """Whether the pictures were made here: only they can be put into the bin."""
        return self.places.own

    def end_soon(self) -> None:
        """End what is being asked. It waits for nothing, so that the handler of a signal may call it."""
        self._closing.set()

    def star(self, ids: Sequence[str], on: bool = True) -> None:
        """Give pictures a star, or take it away. One act, however many they are. BadInput for an unknown id."""
        self._marks.star(self._contents(ids), on)

    def tag(self, ids: Sequence[str], add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Give pictures tags, and take tags away. One act. BadInput for an unknown id or a tag that is too long."""
        self._marks.tag(self._contents(ids), add, remove)

    def note(self, ids: Sequence[str], text: str) -> None:
        """Write a note on pictures; the empty text takes it away. One act. BadInput for an unknown id or a long note."""
        self._marks.note(self._contents(ids), text)

    def bin(self, ids: Sequence[str]) -> None:
        """Put pictures into the bin, a folder of the library. BadInput in a folder that is only read (`own` is false)."""
        self._throw("bin", self._bin.put, ids)

    def restore(self, ids: Sequence[str]) -> None:
        """Put pictures back from the bin to where they were; their ids are those that they have in the bin."""
        self._throw("restore", self._bin.restore, ids)

    def empty_bin(self) -> int:
        """Delete what is in the bin, with its thumbnails. It cannot be undone. Returns how many files that were."""
        if not self.own:
            return 0
        words = f"SELECT DISTINCT content FROM files WHERE substr(path, 1, {len(BIN)}) = '{BIN}'"
        contents = [content for (content,) in self._index.facts.query(words)]
        names = self._bin.empty()
        if names:
            self._marks.emptied()
            self._index.facts.forget(names)
            self._index.forget_contents(contents)
        return len(names)

    def undo(self) -> Act | None:
        """Undo the last act that has not been undone (star, tag, note, bin, restore). None when there is none left."""
        act = next(iter(self._marks.acts()), None)
        if act is not None:
            line = self._marks.line(act.number)
            if act.kind in ("bin", "restore"):
                self._index.facts.move(self._bin.back([(str(old), str(new)) for old, new in line.value]))
            self._marks.undo(act.number)
            self._index.forget_walk()
        return act

    def acts(self, count: int = 20) -> list[Act]:
        """The last acts that can be undone, newest first."""
        return self._marks.acts()[:count]

    # -------------------------------------------------------------------------------------------------------- inside

    def _numbered(self, picture_id: str) -> tuple[int, str]:
        """The number and the name of a picture by its id, or by its file's name without the ending."""
        for fresh in (False, True):
            self._index.check_open()
            if fresh:
                self._index.refresh()
            words = f"SELECT number, path FROM files WHERE path = ? AND {SHOWN}"
            if rows := self._index.facts.query(words, (picture_id,)):
                return rows[0]
            if picture_id and "/" not in picture_id:
                words = f"SELECT number, path FROM files WHERE instr(path, ?) AND {SHOWN} ORDER BY path"
                for number, name in self._index.facts.query(words, (picture_id,)):
                    if Path(name).stem == picture_id:
                        return number, name
        raise BadInput("app.picture_not_in_library", picture=picture_id[:40])

    def _contents(self, ids: Sequence[str]) -> list[str]:
        """The contents of pictures by their ids."""
        if len(ids) > MOST_AT_ONCE:
            raise BadInput("library.too_many_at_once", count=len(ids), most=MOST_AT_ONCE)
        numbers = [self._numbered(name)[0] for name in dict.fromkeys(ids)]
        paths = self._index.paths(numbers)
        return [paths[number][2].hex() for number in numbers]

    def _throw(
        self, act: str, move: Callable[[list[str]], list[tuple[str, str]]], ids: Sequence[str]
    ) -> None:
        """Into the bin, or out of it: move the files, then note it."""
        if not self.own:
            raise BadInput("library.only_read", folder=self.folder.name)
        contents = dict(zip(dict.fromkeys(ids), self._contents(ids), strict=True))
        names = {self._numbered(name)[1]: content for name, content in contents.items()}
        pairs = move(list(names))
        self._index.facts.move(pairs)
        self._index.forget_walk()
        if pairs:
            self._marks.moved(act, [(names[old], old, new) for old, new in pairs])
