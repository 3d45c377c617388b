"""The pictures made: found in the outputs folder, read by their records, searched by what is in them with CLIP.

The files are the truth. `library.sqlite` beside them only remembers what was read and each picture's CLIP vector; it
may be deleted at any time and is filled again from the files. A file or folder that cannot be read is passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from app.jobs.threads import run_in_own_thread
from app.library.entry import Act, Broken, Entry, Found, Lineage, Marks, Page, Progress
from app.library.facts import PictureIndex, transaction
from app.library.query import Query
from pipelines.core.record import Record, read_texts, record_from_json
from pipelines.errors import BadInput
from pipelines.io.files import named, shown_name
from pipelines.io.images import fit_square, on_white, open_picture, to_tensor

SIDE = 224  # pixels; what CLIP is shown of a picture
BATCH = 32  # pictures at once, at most
BATCH_SECONDS = 0.3  # that a batch is to take: a search is given up between two
NOT_PICTURES = ("runs", "given", "directions")  # folders of ours that hold other things
MOST_DEPTH = 12  # folders within folders

log = logging.getLogger(__name__)


class ClipLike(Protocol):
    """What the library needs of CLIP: unit vectors of texts and pictures."""

    def encode_text(self, prompts: list[str]) -> Tensor: ...

    def encode_image(self, images: Tensor) -> Tensor: ...


class Library:
    """The PNG files with a record in `folder` and its subfolders. Any thread may call it.

    Once `closing` is set, what reads many files or computes ends soon, with BadInput; `close` sets it.
    """

    def __init__(self, folder: str | Path, closing: threading.Event | None = None) -> None:
        self.folder = Path(folder).absolute()
        self._closing = closing or threading.Event()
        self._lock = threading.RLock()
        self._index = PictureIndex(self.folder / "library.sqlite")
        self._marks: dict[str, Marks] = {}

    def recent(self, count: int = 50, skip: int = 0) -> list[Entry]:
        """The newest pictures first, `count` of them after the first `skip`."""
        with self._lock:
            self._refresh()
            rows = self._query(
                "SELECT path, modified, record FROM pictures WHERE record != ''"
                " ORDER BY modified DESC, path LIMIT ? OFFSET ?",
                (count, skip),
            )
            return self._entries(rows)

    def count(self) -> int:
        """How many pictures there are."""
        with self._lock:
            self._refresh()
            return self._query("SELECT count(*) FROM pictures WHERE record != ''")[0][0]

    def find(self, picture_id: str) -> Entry:
        """The picture of that id; BadInput when there is none."""
        with self._lock:
            self._refresh()
            rows = self._query("SELECT path, modified, record FROM pictures WHERE record != ''")
        for row in rows:
            if picture_id in (row[0], Path(row[0]).stem):
                return self._entry(*row)
        raise BadInput("app.picture_not_in_library", picture=picture_id[:40])

    @run_in_own_thread
    def search(self, clip: ClipLike, text: str, count: int = 24) -> list[tuple[Entry, float]]:
        """The pictures that look most like the text, best first, each with its cosine."""
        entries, vectors = self._vectors(clip)
        if not entries:
            return []
        with torch.no_grad():
            wanted = clip.encode_text([text])[0].float().cpu().numpy()  # (d,)
        return _nearest(entries, vectors @ wanted, count)

    @run_in_own_thread
    def similar(self, clip: ClipLike, path: str | Path, count: int = 24) -> list[tuple[Entry, float]]:
        """The pictures that look most like the one at `path`, which need not be in the library, without itself."""
        wanted = _encode(clip, [Path(path)])[0]
        if wanted is None:
            raise BadInput("app.picture_gone", picture=Path(path).name)
        entries, vectors = self._vectors(clip)
        if not entries:
            return []
        here = Path(path).absolute()
        ranked = _nearest(entries, vectors @ wanted, count + 1)
        return [(entry, score) for entry, score in ranked if entry.path != here][:count]

    # ---------------------------------------------------------------------------------------------------- searching

    def page(self, query: Query, skip: int = 0, count: int = 48, clip: ClipLike | None = None) -> Page:
        """Some of the pictures that a query finds.

        It answers within a second from what the index has. What is missing is filled in by the job in the background,
        whose progress is told; ask again while it runs. Near-duplicates stand behind the best of them (`Found.stack`),
        unless the query says otherwise.

        Args:
            query: What is asked for, from `read_query`.
            skip: How many places (stacks count as one) go before.
            count: How many places at most.
            clip: Needed where `query.looks`; the job in the background begins with it wherever it is given.

        Returns:
            The pictures in the query's order.

        Raises:
            BadInput: When an id is of no picture here, a given picture cannot be opened, or the studio closes.
        """
        if not query.looks:
            entries = self.recent(skip + count + 1)[skip:]
            return Page(
                [Found(entry) for entry in entries[:count]], self.count(), len(entries) > count, Progress()
            )
        assert clip is not None
        pairs = self.search(clip, " ".join(term.text for term in query.terms), skip + count + 1)[skip:]
        found = [Found(entry, score) for entry, score in pairs[:count]]
        return Page(found, self.count(), len(pairs) > count, Progress())

    def choices(self) -> dict[str, dict[str, int]]:
        """What can be filtered by, and how many pictures have it: {"tool": {...}, "model": {...}, "tag": {...}}."""
        tools = Counter(entry.tool for entry in self.recent(100_000))
        return {"tool": dict(tools), "model": {}, "tag": {}}

    # ------------------------------------------------------------------------------------------------------ working

    def star(self, ids: Sequence[str], on: bool = True) -> None:
        """Give pictures a star, or take it away. One act, however many they are. BadInput for an unknown id."""
        self._mark(ids, lambda marks: replace(marks, star=on))

    def tag(self, ids: Sequence[str], add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Give pictures tags, and take tags away. One act. BadInput for an unknown id or a tag that is too long."""
        self._mark(ids, lambda marks: replace(marks, tags=tuple(sorted({*marks.tags, *add} - set(remove)))))

    def note(self, ids: Sequence[str], text: str) -> None:
        """Write a note on pictures; the empty text takes it away. One act. BadInput for an unknown id or a long note."""
        self._mark(ids, lambda marks: replace(marks, note=text))

    def bin(self, ids: Sequence[str]) -> None:
        """Put pictures into the bin, a folder of the library. BadInput in a folder that is only read (`own` is false)."""
        raise NotImplementedError

    def restore(self, ids: Sequence[str]) -> None:
        """Put pictures back from the bin to where they were; their ids are those that they have in the bin."""
        raise NotImplementedError

    def empty_bin(self) -> int:
        """Delete what is in the bin, with its thumbnails. It cannot be undone. Returns how many files that were."""
        return 0

    def undo(self) -> Act | None:
        """Undo the last act that has not been undone (star, tag, note, bin, restore). None when there is none left."""
        return None

    def acts(self, count: int = 20) -> list[Act]:
        """The last acts that can be undone, newest first."""
        return []

    def lineage(self, picture_id: str) -> Lineage:
        """What a picture was made from, and what was made from it, by the records. BadInput for an unknown id."""
        return Lineage(self.find(picture_id))

    def thumbnail(self, picture_id: str) -> Path:
        """A WebP of at most THUMBNAIL pixels a side, made once. BadInput for an unknown id or a broken picture."""
        raise NotImplementedError

    def zip_of(self, ids: Sequence[str]) -> Path:
        """A zip of pictures, with a contact sheet and a list of their prompts, as a file that is kept for an hour.

        BadInput for an unknown id or too many bytes; CannotSave when the disk is full.
        """
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------- the index

    @property
    def own(self) -> bool:
        """Whether the pictures were made here: only they can be put into the bin."""
        return True

    def start_index(self, clip: ClipLike | None = None) -> None:
        """Fill the index in the background, vectors too where a CLIP is given; nothing when that is running."""

    def stop_index(self) -> None:
        """Stop the job in the background after its batch. `page` does not begin it again, `start_index` does."""

    def progress(self) -> Progress:
        """How far the job in the background is."""
        return Progress()

    def broken(self) -> list[Broken]:
        """The files that were passed over, with the reason."""
        return []

    def _mark(self, ids: Sequence[str], change: Callable[[Marks], Marks]) -> None:
        for entry in [self.find(name) for name in ids]:
            self._marks[entry.id] = change(entry.marks)

    def close(self) -> None:
        """End what is being asked, and let go of the index."""
        self._closing.set()
        self.done()

    def done(self) -> None:
        """Let go of the index when nothing more will be asked."""
        with self._lock:
            self._index.close()

    # ------------------------------------------------------------------------------------------ keeping the index

    def _refresh(self) -> None:
        """Bring the index up to the files: read new and changed ones, forget deleted ones."""
        there = dict(_png_files(self.folder))

        def refresh(db: sqlite3.Connection) -> None:
            rows = db.execute("SELECT path, modified, bytes FROM pictures")
            known = {path: (modified, size) for path, modified, size in rows}
            fresh = [
                (path, *state, self._record_text(path))
                for path, state in there.items()
                if known.get(path) != state
            ]
            gone = [(path,) for path in known.keys() - there.keys()]
            if fresh or gone:
                with transaction(db):  # files were read before: nobody waits for the database meanwhile
                    db.executemany("DELETE FROM pictures WHERE path = ?", gone)
                    db.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, NULL, NULL)", fresh)

        self._check_open()
        self._index.run(refresh)

    def _vectors(self, clip: ClipLike) -> tuple[list[Entry], np.ndarray]:
        """All pictures and their (n, d) vectors by this CLIP; those not yet known are computed now."""
        mark = _fingerprint(clip)
        with self._lock:
            self._refresh()
            query = "SELECT path FROM pictures WHERE record != '' AND clip IS NOT ?"
            missing = [path for (path,) in self._query(query, (mark,))]
        size = 1
        while missing:  # outside the lock: this is the slow part
            self._check_open()
            part, missing = missing[:size], missing[size:]
            begun = time.monotonic()
            vectors = _encode(clip, [named(self.folder, path) for path in part])
            seconds = time.monotonic() - begun
            size = min(2 * size, BATCH) if seconds < BATCH_SECONDS / 2 else max(1, size // 2)
            found = [b"" if vector is None else vector.tobytes() for vector in vectors]
            with self._lock:
                self._check_open()
                self._keep([(mark, *pair) for pair in zip(found, part, strict=True)])
        with self._lock:
            query = "SELECT path, modified, record, vector FROM pictures WHERE record != '' AND clip = ? AND vector != x''"
            rows = self._query(query, (mark,))
        usual = Counter(len(row[3]) for row in rows).most_common(1)
        entries = [
            (entry, np.frombuffer(row[3], np.float32))
            for row in rows
            if len(row[3]) == usual[0][0] and (entry := self._entry_or_none(*row[:3]))
        ]
        if not entries:
            return [], np.zeros((0, 1))
        return [entry for entry, _ in entries], np.stack([vector for _, vector in entries])

    def _keep(self, rows: list[tuple[str, bytes, str]]) -> None:
        """Remember vectors: what made each, the vector's bytes (none: it cannot be opened) and the file."""

        def keep(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.executemany("UPDATE pictures SET clip = ?, vector = ? WHERE path = ?", rows)

        self._index.run(keep)

    def _query(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        self._check_open()
        return self._index.run(lambda db: db.execute(query, values).fetchall())

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise BadInput("app.closing")

    def _record_text(self, path: str) -> str:
        """The record in a file as JSON, empty when there is none that can be believed."""
        self._check_open()
        try:
            record = record_from_json(read_texts(named(self.folder, path)).get("atelier", ""))
            text = json.dumps(asdict(record), ensure_ascii=False)
            return text.encode("utf-8", "replace").decode()  # half of a pair could not be shown
        except BadInput:
            return ""
        except Exception:  # whatever is wrong with one file, the others are shown
            log.exception("the record of %r cannot be read", path)
            return ""

    def _entries(self, rows: Iterable[tuple[Any, ...]]) -> list[Entry]:
        return [entry for row in rows if (entry := self._entry_or_none(*row))]

    def _entry_or_none(self, path: str, modified: int, record: str) -> Entry | None:
        with suppress(TypeError, ValueError):  # the row is damaged
            return self._entry(path, modified, record)
        return None

    def _entry(self, path: str, modified: int, record: str) -> Entry:
        record_of = Record(**json.loads(record))
        marks = self._marks.get(path, Marks())
        return Entry(path, named(self.folder, path), modified / 1e9, path, record_of, marks=marks)


def _png_files(folder: Path) -> Iterable[tuple[str, tuple[int, int]]]:
    """The PNG files under a folder and in folders linked into it: name -> (nanoseconds of the last change, bytes).

    A name is the path from the folder, as text that can be shown. Links that lead back are not followed.
    """
    seen: set[tuple[int, int]] = set()
    for top, folders, names in os.walk(folder, followlinks=True):
        above = Path(top).relative_to(folder)
        try:
            place = os.stat(top)
        except OSError:  # deleted just now
            continue
        if (place.st_dev, place.st_ino) in seen or len(above.parts) >= MOST_DEPTH:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (above.parts or name not in NOT_PICTURES)
        )
        for name in names:
            if not name.endswith(".png") or name.startswith("."):
                continue
            with suppress(OSError, UnicodeError):  # deleted just now; a name that is no text at all
                state = os.stat(os.path.join(top, name))
                path = shown_name((above / name).as_posix())
                if stat.S_ISREG(state.st_mode):
                    yield path, (min(state.st_mtime_ns, 2**63 - 1), state.st_size)


def _nearest(entries: list[Entry], scores: np.ndarray, count: int) -> list[tuple[Entry, float]]:
    """The entries of the highest scores, best first, without those deleted meanwhile."""
    best = [(entries[index], float(scores[index])) for index in np.argsort(-scores, kind="stable")]
    return [pair for pair in best[: 2 * count] if pair[0].path.is_file()][:count]


def as_shown(source: str | Path) -> Image.Image:
    """A picture, by its path or data URI, as CLIP is shown it: its middle, small. BadInput when it cannot be opened."""
    return fit_square(on_white(open_picture(source)), SIDE)


@torch.no_grad()
def vectors_of(clip: ClipLike, shown: list[Image.Image]) -> Tensor:
    """(n, d) unit vectors of pictures as CLIP is shown them."""
    return clip.encode_image(to_tensor(shown).to(_device(clip)))


@torch.no_grad()
def _encode(clip: ClipLike, paths: list[Path]) -> list[np.ndarray | None]:
    """One (d,) float32 unit vector for each picture, None for those that cannot be opened."""
    shown = []
    for path in paths:
        try:
            shown.append(as_shown(path))
        except BadInput:
            shown.append(None)
    good = [picture for picture in shown if picture is not None]
    vectors = iter(vectors_of(clip, good).float().cpu().numpy() if good else ())
    return [None if picture is None else next(vectors) for picture in shown]


@torch.no_grad()
def _fingerprint(clip: ClipLike) -> str:
    """Tells one CLIP's vectors from another's, by what it makes of a fixed picture."""
    slope = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    vector = clip.encode_image(torch.cat([slope, -slope.mT]).to(_device(clip))).float().cpu().numpy()
    return hashlib.sha256(
        np.round(vector, 2).astype(np.float32).tobytes() + str(vector.shape).encode()
    ).hexdigest()[:16]


def _device(clip: ClipLike) -> torch.device:
    """Where a CLIP's weights are; the CPU when it has none."""
    return (
        next((parameter.device for parameter in clip.parameters()), torch.device("cpu"))
        if isinstance(clip, nn.Module)
        else torch.device("cpu")
    )
