"""The pictures made: found in the outputs folder, read by their records, searched by what is in them with CLIP.

The files are the truth. `library.sqlite` beside them only remembers what was read and each picture's CLIP vector; it
may be deleted at any time and is filled again from the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from app.jobs.threads import run_in_own_thread
from pipelines.core.record import Record, read_texts, record_from_json
from pipelines.errors import BadInput
from pipelines.io.files import cannot_save
from pipelines.io.images import fit_square, on_white, open_picture, to_tensor

SIDE = 224  # pixels; what CLIP is shown of a picture
BATCH = 32


@dataclass(frozen=True)
class Entry:
    """One picture that was made here. `id` is its file's name without the ending."""

    id: str
    path: Path
    modified: float  # seconds since 1970
    record: Record

    @property
    def prompt(self) -> str:
        return str(self.record.settings.get("prompt", ""))


class ClipLike(Protocol):
    """What the library needs of CLIP: unit vectors of texts and pictures."""

    def encode_text(self, prompts: list[str]) -> Tensor: ...

    def encode_image(self, images: Tensor) -> Tensor: ...


class Library:
    """The PNG files with a record in `folder` and its subfolders. Any thread may call it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self._lock = threading.RLock()
        path = self.folder / "library.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._db = self._open(path)
            except sqlite3.DatabaseError:  # damaged: nothing is lost by beginning again
                path.unlink()
                self._db = self._open(path)
        except (OSError, sqlite3.DatabaseError) as error:
            problem = error if isinstance(error, OSError) else OSError(str(error))
            raise cannot_save(path, problem) from None

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(
            "CREATE TABLE IF NOT EXISTS pictures (path TEXT PRIMARY KEY, modified INTEGER, bytes INTEGER,"
            " record TEXT, clip TEXT, vector BLOB)"  # record: empty when the file has none of ours
        )
        return db

    def recent(self, count: int = 50, skip: int = 0) -> list[Entry]:
        """The newest pictures first, `count` of them after the first `skip`."""
        with self._lock:
            self._refresh()
            rows = self._db.execute(
                "SELECT path, modified, record FROM pictures WHERE record != ''"
                " ORDER BY modified DESC, path LIMIT ? OFFSET ?",
                (count, skip),
            )
            return [self._entry(*row) for row in rows]

    def count(self) -> int:
        """How many pictures there are."""
        with self._lock:
            self._refresh()
            return self._db.execute("SELECT count(*) FROM pictures WHERE record != ''").fetchone()[0]

    def find(self, picture_id: str) -> Entry:
        """The picture of that id; BadInput when there is none."""
        with self._lock:
            self._refresh()
            for path, modified, record in self._db.execute(
                "SELECT path, modified, record FROM pictures WHERE record != ''"
            ):
                if Path(path).stem == picture_id:
                    return self._entry(path, modified, record)
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

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ------------------------------------------------------------------------------------------ keeping the index

    def _refresh(self) -> None:
        """Bring the index up to the files: read new and changed ones, forget deleted ones."""
        known = {path: (modified, size) for path, modified, size in self._rows("path, modified, bytes")}
        there = dict(_png_files(self.folder))
        with self._db:  # one transaction
            self._db.execute("BEGIN")
            for path in known.keys() - there.keys():
                self._db.execute("DELETE FROM pictures WHERE path = ?", (path,))
            for path, state in there.items():
                if known.get(path) != state:
                    row = (path, *state, self._record_text(self.folder / path))
                    self._db.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, NULL, NULL)", row)

    def _vectors(self, clip: ClipLike) -> tuple[list[Entry], np.ndarray]:
        """All pictures and their (n, d) vectors by this CLIP; those not yet known are computed now."""
        mark = _fingerprint(clip)
        with self._lock:
            self._refresh()
            query = "SELECT path FROM pictures WHERE record != '' AND clip IS NOT ?"
            missing = [row[0] for row in self._db.execute(query, (mark,))]
        for begin in range(0, len(missing), BATCH):  # outside the lock: this is the slow part
            part = missing[begin : begin + BATCH]
            vectors = _encode(clip, [self.folder / path for path in part])
            with self._lock, self._db:
                self._db.execute("BEGIN")
                for path, vector in zip(part, vectors, strict=True):
                    row = (mark, b"" if vector is None else vector.tobytes(), path)
                    self._db.execute("UPDATE pictures SET clip = ?, vector = ? WHERE path = ?", row)
        with self._lock:
            query = "SELECT path, modified, record, vector FROM pictures WHERE record != '' AND clip = ? AND vector != x''"
            rows = self._db.execute(query, (mark,)).fetchall()
        entries = [self._entry(*row[:3]) for row in rows]
        return entries, np.stack([np.frombuffer(row[3], np.float32) for row in rows]) if rows else np.zeros(
            (0, 1)
        )

    def _rows(self, columns: str) -> Iterable[tuple[str, int, int]]:
        return self._db.execute(f"SELECT {columns} FROM pictures").fetchall()

    @staticmethod
    def _record_text(path: Path) -> str:
        """The record in a file as JSON, empty when there is none that can be believed."""
        try:
            return json.dumps(asdict(record_from_json(read_texts(path).get("atelier", ""))))
        except BadInput:
            return ""

    def _entry(self, path: str, modified: int, record: str) -> Entry:
        return Entry(Path(path).stem, self.folder / path, modified / 1e9, Record(**json.loads(record)))


def _png_files(folder: Path) -> Iterable[tuple[str, tuple[int, int]]]:
    """The PNG files under a folder: relative path -> (nanoseconds of the last change, bytes)."""
    for top, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".png") and not name.startswith("."):
                path = Path(top) / name
                try:
                    state = path.stat()
                except OSError:  # deleted just now
                    continue
                yield path.relative_to(folder).as_posix(), (state.st_mtime_ns, state.st_size)


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
