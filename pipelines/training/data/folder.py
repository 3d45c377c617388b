"""A user's folder of pictures, checked and made into a data file: once, and again only when the folder has changed.

A picture is kept as SIZE x SIZE RGBA: the largest centred square of one that fills its frame, the whole of one that is cut
out. Which pictures are held out for validation is said by a hash of their pixels, so that a picture is always on the same
side, whatever else the folder has.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image, ImageDraw, ImageOps

from pipelines.core.sheet import write_label
from pipelines.errors import BadInput, Message
from pipelines.io.files import home_path, write_atomically
from pipelines.io.images import fit_square, on_white, open_picture
from pipelines.training.data.dataset import OPAQUE, Dataset, data_bytes
from pipelines.training.data.icons import SIZE, Icon
from pipelines.training.data.sources import Found, Reading, Skipped, files_of, pictures_in
from pipelines.training.data.tars import SAMPLE, sample_of_tars

CACHE = Path("runs/data")  # where data files of folders are kept
HELD_OUT = 10  # one in so many pictures is held out
FEWEST, FEW = 8, 100  # pictures that a training needs at least; below which it learns them by heart
SMALLEST = 16  # pixels of a picture's shorter side
MEMORY_SHARE = 0.5  # of the free memory that pictures may take
NOT_STATED = "not stated: the user's own pictures"
FORM = 2  # of the files kept; a change reads every folder again
COMMON, LONGEST_WORD = 12, 24  # words that are told, and letters that they have
SHEET_COLUMNS, SHEET_ROWS, LABEL = 8, 5, 18
WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\d_\u4e00-\u9fff]+")


@dataclass(frozen=True)
class Check:
    """What a folder has, what of it is skipped and why, and where the data file and a sheet to look at were written.

    Sizes are (width, height) in pixels, by their area. `sources` counts pictures by where their captions come from: a
    table's name, "txt", "tar", or "names" of files and folders. `captions` counts different ones, `words` different words.
    """

    folder: Path
    file: Path  # the data file
    sheet: Path  # a PNG of some pictures with their captions
    hash: str  # of pictures and captions, as it stands in the card of what is trained on them
    pictures: int
    held_out: int  # of them, for validation
    transparent: int  # of them, cut out
    enlarged: int  # of them, with a side below SIZE
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    sources: dict[str, int]
    captions: int
    chinese: int  # pictures with a Chinese caption
    shortened: int  # captions that were longer than is read
    words: int
    common: tuple[str, ...]  # the commonest words, commonest first
    skipped: tuple[Skipped, ...] = field(default=())
    tars: int = 0  # of a stream, of which all this is told of a sample
    tar_bytes: int = 0

    def sentences(self) -> list[Message]:
        """What is told of it, a line each; what is skipped not among them."""
        smallest, median, largest = self._sizes()
        size = f"{self.tar_bytes / 1e9:,.1f}"
        lines = [Message("training.check_tars", {"tars": self.tars, "gigabytes": size})] if self.tars else []
        lines += [
            Message("training.check_pictures", {"pictures": self.pictures, "held_out": self.held_out}),
            Message("training.check_sizes", {"smallest": smallest, "median": median, "largest": largest}),
            Message("training.check_captions", {"captions": self.captions, "words": self.words}),
        ]
        lines += [_told_of(source, count) for source, count in self.sources.items()]
        if self.common:
            lines.append(Message("training.check_common", {"words": ", ".join(self.common)}))
        if self.transparent:
            lines.append(Message("training.check_transparent", {"count": self.transparent}))
        if self.enlarged:
            lines.append(Message("training.check_enlarged", {"count": self.enlarged}))
        if self.chinese:
            lines.append(Message("training.check_chinese", {"count": self.chinese}))
        if self.shortened:
            lines.append(Message("training.check_shortened", {"count": self.shortened}))
        if self.pictures < FEW:
            lines.append(Message("training.check_few", {"few": FEW}))
        if self.skipped:
            lines.append(Message("training.check_skipped", {"count": len(self.skipped)}))
        return lines

    def _sizes(self) -> list[str]:
        return [f"{width} x {height}" for width, height in (self.smallest, self.median, self.largest)]

    def to_json(self) -> dict[str, Any]:
        """As plain values, with the sentences in both languages."""
        skipped = [
            {
                "name": one.name,
                **one.problem.to_json(),
                "en": one.problem.text(),
                "zh": one.problem.text("zh"),
            }
            for one in self.skipped
        ]
        sentences = [{"en": one.text(), "zh": one.text("zh")} for one in self.sentences()]
        paths = {name: str(getattr(self, name)) for name in ("folder", "file", "sheet")}
        return {**asdict(replace(self, skipped=())), **paths, "skipped": skipped, "sentences": sentences}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Check:
        """What `to_json` gave."""
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        values.pop("sentences")
        skipped = tuple(Skipped(one["name"], Message.from_json(one)) for one in values["skipped"])
        paths = {name: Path(values[name]) for name in ("folder", "file", "sheet")}
        return cls(**{**values, **paths, "skipped": skipped})

    @classmethod
    def of_data_file(cls, file: Path) -> Check | None:
        """The check that a data file was made by, which lies beside it. None for other files."""
        facts = file.with_suffix(".json")
        try:
            return replace(cls.from_json(json.loads(facts.read_text("utf-8"))), file=file)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None


def _told_of(source: str, count: int) -> Message:
    """How many captions come from a source, as `Found` names it."""
    return {
        "captions.jsonl": Message("training.check_from_captions_jsonl", {"count": count}),
        "metadata.jsonl": Message("training.check_from_metadata_jsonl", {"count": count}),
        "metadata.csv": Message("training.check_from_metadata_csv", {"count": count}),
        "txt": Message("training.check_from_txt", {"count": count}),
        "tar": Message("training.check_from_tar", {"count": count}),
        "names": Message("training.check_from_names", {"count": count}),
    }[source]


def check(
    folder: str | Path,
    cache: Path = CACHE,
    tell: Callable[[int, int], None] | None = None,
    licence: str = "",
    tars: Sequence[Path] = (),
) -> Check:
    """Read a folder of pictures, or one tar, and write its data file and its sheet into `cache`.

    A folder that has not changed since is not read again. `tell` is called now and then with how many files are done, and
    of how many. `licence` is what the pictures are under, kept in the file. Of `tars`, which `folder` names, a sample is
    read. BadInput when there is no such folder, when it changes meanwhile, when fewer than FEWEST pictures can be used,
    or when they do not fit into memory.
    """
    folder, reading = Path(os.path.abspath(home_path(folder))), Reading()
    files = list(tars) or files_of(folder, reading)
    key = _fingerprint(folder, files, licence, "sample" if tars else "")
    facts = cache / f"{key}.json"
    if facts.is_file() and (cache / f"{key}.safetensors").is_file():
        return Check.from_json(json.loads(facts.read_text("utf-8")))
    found = sample_of_tars(tars, reading) if tars else pictures_in(folder, files, reading)
    kept = _kept(found, reading, SAMPLE if tars else len(files), tell or _silent)
    if _fingerprint(folder, files, licence, "sample" if tars else "") != key:
        raise BadInput("training.folder_changed", folder=folder)
    if len(kept) < FEWEST:
        advice = Message("training.add_pictures")
        if reading.skipped:
            advice = Message("training.first_skipped", {"problem": reading.skipped[0].problem})
        raise BadInput(
            "training.folder_too_few", folder=folder, pictures=len(kept), least=FEWEST, advice=advice
        )
    held_out = _held_out([one.digest for one in kept])
    icons = [Icon("", one.captions[0], tuple(one.captions[1:])) for one in kept]
    data = data_bytes([one.webp for one in kept], icons, (), held_out, licence or NOT_STATED)
    write_atomically(cache / f"{key}.safetensors", data)
    write_atomically(cache / f"{key}.png", _sheet(kept))
    result = _told(folder, cache / key, kept, int(held_out.sum()), reading)
    result = replace(result, tars=len(tars), tar_bytes=sum(path.stat().st_size for path in tars))
    write_atomically(facts, json.dumps(result.to_json(), ensure_ascii=False, indent=1).encode())
    return result


def _silent(done: int, total: int) -> None:
    """Nobody asked."""


def _fingerprint(folder: Path, files: list[Path], licence: str, *more: str) -> str:
    """A folder's name and a hash of its files' names, sizes and times."""
    digest = hashlib.sha256(json.dumps([FORM, str(folder), licence, *filter(None, more)]).encode())
    for path in files:
        with suppress(OSError):  # it is gone
            facts = path.stat()
            digest.update(os.fsencode(path) + f"\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    name = re.sub(r"[^a-z0-9]+", "-", folder.stem.lower()).strip("-")[:24] or "folder"
    return f"{name}-{digest.hexdigest()[:12]}"


# ----------------------------------------------------------------------------------------------------------- pictures


@dataclass
class Kept:
    """A picture as it is learned from."""

    name: str
    webp: bytes
    digest: str  # of its pixels
    size: tuple[int, int]
    cut_out: bool
    captions: list[str]
    source: str
    shortened: int


def _kept(
    found: Iterator[Found], reading: Reading, total: int, tell: Callable[[int, int], None]
) -> list[Kept]:
    """The pictures that can be used; others, and those that are there already, are told to `reading`."""
    known: dict[str, Kept] = {}
    most = int(MEMORY_SHARE * psutil.virtual_memory().available) // (4 * SIZE * SIZE)
    for number, one in enumerate(found):
        tell(min(number, total), total)
        try:
            size, square = opened_square(one.picture)
        except BadInput as problem:
            reading.skip(one.name, problem)
            continue
        digest = hashlib.sha256(square.tobytes()).hexdigest()
        if digest in known:  # what it is called stays
            same = known[digest]
            if (one.source == "names") == (same.source == "names"):
                same.captions += [text for text in one.captions if text not in same.captions]
            elif same.source == "names":
                same.captions, same.source = list(one.captions), one.source
            reading.skip(one.name, Message("training.picture_again", {"other": same.name}))
            continue
        if len(known) == most:
            raise BadInput("training.folder_too_large", most=most)
        cut_out = bool(np.asarray(square)[..., 3].min() < OPAQUE)
        known[digest] = Kept(
            one.name, _webp(square), digest, size, cut_out, list(one.captions), one.source, one.shortened
        )
    return list(known.values())


def opened_square(source: Path | bytes) -> tuple[tuple[int, int], Image.Image]:
    """A picture's (width, height), and itself as `squared` gives it. BadInput when nothing can be learned from it."""
    picture = open_picture(source)
    if min(picture.size) < SMALLEST:
        raise BadInput("training.picture_tiny", width=picture.width, height=picture.height, least=SMALLEST)
    square = squared(picture)
    if not np.asarray(square)[..., 3].any():
        raise BadInput("training.picture_empty")
    return picture.size, square


def squared(picture: Image.Image) -> Image.Image:
    """A picture as SIZE x SIZE RGBA: its largest centred square, or the whole of it where it is cut out."""
    if picture.mode == "RGBA" and np.asarray(picture)[..., 3].min() < OPAQUE:
        return ImageOps.pad(picture, (SIZE, SIZE), Image.Resampling.LANCZOS, color=(0, 0, 0, 0))
    return fit_square(picture.convert("RGB"), SIZE).convert("RGBA")


def _webp(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=True, quality=50, method=2)
    return file.getvalue()


def _held_out(digests: list[str]) -> np.ndarray:
    """(pictures,) bool: one in HELD_OUT by its own hash; at least one, and of a small folder not many more."""
    numbers = np.array([int(digest[:12], 16) for digest in digests])
    chosen = numbers % HELD_OUT == 0
    most = max(1, len(numbers) * 3 // (2 * HELD_OUT))
    first = np.zeros(len(numbers), bool)
    first[np.lexsort((numbers, ~chosen))[:most]] = True
    return first & chosen if chosen.any() else first


# --------------------------------------------------------------------------------------------------------- what is told


def _told(folder: Path, stem: Path, kept: list[Kept], held_out: int, reading: Reading) -> Check:
    captions = [caption for one in kept for caption in one.captions]
    words = Counter(word for caption in captions for word in set(WORD.findall(caption.casefold())))
    sizes = sorted((one.size for one in kept), key=lambda size: size[0] * size[1])
    file = stem.with_name(stem.name + ".safetensors")
    return Check(
        folder=folder,
        file=file,
        sheet=stem.with_name(stem.name + ".png"),
        hash=Dataset(file).hash,
        pictures=len(kept),
        held_out=held_out,
        transparent=sum(one.cut_out for one in kept),
        enlarged=sum(min(one.size) < SIZE for one in kept),
        smallest=sizes[0],
        median=sizes[len(sizes) // 2],
        largest=sizes[-1],
        sources=dict(Counter(one.source for one in kept)),
        captions=len(set(captions)),
        chinese=sum(
            any("\u4e00" <= letter <= "\u9fff" for text in one.captions for letter in text) for one in kept
        ),
        shortened=sum(one.shortened for one in kept),
        words=len(words),
        common=tuple(
            word
            for word, _ in words.most_common(COMMON + 20)
            if 2 < len(word) <= LONGEST_WORD or word > "\u4dff"
        )[:COMMON],
        skipped=tuple(reading.skipped),
    )


def _sheet(kept: list[Kept]) -> bytes:
    """A PNG of up to SHEET_COLUMNS x SHEET_ROWS pictures, evenly from all, on white, each with its caption under it."""
    count = min(len(kept), SHEET_COLUMNS * SHEET_ROWS)
    chosen = [kept[k * len(kept) // count] for k in range(count)]
    rows = -(-count // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * (SIZE + 8), rows * (SIZE + LABEL + 8)), "white")
    pen = ImageDraw.Draw(sheet)
    for k, one in enumerate(chosen):
        left, top = k % SHEET_COLUMNS * (SIZE + 8) + 4, k // SHEET_COLUMNS * (SIZE + LABEL + 8) + 4
        sheet.paste(on_white(Image.open(io.BytesIO(one.webp), formats=["WEBP"])), (left, top))
        write_label(pen, (left, top + SIZE + 2), one.captions[0], 12, SIZE, "la")
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
