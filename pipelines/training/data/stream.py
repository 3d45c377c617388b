"""Webdataset tars as an endless stream. Each reader has tars of its own, and can go on from any place.

A reader belongs to one process of the training, or to one of the workers that prepare its batches. In every epoch the tars
are shuffled and dealt to all readers. A reader shuffles what it reads in blocks of BLOCK pictures, still packed. A block
is a function of the seed and of where it begins, so a place in the stream is a few numbers (`Mark`), and no buffer is
saved.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import BadInput, Message
from pipelines.training.data.dataset import Dataset, Pictures, on_background, pixels_of
from pipelines.training.data.folder import opened_square
from pipelines.training.data.icons import SIZE, Icon
from pipelines.training.data.sources import Found, Reading, pictures_in_tar

BLOCK = 1_024  # pictures that are shuffled together
BLOCK_BYTES = 64_000_000  # that they may have; a block ends earlier then


class Mark(NamedTuple):
    """Where a reader stands, and what it has read.

    Its block begins in the tar `place` of its part of the epoch `epoch + lap` of the journey, at the byte `start`, 0 for
    where the tar's part begins. `taken` pictures of it were given.
    """

    lap: int = 0
    place: int = 0
    start: int = 0
    taken: int = 0
    samples: int = 0  # that were given
    bytes: int = 0  # of these, packed
    skipped: int = 0  # that were of no use


@dataclass
class Journey:
    """How far all readers of a stream are: the epoch in which they began, and a mark each.

    `rest` are the tars of that epoch and from which byte on, in the order in which they were dealt; None stands for all.
    `before` is what earlier numbers of readers had read: samples, bytes, and what was skipped.
    """

    tars: str  # a hash of their names
    ranks: int
    workers: int  # readers of each process
    epoch: int = 0
    rest: list[list[int]] | None = None
    before: list[int] = field(default_factory=lambda: [0, 0, 0])
    marks: list[list[int]] = field(default_factory=list[list[int]])

    def __post_init__(self) -> None:
        self.marks = self.marks or [list(Mark()) for _ in range(self.ranks * self.workers)]

    def note(self, worker: int, marks: Sequence[Sequence[int]]) -> None:
        """The marks of every process's reader of this number."""
        for rank, mark in enumerate(marks):
            self.marks[rank * self.workers + worker] = list(mark)

    def read(self) -> tuple[int, int, int]:
        """Samples, bytes, and what was skipped, of all readers since the training began."""
        samples, size, skipped = np.sum([self.before, *(mark[4:] for mark in self.marks)], 0).tolist()
        return samples, size, skipped

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Stream(Dataset):
    """The pictures of many tars. As a Dataset it is a sample of them, whose held-out pictures are never streamed."""

    def __init__(self, sample: Path, tars: Sequence[Path], seed: int, size: int = SIZE):
        """`sample` is a data file. ValueError without tars."""
        super().__init__(sample, size)
        if not tars:
            raise ValueError("a stream needs tars")
        self.tars, self.seed, self.size = tuple(tars), seed, size
        self.names = hashlib.sha256("\n".join(path.name for path in tars).encode()).hexdigest()[:16]
        self._held_out = {_digest(self.rgba[k]) for k in self.validation}

    def journey(self, ranks: int, workers: int, before: Journey | None = None) -> Journey:
        """A journey of so many readers: the same as `before`, or, where their number has changed, what that leaves.

        What the slowest reader's epoch still has is dealt anew, so nothing of it is missed; of each tar in the middle of
        which a reader stood, a block may be seen twice. Other tars begin a new epoch. BadInput for more processes than
        tars.
        """
        if len(self.tars) < ranks:
            raise BadInput("training.tars_too_few", tars=len(self.tars), processes=ranks)
        workers = max(1, min(workers, len(self.tars) // ranks))
        if before is None:
            return Journey(self.names, ranks, workers)
        if (before.tars, before.ranks, before.workers) == (self.names, ranks, workers):
            return before
        marks = [Mark(*mark) for mark in before.marks]
        if before.tars != self.names:
            later = before.epoch + 1 + max(mark.lap for mark in marks)
            return Journey(self.names, ranks, workers, later, None, list(before.read()))
        lap, rest = min(mark.lap for mark in marks), list[list[int]]()
        for reader, mark in enumerate(marks):
            part = self.part(before, lap, reader)[mark.place :] if mark.lap == lap else []
            if part and mark.start:
                part[0] = [part[0][0], mark.start]
            rest += part
        return Journey(self.names, ranks, workers, before.epoch + lap, rest, list(before.read()))

    def part(self, journey: Journey, lap: int, reader: int) -> list[list[int]]:
        """The tars of a reader in a lap, and the byte from which each is read."""
        if lap == 0 and journey.rest is not None:
            every = journey.rest
        else:
            order = np.random.default_rng((self.seed, journey.epoch + lap)).permutation(len(self.tars))
            every = [[tar, 0] for tar in order.tolist()]
        return every[reader :: journey.ranks * journey.workers]

    def opened(self, found: Found) -> np.ndarray | None:
        """A picture as (size, size, 4) uint8; None for one that is held out. BadInput for one that is of no use."""
        pixels = pixels_of(opened_square(found.picture)[1], self.size)
        return None if _digest(pixels) in self._held_out else pixels


class Reader:
    """The pictures of one reader of a journey, from its mark on."""

    def __init__(self, stream: Stream, journey: Journey, reader: int):
        self._stream, self._journey, self._reader = stream, journey, reader
        mark = self._mark = Mark(*journey.marks[reader])
        self._next = mark.lap, mark.place, mark.start
        self._block, self._order = list[Found](), list[int]()
        self._taken, self._last_use, self._problem = 0, mark.lap, Message("training.nothing_skipped")
        if mark.taken:
            self._fill()
            self._taken, self._mark = mark.taken, mark  # whose skipped ones were counted

    @property
    def mark(self) -> Mark:
        """Where it stands now."""
        if self._taken < len(self._block):
            return self._mark._replace(taken=self._taken)
        lap, place, start = self._next
        return self._mark._replace(lap=lap, place=place, start=start, taken=0)

    def read(self, count: int) -> Pictures:
        """The next `count` pictures that can be used. BadInput when there are none in all of its tars."""
        icons, pixels = list[Icon](), list[np.ndarray]()
        samples, size, skipped = self._mark[4:]
        while len(icons) < count:
            if self._taken == len(self._block):
                self._mark = self._mark._replace(samples=samples, bytes=size, skipped=skipped)
                self._fill()
                skipped = self._mark.skipped
            found = self._block[self._order[self._taken]]
            self._taken += 1
            try:
                picture = self._stream.opened(found)
            except BadInput as problem:
                skipped, self._problem = skipped + 1, problem.message
                continue
            if picture is not None:
                self._last_use = self._mark.lap
                samples, size = samples + 1, size + _size(found)
                icons.append(Icon("", found.captions[0], found.captions[1:]))
                pixels.append(picture)
        self._mark = self._mark._replace(samples=samples, bytes=size, skipped=skipped)
        return Pictures(icons, np.stack(pixels))

    def _fill(self) -> None:
        """Read the next block, over the ends of tars but not of a lap. BadInput after two laps without a picture."""
        while self._next[0] <= self._last_use + 2:
            lap, place, start = self._next
            reading = Reading()
            self._block, self._next = self._packed(lap, place, start, reading)
            skipped = self._mark.skipped + len(reading.skipped)
            self._mark = self._mark._replace(lap=lap, place=place, start=start, skipped=skipped)
            if reading.skipped:
                self._problem = reading.skipped[-1].problem
            if self._block:
                chance = (self._stream.seed, self._journey.epoch, self._reader, lap, place, start)
                self._order = np.random.default_rng(chance).permutation(len(self._block)).tolist()
                self._taken = 0
                return
        raise BadInput("training.stream_empty", tars=len(self._stream.tars), problem=self._problem)

    def _packed(
        self, lap: int, place: int, start: int, reading: Reading
    ) -> tuple[list[Found], tuple[int, int, int]]:
        """A block that begins there, and where the next one does."""
        part, block, size = self._stream.part(self._journey, lap, self._reader), list[Found](), 0
        while place < len(part):
            tar, first = part[place]
            path = self._stream.tars[tar]
            for found in pictures_in_tar(path, path.name, reading, start or first):
                block.append(found)
                size += _size(found)
                start = found.end
                if len(block) == BLOCK or size > BLOCK_BYTES:
                    return block, (lap, place, start)
            place, start = place + 1, 0
        return block, (lap + 1, 0, 0)


class Rates:
    """How fast all processes together read, since it was first asked."""

    def __init__(self) -> None:
        self._first: tuple[float, int, int] | None = None

    def of(self, journey: Journey | None) -> dict[str, float]:
        """As metrics: samples and packed megabytes a second, and what was skipped since the training began.

        {} without a journey.
        """
        if journey is None:
            return {}
        now, (samples, size, skipped) = time.perf_counter(), journey.read()
        self._first = self._first or (now, samples, size)
        seconds = max(now - self._first[0], 1e-9)
        rates = (samples - self._first[1]) / seconds, (size - self._first[2]) / seconds / 1e6
        return dict(zip(("samples/s", "MB/s", "skipped"), (*rates, float(skipped)), strict=True))


def _size(found: Found) -> int:
    return len(found.picture) if isinstance(found.picture, bytes) else 0


def _digest(rgba: np.ndarray) -> bytes:
    """Of what can be seen of a picture."""
    seen = rgba[..., :3] if rgba[..., 3].min() == 255 else on_background(rgba)
    return hashlib.blake2b(seen.tobytes(), digest_size=16).digest()
