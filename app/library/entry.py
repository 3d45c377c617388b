"""What the library tells of a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.core.record import Record
from pipelines.errors import BadInput


@dataclass(frozen=True)
class Foreign:
    """What another program wrote into a picture. `tool` is "a1111", "comfyui", one of `studios`, or "other".

    `text` is all of it that can be read, at most MOST_TEXT characters. A prompt, seed or model that it does not tell is
    the empty text.
    """

    tool: str
    text: str
    prompt: str = ""
    seed: str = ""
    model: str = ""


@dataclass(frozen=True)
class Marks:
    """What the user has noted of a picture."""

    star: bool = False
    tags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """One picture. `id` is where it lies in the library's folder, as text that can be shown: "2026-11-29/x-1.png".

    Of `record` (made here) and `foreign` (made elsewhere) one at most is there. `content` is the hash of the file: a
    renamed or copied file has the same.
    """

    id: str
    path: Path
    modified: float  # seconds since 1970
    content: str = ""
    record: Record | None = None
    foreign: Foreign | None = None
    marks: Marks = field(default_factory=Marks)
    binned: bool = False

    @property
    def prompt(self) -> str:
        if self.record is not None:
            return str(self.record.settings.get("prompt", ""))
        return self.foreign.prompt if self.foreign else ""

    @property
    def tool(self) -> str:
        """The pipeline, or the other program; the empty text when nothing is known."""
        if self.record is not None:
            return self.record.pipeline
        return self.foreign.tool if self.foreign else ""

    @property
    def seed(self) -> int | None:
        if self.record is not None:
            return int(self.record.picture["seed"])
        digits = self.foreign.seed if self.foreign else ""
        return int(digits) if digits.isdecimal() else None

    @property
    def text(self) -> str:
        """What another program wrote, as text; the empty text for pictures made here."""
        return self.foreign.text if self.foreign else ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for programs."""
        return {
            "id": self.id,
            "file": str(self.path),
            "prompt": self.prompt,
            "tool": self.tool,
            "seed": self.seed,
            "star": self.marks.star,
            "tags": list(self.marks.tags),
            "note": self.marks.note,
            "text": self.text,
        }


@dataclass(frozen=True)
class Found:
    """One place of a page: a picture, how near it is, and those that look the same and stand behind it.

    `score` is the cosine with what was asked for, None when nothing was. `told` says whether the picture's own record
    has the words that were asked for. `stack` are the ids of its near-duplicates, best first, itself left out.
    """

    entry: Entry
    score: float | None = None
    told: bool = False
    stack: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far the index is. `stage` is "read" (facts), "see" (thumbnails and vectors), "stopped" or "done".

    `done` of `total` files are through the stage. `broken` files could not be opened so far.
    """

    stage: str = "done"
    done: int = 0
    total: int = 0
    broken: int = 0

    @property
    def running(self) -> bool:
        return self.stage in ("read", "see")


@dataclass(frozen=True)
class Page:
    """Some of the pictures that a query finds: `total` counts all of them, stacked ones too.

    `more` says whether there is another page. Beside a `progress` that is running, pictures may still come in.
    """

    found: list[Found]
    total: int
    more: bool
    progress: Progress


@dataclass(frozen=True)
class Relative:
    """A picture of a lineage. `setting` is the setting by which it was given on ("image"), or received.

    `relatives` go on in the same direction: a parent's parents, a child's children.
    """

    entry: Entry
    setting: str
    relatives: tuple[Relative, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """What a picture was made from, what was made from it, and what came of the same run."""

    entry: Entry
    parents: tuple[Relative, ...] = ()
    children: tuple[Relative, ...] = ()
    siblings: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Broken:
    """A file that is passed over, and why."""

    id: str
    problem: BadInput


@dataclass(frozen=True)
class Act:
    """Something that was done to pictures: `kind` is "star", "tag", "note" or "bin"; `count` pictures were changed."""

    number: int
    kind: str
    count: int
