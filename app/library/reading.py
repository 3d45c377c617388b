"""Reading what a picture's file says, without decoding a pixel; looking at its pixels once, for all that needs them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from app.library.entry import Foreign
from app.library.facts import FileFacts
from app.library.foreign import read_foreign, texts_of
from app.library.seeing import look_of, shown
from app.library.thumbnails import THUMBNAIL, small
from pipelines.core.record import Record, record_from_json
from pipelines.errors import BadInput
from pipelines.io.images import URI_HEAD, fit_square, open_picture, read_bytes

PICTURE = re.compile(r"data:image/(?:png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}")
MOST_TEXT = 4000  # characters of a picture that are searched
NOT_PARENTS = ("mask", "masks")  # settings whose pictures are no pictures that anything was made from

log = logging.getLogger(__name__)


def content_of(data: bytes) -> bytes:
    """What a file is known by: 12 bytes of its hash."""
    return hashlib.blake2b(data, digest_size=12).digest()


def read_file(file: Path, name: str, state: tuple[int, int], own: bool) -> FileFacts:
    """The facts of one file. `own` says that it lies in the folder of the pictures made here."""
    try:
        data = read_bytes(file)
    except BadInput as problem:
        return FileFacts(
            name, *state, content_of(repr((name, state)).encode()), problem=problem.message.to_text()
        )
    content = content_of(data)
    try:
        texts = texts_of(data)
        record = _record(texts)
        if record is not None:
            return _made(record, FileFacts(name, *state, content))
        if own:
            return FileFacts(name, *state, content)
        return _foreign(read_foreign(texts), FileFacts(name, *state, content))
    except BadInput as problem:
        return FileFacts(name, *state, content, problem=problem.message.to_text())
    except Exception:  # whatever is wrong with one file, the others are shown
        log.exception("%r cannot be read", name)
        return FileFacts(name, *state, content, problem=BadInput("library.unreadable").message.to_text())


def read_record_of(file: Path) -> tuple[Record | None, Foreign | None]:
    """The record in a picture, or another program's; neither where there is none. BadInput when it cannot be read."""
    texts = texts_of(read_bytes(file))
    record = _record(texts)
    return record, None if record is not None else read_foreign(texts)


def _record(texts: dict[str, str]) -> Record | None:
    try:
        return record_from_json(texts["atelier"]) if "atelier" in texts else None
    except BadInput:
        return None


def _made(record: Record, bare: FileFacts) -> FileFacts:
    settings, picture = record.settings, record.picture
    prompt = _plain(settings.get("prompt", ""))
    run = json.dumps([record.pipeline, settings, record.models], sort_keys=True, default=str)
    score = picture.get("score")
    return _with(
        bare,
        kind="made",
        tool=_plain(record.pipeline),
        seed=str(picture["seed"]),
        model=_plain(next(iter(record.models.values()), {"name": record.pack})["name"]),
        text=prompt,
        wording=_wording(prompt),
        score=None if score is None else float(score),
        run=hashlib.blake2b(run.encode("utf-8", "replace"), digest_size=8).digest(),
    )


def _foreign(found: Foreign | None, bare: FileFacts) -> FileFacts:
    if found is None:
        return _with(bare, kind="plain")
    return _with(
        bare, kind="foreign", tool=found.tool, seed=found.seed, model=found.model, text=found.text,
        wording=_wording(found.prompt or found.text),
    )  # fmt: skip


def _with(bare: FileFacts, text: str = "", **values: Any) -> FileFacts:
    """The facts with their text as it is searched: casefolded, the file's name too."""
    words = f"{text}\n{Path(bare.path).stem}".casefold()[:MOST_TEXT]
    return FileFacts(bare.path, bare.modified, bare.bytes, bare.content, text=words, **values)


def _plain(value: Any) -> str:
    """A value of a record as text that a database takes."""
    return str(value).encode("utf-8", "replace").decode()[:MOST_TEXT]


def _wording(prompt: str) -> int:
    """A number for each prompt; 0 for none."""
    words = " ".join(prompt.casefold().split())
    return zlib.crc32(words.encode("utf-8", "replace")) if words else 0


# ----------------------------------------------------------------------------------------------------------- pixels


@dataclass(frozen=True)
class Look:
    """What was seen of a picture: as CLIP is shown it, small as WebP, how it looks, and the looks of what it was given.

    `look` is that of the whole picture, and behind it for one that is no square that of its middle.
    """

    content: bytes
    picture: Image.Image | None = None
    small: bytes = b""
    look: bytes = b""
    given: tuple[tuple[str, bytes], ...] = ()
    problem: BadInput | None = None
    gone: bool = False  # the file was not there any more, which says nothing of its content


def look_at(file: Path, content: bytes, thumbnail: bool = True) -> Look:
    """Decode a picture once; `small` is empty without `thumbnail`. Its `problem` says when it cannot be."""
    try:
        data = read_bytes(file)
        picture = open_picture(data)
        webp = small(picture) if thumbnail else b""
        look = look_of(picture)
        if picture.width != picture.height:  # runs on a square canvas are given its middle
            look += look_of(fit_square(picture, min(THUMBNAIL, *picture.size)))
        return Look(content, shown(picture), webp, look, tuple(_given(data)))
    except BadInput as problem:
        return Look(content, problem=problem, gone=not file.is_file())
    except Exception:  # whatever is wrong with one file, the others are seen
        log.exception("%r cannot be seen", file.name)
        return Look(content, problem=BadInput("library.unreadable"))


def _given(data: bytes) -> list[tuple[str, bytes]]:
    """The looks of the pictures in a record's settings, by the setting's name."""
    record = _record(texts_of(data)) if b"atelier" in data else None
    looks: list[tuple[str, bytes]] = []
    for name, value in record.settings.items() if record else ():
        if name in NOT_PARENTS or not isinstance(value, str) or URI_HEAD not in value:
            continue
        for number, found in enumerate(PICTURE.finditer(value)):
            if len(looks) >= 16:
                break
            try:
                looks.append(
                    (name if number == 0 else f"{name} {number + 1}", look_of(open_picture(found[0])))
                )
            except BadInput:
                continue
    return looks
