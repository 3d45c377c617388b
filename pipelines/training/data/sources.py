"""Where a folder's pictures and captions come from. Nothing is opened as a picture here, and nothing is unpacked to disk.

* pictures with a .txt or .caption of the same name beside them (1.txt or 1.jpg.txt), one caption a line;
* captions.jsonl, metadata.jsonl and metadata.csv, in any folder, whose rows name pictures of that folder (metadata as in
  the Hub's ImageFolder);
* tars of webdataset, whose members of one name belong together: KEY.jpg with KEY.txt, KEY.caption or KEY.json;
* without any of these, the words of the file's name and of its folder's.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipelines.errors import BadInput, CodedError, Message, one_line, reason_of
from pipelines.io.files import shown_name
from pipelines.io.folders import PICTURES
from pipelines.io.images import MAX_BYTES
from pipelines.io.tables import rows_of
from pipelines.io.values import is_dict, is_list, json_lines
from pipelines.io.visible import visible

TABLES = ("captions.jsonl", "metadata.jsonl", "metadata.csv")  # a picture's first row of these counts
NAME_COLUMNS = ("file_name", "file", "filename", "image", "path", "name")
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description", "label")
TEXTS = (".txt", ".caption")  # that lie beside a picture
READ_PICTURES = (*PICTURES, ".jfif")
OTHER_PICTURES = (
    *(".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".ico", ".tga"),
    *(".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw"),
)
ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".parquet")
READ = (*READ_PICTURES, *TEXTS, ".json")  # of a tar
TAR_BLOCK = 512  # bytes
MOST_CAPTIONS = 20  # of one picture
MOST_CHARACTERS = 300  # of a caption; CLIP reads 32 tokens
MOST_TEXT_BYTES = 1_000_000  # of a text beside a picture
MOST_TABLE_BYTES = 500_000_000
CAMERA = re.compile(
    r"(?i)^(img|dsc[fn]?|pxl|mvi|image|picture|photo|pic|screenshot|untitled|unnamed|download|file|p)$"
)
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True)
class Skipped:
    """What a folder has that is not learned from: its name below the folder, and why."""

    name: str
    problem: Message


@dataclass(frozen=True)
class Found:
    """A picture before it is opened: its name below the folder, its path or its bytes, and what it is said to show.

    `source` tells where the captions come from: the name of a table, "txt", "tar", or "names". `shortened` counts captions
    that were longer than MOST_CHARACTERS. `end` is the byte of its tar behind its members.
    """

    name: str
    picture: Path | bytes
    captions: tuple[str, ...]
    source: str
    shortened: int = 0
    end: int = 0


@dataclass
class Reading:
    """What was found wrong on the way, in order."""

    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, name: str, problem: CodedError | Message) -> None:
        self.skipped.append(Skipped(name, problem if isinstance(problem, Message) else problem.message))


def files_of(folder: Path, reading: Reading) -> list[Path]:
    """All files below a folder, or the folder itself where it is a file, in natural order: 2 before 10.

    Hidden ones are left out, such as the "._1.png" of a Mac. Links to folders are not followed; they, broken links and
    what cannot be looked into are told to `reading`. BadInput when there is no such folder.
    """

    def closed(error: OSError) -> None:
        reading.skip(_name(folder, Path(error.filename)), _unreadable(error))

    try:
        if folder.is_file():
            return [folder]
        there = folder.is_dir()
    except OSError:  # a name that is too long for any
        there = False
    if not there:
        raise BadInput("training.folder_missing", folder=str(folder)[:200])
    paths: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        for path in (Path(place, name) for name in folders):
            if path.is_symlink():
                reading.skip(_name(folder, path), Message("training.folder_link"))
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            try:
                if path.is_file():
                    paths.append(path)
                elif path.is_symlink():
                    path.stat()  # which says what is wrong with it
            except OSError as error:  # a folder that tells names alone
                closed(error)
    return sorted(paths, key=lambda path: _natural(path.relative_to(folder)))


def pictures_in(folder: Path, files: Iterable[Path], reading: Reading) -> Iterator[Found]:
    """Every picture of these files of the folder, in order, with its captions; what is no use is told to `reading`."""
    files = list(files)
    tables = _tables(folder, files, reading)
    texts = {_key(path): path for kind in reversed(TEXTS) for path in files if path.suffix.lower() == kind}
    for path in files:
        name, ending = _name(folder, path), path.suffix.lower()
        if ending == ".tar":
            yield from pictures_in_tar(path, name, reading)
        elif ending in OTHER_PICTURES:
            reading.skip(name, Message("training.picture_form", {"form": ending}))
        elif ending in ARCHIVES:
            reading.skip(name, Message("training.archive_form", {"form": ending}))
        elif ending in READ_PICTURES:
            source, captions = tables.pop(str(path), ("", ()))
            text = texts.get(_key(path)) or texts.get(str(path).casefold())
            if not (found := clean_captions(captions)).captions and text:
                source, found = "txt", clean_captions(_lines_of(text, _name(folder, text), reading))
            if not found.captions:
                source, found = "names", clean_captions(words_of_name(Path(name), folder.name))
            yield Found(name, path, found.captions, source, found.shortened)
    for path, (source, _) in tables.items():
        missing = Message("training.row_without_picture", {"table": source})
        reading.skip(_name(folder, Path(path)), missing)


# ----------------------------------------------------------------------------------------------------------- captions


@dataclass(frozen=True)
class Captions:
    """Captions fit for a training, and how many of them were cut."""

    captions: tuple[str, ...]
    shortened: int = 0


def clean_captions(texts: Iterable[str]) -> Captions:
    """The captions of a picture as single lines of at most MOST_CHARACTERS, each once, at most MOST_CAPTIONS of them.

    Control characters and breaks become spaces; characters that cannot be seen are left out.
    """
    captions: dict[str, None] = {}
    shortened = 0
    for text in texts:
        plain = "".join(letter if letter.isprintable() else " " for letter in visible(text))
        words = " ".join(plain.split())
        if len(words) > MOST_CHARACTERS:
            shortened += 1
            words = words[: MOST_CHARACTERS + 1]
            words = words.rsplit(" ", 1)[0] if " " in words else words[:MOST_CHARACTERS]
        if words and len(captions) < MOST_CAPTIONS:
            captions[words] = None
    return Captions(tuple(captions), shortened)


def words_of_name(name: Path, folder: str = "") -> tuple[str, ...]:
    """What a picture is called: the words of its file's name, else of the nearest folder's that has words.

    Both, as two captions, where both have them. Numbers and what cameras write (IMG_2041) are no words. ("picture",)
    when there is no word at all.
    """
    own = _words(name.stem)
    folders = [words for part in reversed(name.parts[:-1]) if (words := _words(part))]
    found = [words for words in (own, *folders[:1]) if words]
    return tuple(found) or (_words(Path(folder).stem) or "picture",)


def _words(name: str) -> str:
    words = WORD.findall(name)
    return " ".join(words) if any(not CAMERA.match(word) for word in words) else ""


def decoded(data: bytes, file: str) -> str:
    """The text of a file in UTF-8 or, with its mark, UTF-16. BadInput for anything else."""
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError:
        raise BadInput("training.text_not_utf8", file=file) from None


def _lines_of(path: Path, name: str, reading: Reading) -> list[str]:
    try:
        return decoded(_read(path, MOST_TEXT_BYTES), name).splitlines()
    except BadInput as problem:
        reading.skip(name, problem)
        return []


def _unreadable(error: OSError) -> Message:
    return Message("training.file_unreadable", {"reason": reason_of(error)})


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadInput.of(_unreadable(error)) from None
    if len(data) > most:
        raise BadInput("training.file_too_large", most=most // 10**6)
    return data


# ------------------------------------------------------------------------------------------------------------- tables


def _tables(folder: Path, files: list[Path], reading: Reading) -> dict[str, tuple[str, list[str]]]:
    """A picture's path -> the table that names it first, and the captions of all its rows there."""
    rows: dict[str, tuple[str, list[str]]] = {}
    for kind in TABLES:
        for path in (path for path in files if path.name.lower() == kind):
            name, columns = _name(folder, path), set[str]()
            for number, row in _rows(path, name, reading):
                columns |= row.keys()
                picture = next((row[key] for key in NAME_COLUMNS if isinstance(row.get(key), str)), "")
                if not picture:
                    reading.skip(f"{name}:{number}", Message("training.row_without_name"))
                    continue
                place = os.path.normpath(path.parent / picture.replace("\\", "/"))
                table, captions = rows.setdefault(place, (kind, []))
                if table == kind:
                    captions += captions_of(row)
            if columns and columns.isdisjoint(TEXT_COLUMNS):
                reading.skip(name, Message("training.table_without_texts"))
    return rows


def captions_of(row: dict[str, Any]) -> list[str]:
    """The texts of a row's first column that is known to hold captions and has some."""
    for key in TEXT_COLUMNS:
        value = row.get(key)
        texts = [text for text in value if isinstance(text, str)] if is_list(value) else []
        if isinstance(value, str) and value.strip():
            texts = value.splitlines()
        if texts:
            return texts
    return []


def _rows(path: Path, name: str, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with their line's number, by columns in small letters; damaged ones are told to `reading`."""
    try:
        text = decoded(_read(path, MOST_TABLE_BYTES), name)
    except BadInput as problem:
        reading.skip(name, problem)
        return
    if path.suffix.lower() == ".csv":
        yield from _rows_of_csv(text, name, reading)
        return
    for number, row in json_lines(text):
        if row is None:
            reading.skip(f"{name}:{number}", Message("training.row_damaged"))
        else:
            yield number, {key.strip().lower(): value for key, value in row.items()}


def _rows_of_csv(text: str, name: str, reading: Reading) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        rows = filter(None, rows_of(text))
        head = [column.strip().lower() for column in next(rows, [])]
        if head and set(head).isdisjoint(NAME_COLUMNS):
            reading.skip(name, Message("training.table_without_names"))
            return
        for number, cells in enumerate(rows, 2):
            yield number, dict(zip(head, cells, strict=False))
    except csv.Error as error:
        reading.skip(name, Message("training.table_damaged", {"reason": str(error)}))


# --------------------------------------------------------------------------------------------------------------- tars


def pictures_in_tar(path: Path, name: str, reading: Reading, start: int = 0) -> Iterator[Found]:
    """The pictures of a webdataset tar from byte `start` on, where a member begins. A damaged one gives those before the
    damage.

    Only pictures, texts and .json are read of it, and nothing is unpickled.
    """
    group: dict[str, bytes] = {}
    key, end = "", start
    try:
        with path.open("rb") as raw:
            raw.seek(start)
            tar = tarfile.open(fileobj=raw, mode="r:")  # noqa: SIM115  # closed with its file
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # which would grow with a tar of millions
                place, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not member.isreg() or not stem or base.startswith("."):
                    continue
                if (f"{place}/{stem}") != key:
                    yield from _sample(group, f"{name}/{key.strip('/')}", reading, member.offset)
                    group, key = {}, f"{place}/{stem}"
                ending = "." + ending.lower()
                if ending not in READ:
                    group[ending] = b""
                elif member.size > MAX_BYTES:
                    problem = Message("training.file_too_large", {"most": MAX_BYTES // 10**6})
                    reading.skip(f"{name}/{member.name}", problem)
                elif (file := tar.extractfile(member)) is not None:
                    group[ending] = file.read(MAX_BYTES)
            end = tar.offset
            raw.seek(end)
            if raw.read(TAR_BLOCK).strip(b"\0"):  # for tarfile that is an end like any other
                raise tarfile.ReadError("invalid header")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reading.skip(name, Message("training.tar_damaged", {"reason": one_line(error)}))
        with suppress(OSError):
            end = path.stat().st_size
    yield from _sample(group, f"{name}/{key.strip('/')}", reading, end)


def _sample(group: dict[str, bytes], name: str, reading: Reading, end: int) -> Iterator[Found]:
    """The picture of a group of members of one key, when it has one; what else looks like one is told to `reading`."""
    own = next((ending for ending in group if ending in READ_PICTURES), None)
    for ending in group:
        form = ending[ending.rfind(".") :]
        if form in OTHER_PICTURES and own is None:
            reading.skip(name + ending, Message("training.picture_form", {"form": form}))
        elif form in READ_PICTURES and ending != own:
            reading.skip(name + ending, Message("training.other_member"))
    if own is None:
        return
    captions: list[str] = []
    try:
        for ending in filter(group.get, TEXTS):
            captions += decoded(group[ending], name + ending).splitlines()
        if not clean_captions(captions).captions and ".json" in group:
            row = json.loads(decoded(group[".json"], f"{name}.json"))
            captions = captions_of(row) if is_dict(row) else []
    except BadInput as problem:
        reading.skip(f"{name}.txt", problem)
    except (ValueError, RecursionError):
        reading.skip(f"{name}.json", Message("training.row_damaged"))
    source, found = "tar", clean_captions(captions)
    if not found.captions:
        source, found = "names", clean_captions(words_of_name(Path(name.partition(".tar/")[2])))
    yield Found(name + own, group[own], found.captions, source, found.shortened, end)


# -------------------------------------------------------------------------------------------------------------- names


def _name(folder: Path, path: Path) -> str:
    """A file's name below the folder, fit to be shown."""
    try:
        return shown_name(path.relative_to(folder).as_posix() if path != folder else path.name)
    except (ValueError, UnicodeError):  # outside the folder, or half a character
        return ascii(path.name).strip("'")


def _key(path: Path) -> str:
    return str(path.with_suffix("")).casefold()


def _natural(path: Path) -> tuple[list[int | str], str]:
    """A sorting key by which numbers in names count as numbers."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], path.as_posix()
