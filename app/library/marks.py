"""Stars, tags, notes and what went into the bin: the user's own work, in a file that is only ever added to.

One line of JSON an act. What counts is what all lines together come to, so that an act can be undone by one line more, and
a line that was cut off by a crash takes away itself only. Pictures are named by their content: marks outlive the index
and follow a renamed file.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from app.library.entry import Act, Marks
from pipelines.errors import BadInput
from pipelines.io.files import cannot_save
from pipelines.io.values import is_dict, is_list

MOST_TAG = 40  # characters
MOST_TAGS = 50  # of one picture
MOST_NOTE = 2000  # characters
NONE = Marks()
UNDONE = ("star", "tag", "note", "bin", "restore")  # acts that can be

log = logging.getLogger(__name__)


@dataclass
class Line:
    """An act as it stands in the file: `pictures` are contents as hex, `before` what each of them had."""

    act: str
    pictures: list[str]
    value: Any = None
    before: list[Any] | None = None
    undone: bool = False


class MarksFile:
    """The marks of one folder of pictures. Any thread may call it; other processes' lines are read as they come."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.RLock()
        self._lines: list[Line | None] = []  # None: damaged
        self._marks: dict[str, Marks] = {}
        self._read = (0, 0)  # which file it was, and how far it was read
        self.changes = 0

    def all(self) -> dict[str, Marks]:
        """Content as hex -> its marks, of pictures that have any."""
        with self._lock:
            self._catch_up()
            return self._marks

    def of(self, content: str) -> Marks:
        return self.all().get(content, NONE)

    def star(self, contents: Sequence[str], on: bool) -> None:
        self._change("star", contents, on, lambda marks: replace(marks, star=on))

    def tag(self, contents: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> None:
        added, removed = clean_tags(add), clean_tags(remove)

        def change(marks: Marks) -> Marks:
            tags = tuple(dict.fromkeys([*(tag for tag in marks.tags if tag not in removed), *added]))
            if len(tags) > MOST_TAGS:
                raise BadInput("library.too_many_tags", count=len(tags), most=MOST_TAGS)
            return replace(marks, tags=tags)

        self._change("tag", contents, {"add": added, "remove": removed}, change)

    def note(self, contents: Sequence[str], text: str) -> None:
        text = "\n".join(line.strip() for line in str(text).strip().splitlines())
        if len(text) > MOST_NOTE:
            raise BadInput("library.note_too_long", count=len(text), most=MOST_NOTE)
        self._change("note", contents, text, lambda marks: replace(marks, note=text))

    def moved(self, act: str, pairs: Sequence[tuple[str, str, str]]) -> None:
        """Note that files went into the bin or came back: (content, old name, new name)."""
        value = [[old, new] for _, old, new in pairs]
        self._append(Line(act, [content for content, _, _ in pairs], value))

    def emptied(self) -> None:
        """Note that the bin was emptied: what went into it before cannot come back."""
        self._append(Line("empty", []))

    def acts(self) -> list[Act]:
        """What can be undone, newest first."""
        with self._lock:
            self._catch_up()
            found: list[Act] = []
            emptied = False
            for number in range(len(self._lines) - 1, -1, -1):
                line = self._lines[number]
                if line is None or line.undone:
                    continue
                emptied = emptied or line.act == "empty"
                if line.act in UNDONE and not (emptied and line.act in ("bin", "restore")):
                    found.append(Act(number, line.act, len(line.pictures)))
            return found

    def line(self, number: int) -> Line:
        line = self._lines[number]
        assert line is not None
        return line

    def undo(self, number: int) -> None:
        """Note that an act was undone; stars, tags and notes are then as they were before it."""
        self._append(Line("undo", [], number))

    # --------------------------------------------------------------------------------------------------------- the file

    def _change(
        self, act: str, contents: Sequence[str], value: Any, change: Callable[[Marks], Marks]
    ) -> None:
        with self._lock:
            marks = self.all()
            changed = [
                content
                for content in dict.fromkeys(contents)
                if change(marks.get(content, NONE)) != marks.get(content, NONE)
            ]
            if changed:
                before = [_value(marks.get(content, NONE), act) for content in changed]
                self._append(Line(act, changed, value, before))

    def _append(self, line: Line) -> None:
        """Add a line, whole and on the disk when it returns. CannotSave when it cannot be written."""
        values: dict[str, Any] = {"act": line.act, "pictures": line.pictures, "value": line.value}
        if line.before is not None:
            values["before"] = line.before
        values["time"] = datetime.now().astimezone().isoformat(timespec="seconds")
        text = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._lock:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("ab+") as opened:
                    if opened.tell() and self._ends_inside(opened):
                        text = b"\n" + text  # after what a crash has cut off
                    opened.write(text)
                    opened.flush()
                    os.fsync(opened.fileno())
            except OSError as problem:
                raise cannot_save(self.file, problem) from problem
            self._catch_up()

    @staticmethod
    def _ends_inside(opened: Any) -> bool:
        """Whether the last line has no end. The place to write stays at the file's end, as for all that is added to."""
        opened.seek(-1, os.SEEK_END)
        return opened.read(1) != b"\n"

    def _catch_up(self) -> None:
        """Read what was added since."""
        try:
            state = self.file.stat()
        except OSError:
            state = None
        which, end = self._read
        if state is None or state.st_ino != which or state.st_size < end:
            if self._lines:
                self._lines, self._marks = [], {}
                self.changes += 1
            which, end = (state.st_ino if state else 0), 0
        if state is not None and state.st_size > end and (data := self._whole_lines(end)):
            self._marks = dict(self._marks)
            for text in data.split(b"\n")[:-1]:
                self._apply(_line(text))
            end += len(data)
            self.changes += 1
        self._read = (which, end)

    def _whole_lines(self, begin: int) -> bytes:
        """The bytes from there on. None of a last line without an end, which another process may be writing.

        None at all of what cannot be read, such as a folder in the file's place.
        """
        try:
            with self.file.open("rb") as opened:
                opened.seek(begin)
                data = opened.read()
        except OSError as problem:
            log.warning("the marks of the library cannot be read: %s", problem)
            return b""
        return data[: data.rfind(b"\n") + 1]

    def _apply(self, line: Line | None) -> None:
        self._lines.append(line)
        if line is None:
            return
        if line.act == "undo":
            number = line.value
            if isinstance(number, int) and 0 <= number < len(self._lines) and self._lines[number]:
                undone = self.line(number)
                undone.undone = True
                for content, value in zip(undone.pictures, undone.before or (), strict=False):
                    self._set(content, _with(self._marks.get(content, NONE), undone.act, value))
            return
        for content in line.pictures:
            marks = self._marks.get(content, NONE)
            if line.act == "tag" and is_dict(line.value):
                removed, added = _texts(line.value.get("remove")), _texts(line.value.get("add"))
                tags = [*(tag for tag in marks.tags if tag not in removed), *added]
                self._set(content, replace(marks, tags=tuple(dict.fromkeys(tags))))
            elif line.act in ("star", "note"):
                self._set(content, _with(marks, line.act, line.value))

    def _set(self, content: str, marks: Marks) -> None:
        if marks == NONE:
            self._marks.pop(content, None)
        else:
            self._marks[content] = marks


def clean_tags(tags: Sequence[str]) -> list[str]:
    """Tags as they are kept: no commas, one blank between words. BadInput for one that is too long."""
    found: list[str] = []
    for part in tags:
        for tag in str(part).replace("，", ",").replace("、", ",").split(","):
            tag = " ".join(tag.split())
            if len(tag) > MOST_TAG:
                raise BadInput("library.tag_too_long", tag=tag[:40], most=MOST_TAG)
            if tag and tag not in found:
                found.append(tag)
    return found


def _value(marks: Marks, act: str) -> Any:
    return {"star": marks.star, "tag": list(marks.tags), "note": marks.note}[act]


def _with(marks: Marks, act: str, value: Any) -> Marks:
    if act == "star":
        return replace(marks, star=bool(value))
    if act == "tag":
        return replace(marks, tags=tuple(_texts(value)))
    return replace(marks, note=str(value)[:MOST_NOTE]) if act == "note" else marks


def _texts(value: Any) -> list[str]:
    return [str(text)[:MOST_TAG] for text in value[:MOST_TAGS]] if is_list(value) else []


def _line(text: bytes) -> Line | None:
    """A line of the file, None when it is damaged."""
    try:
        values = json.loads(text)
        assert is_dict(values) and isinstance(values["act"], str) and is_list(values["pictures"])
        before = values.get("before")
        pictures = [str(name) for name in values["pictures"]]
        return Line(values["act"], pictures, values.get("value"), before if is_list(before) else None)
    except (ValueError, KeyError, AssertionError, RecursionError):
        log.warning("a line of the library's marks is damaged and left out")
        return None
