"""The door of the library: the pictures of one folder, found, searched, marked, thrown away and followed back.

The files are the truth. What lies in `library/index` only remembers what was read and seen of them; it may be deleted at
any time and is filled again. The marks and the bin beside it are the user's work. A file or folder that cannot be read
is passed over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from app.jobs.threads import run_in_own_thread
from app.library.entry import Broken, Entry, Found, Lineage, Marks, Page, Progress
from app.library.facts import SHOWN
from app.library.files import BIN, places_of
from app.library.filling import Filling
from app.library.finding import Finder
from app.library.lineage import Family
from app.library.query import Query, read_terms
from app.library.ranking import Place
from app.library.reading import read_record_of
from app.library.seeing import ClipLike, as_shown, fingerprint
from app.library.sheet import forget_zips, write_zip
from app.library.thumbnails import is_whole, small, thumbnail_file, write_thumbnail
from app.library.working import Working
from pipelines.errors import BadInput, Message
from pipelines.io.images import open_picture

# seconds that a page may spend on what is missing, before the job in the background takes over
AT_ONCE = 0.25

log = logging.getLogger(__name__)


class Library(Working):
    """The pictures of `folder` and its subfolders. Any thread may call it.

    Once `closing` is set, what reads many files or computes ends soon, with BadInput; `close` sets it. With `outputs`, the
    folder is one from elsewhere: pictures of any kind and origin are shown, nothing is written to it, and what the
    library keeps of it lies in the outputs folder. Otherwise it is the outputs folder itself, or a visitor's part of it,
    and the PNG files with a record of ours are shown.
    """

    def __init__(
        self,
        folder: str | Path,
        closing: threading.Event | None = None,
        *,
        outputs: str | Path | None = None,
    ) -> None:
        super().__init__(places_of(folder, outputs), closing or threading.Event())
        if self.own:  # an index of earlier versions
            for ending in ("", "-wal", "-shm"):
                with suppress(OSError):
                    (self.folder / f"library.sqlite{ending}").unlink(missing_ok=True)
        self._finder = Finder(self._index, self._marks.all, self._numbered)
        self._filling = Filling(self._index, self._finder.extend_graph)
        self._family: tuple[tuple[int, ...], Family] | None = None

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
            clip: Needed where `query.looks`; the job in the background asks it for vectors wherever it is given.

        Returns:
            The pictures in the query's order.

        Raises:
            BadInput: When an id is of no picture here, a given picture cannot be opened, or the studio closes.
        """
        skip, count = max(skip, 0), max(count, 1)
        if not self._catch_up(clip) and not self._filling.stopped:
            self._filling.start(clip)
        return self._page(query, skip, count, clip, told=True)

    def search(self, clip: ClipLike, text: str, count: int = 24) -> list[tuple[Entry, float]]:
        """The pictures that look most like a text, or several with weights, best first, each with its cosine.

        Nothing of the index is missing. The words of the pictures' own records do not count.
        """
        self.fill(clip)
        query = Query(terms=read_terms(text), stacked=False)
        if not query.terms:
            return []
        return _pairs(self._page(query, 0, count, clip))

    def similar(self, clip: ClipLike, path: str | Path, count: int = 24) -> list[tuple[Entry, float]]:
        """The pictures that look most like the one at `path`, which need not be in the library, without itself."""
        self.fill(clip)
        try:
            as_shown(path)
        except BadInput:
            raise BadInput("app.picture_gone", picture=Path(path).name) from None
        page = self._page(Query(given=(str(path),), stacked=False), 0, count + 1, clip)
        here = Path(path).absolute()
        return [pair for pair in _pairs(page) if pair[0].path != here][:count]

    def recent(self, count: int = 50, skip: int = 0) -> list[Entry]:
        """The newest pictures first, `count` of them after the first `skip`, none stacked."""
        self._index.refresh()
        return [found.entry for found in self._page(Query(stacked=False), skip, count, None).found]

    def count(self) -> int:
        """How many pictures there are, without those in the bin."""
        self._index.refresh()
        return int((~self._index.table().binned).sum())

    def find(self, picture_id: str) -> Entry:
        """The picture of that id, or of that file name without its ending; BadInput when there is none."""
        number, _ = self._numbered(picture_id)
        entry = self._entries([number]).get(number)
        if entry is None:
            raise BadInput("app.picture_not_in_library", picture=picture_id[:40])
        return entry

    def choices(self) -> dict[str, dict[str, int]]:
        """What can be filtered by, and how many pictures have it: {"tool": {...}, "model": {...}, "tag": {...}}."""
        found: dict[str, dict[str, int]] = {}
        for name in ("tool", "model"):
            rows = self._index.facts.query(
                f"SELECT {name}, count(*) FROM files WHERE {SHOWN} AND {name} != '' GROUP BY 1 ORDER BY 2 DESC LIMIT 100"
            )
            found[name] = dict(rows)
        here = {content.hex() for content in self._index.table().contents}
        tags = Counter(
            tag for content, marks in self._marks.all().items() if content in here for tag in marks.tags
        )
        return {**found, "tag": dict(tags.most_common(200))}

    # ------------------------------------------------------------------------------------------- one and many of them

    def lineage(self, picture_id: str) -> Lineage:
        """What a picture was made from, and what was made from it, by the records. BadInput for an unknown id.

        Pictures that the job in the background has not looked at yet are missing.
        """
        number, _ = self._numbered(picture_id)
        self._catch_up(None)
        version = self._index.facts.version()
        if self._family is None or self._family[0] != version:
            self._family = (version, Family(self._index))
        lineage = self._family[1].to_lineage(number, self._entries)
        return lineage or Lineage(self.find(picture_id))

    def thumbnail(self, picture_id: str) -> Path:
        """A WebP of at most THUMBNAIL pixels a side, made once. BadInput for an unknown id or a broken picture."""
        number, name = self._numbered(picture_id)
        content = self._index.paths([number])[number][2]
        file = thumbnail_file(self.places.thumbnails, content)
        if not is_whole(file):
            write_thumbnail(file, small(open_picture(self.places.file(name))))
        return file

    def zip_of(self, ids: Sequence[str]) -> Path:
        """A zip of pictures, with contact sheets and a list of their prompts, as a file that is kept for an hour.

        BadInput for an unknown id or too many bytes; CannotSave when the disk is full.
        """
        file = self.zip_place()
        self.write_zip(ids, file)
        return file

    def zip_place(self) -> Path:
        """Where a new zip may be written. It is kept for an hour, unless KEPT_ZIPS others come after it."""
        forget_zips(self.places.zips)
        name = f"atelier-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6:06}.zip"
        return self.places.zips / name

    def write_zip(self, ids: Sequence[str], file: Path) -> None:
        """`zip_of` to a file of the caller's; never to one that a browser names."""
        write_zip(file, [self.find(name) for name in dict.fromkeys(ids)])

    # ---------------------------------------------------------------------------------------------------- the index

    def start_index(self, clip: ClipLike | None = None) -> None:
        """Fill the index in the background, vectors too where a CLIP is given; nothing when that is running."""
        self._index.forget_walk()
        self._filling.start(clip)

    def stop_index(self) -> None:
        """Stop the job in the background after its batch. `page` does not begin it again, `start_index` does."""
        self._filling.stop()

    @run_in_own_thread
    def fill(self, clip: ClipLike | None = None, tell: Callable[[Progress], object] | None = None) -> None:
        """Fill the index and wait for it; `tell` is told how far it is. BadInput when the studio closes."""
        facts, renewed = self._index.facts, -1
        while renewed != facts.renewed:  # once more where the database had to be made anew
            renewed = facts.renewed
            self._index.refresh(
                tell=lambda done, total: tell(Progress("read", done, total)) if tell is not None else None
            )
            self._filling.see(clip, tell=tell)
        if clip is not None:
            self._finder.extend_graph(fingerprint(clip))

    def progress(self) -> Progress:
        """How far the job in the background is."""
        return self._filling.progress

    def broken(self) -> list[Broken]:
        """The files that were passed over, with the reason, by name."""
        rows = self._index.facts.query(
            "SELECT path, coalesce(files.problem, seen.problem) FROM files LEFT JOIN seen USING (content)"
            " WHERE coalesce(files.problem, seen.problem) IS NOT NULL ORDER BY path"
        )
        found: list[Broken] = []
        for name, text in rows:
            message = Message.from_text(text) or Message("library.unreadable")
            found.append(Broken(name, BadInput.of(message)))
        return found

    def close(self) -> None:
        """End what is being asked, and let go of the index."""
        self.end_soon()
        self._filling.stop(wait=2.0)
        self.done()

    def done(self) -> None:
        """Let go of the index when nothing more will be asked."""
        self._index.close()

    # -------------------------------------------------------------------------------------------------------- inside

    def _page(self, query: Query, skip: int, count: int, clip: ClipLike | None, told: bool = False) -> Page:
        """A page of what the index has now. Files that were deleted meanwhile are left out."""
        self._index.check_open()
        self._marks.all()  # what another process has noted since
        order = self._finder.order(query, clip, self._marks.changes, told, skip + count)
        places, more = order.places(skip, count)
        numbers = [int(order.table.number[at]) for place in places for at in (place.at, *place.stack)]
        entries = self._entries([int(order.table.number[place.at]) for place in places])
        names = self._index.paths(numbers)

        def found(place: Place) -> Found | None:
            entry = entries.get(int(order.table.number[place.at]))
            behind = [int(order.table.number[at]) for at in place.stack]
            stack = tuple(names[number][0] for number in behind if number in names)
            return None if entry is None else Found(entry, place.score, place.told, stack)

        shown_places = [each for place in places if (each := found(place)) is not None]
        return Page(shown_places, order.total, more, self._filling.progress)

    def _catch_up(self, clip: ClipLike | None) -> bool:
        """Bring the index up to the files as far as that goes at once. Returns whether nothing is missing."""
        until = time.monotonic() + AT_ONCE
        if self._filling.progress.stage == "read":
            return True  # it is on its way
        left = self._index.refresh(until)
        if self._filling.progress.running:
            return True
        mark = None if clip is None else fingerprint(clip)
        if not left and not self._index.unseen(mark):
            return True
        return not left and not run_in_own_thread(self._filling.see)(clip, until)

    def _entries(self, numbers: Sequence[int]) -> dict[int, Entry]:
        """Pictures by their numbers, without those that cannot be read any more."""
        marks = self._marks.all()
        found: dict[int, Entry] = {}
        for number, (name, modified, content) in self._index.paths(numbers).items():
            path = self.places.file(name)
            try:
                record, foreign = read_record_of(path)
            except BadInput:  # deleted or damaged just now
                continue
            except Exception:  # whatever is wrong with one file, the others are shown
                log.exception("%r cannot be read", name)
                continue
            noted = marks.get(content.hex(), Marks())
            found[number] = Entry(
                name, path, modified / 1e9, content.hex(), record, foreign, noted, name.startswith(BIN)
            )
        return found


def _pairs(page: Page) -> list[tuple[Entry, float]]:
    return [(found.entry, found.score) for found in page.found if found.score is not None]
