"""Record: what was run, as JSON inside every PNG. It is enough to run it again and to compare the results.

Two texts are written into the file: `atelier`, the whole record as JSON, and `parameters`, the lines that other programs
read. Records come from untrusted files, so every value is checked before it is used.
"""

from __future__ import annotations

import io
import json
import platform
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines.core.pipeline import Picture, Pipeline, Result, StudioLike
from pipelines.core.settings import Settings
from pipelines.errors import BadInput
from pipelines.io.containers import MAX_CHUNKS
from pipelines.io.files import write_atomically
from pipelines.io.formats import picture_format
from pipelines.io.images import check_size, open_untouched, read_bytes
from pipelines.io.values import is_dict, is_list

VERSION = "0.1.0"
MAX_JSON = 8_000_000  # characters; a picture given as a setting is inside, all else is a few hundred
MAX_TEXTS = 100  # of other programs in one PNG
MAX_UNPACKED = 32_000_000  # bytes of other programs' texts in one PNG, together
OURS = "atelier"
MAX_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one picture was made from. All values are JSON's."""

    pipeline: str
    pack: str
    settings: dict[str, Any]
    models: dict[str, dict[str, str]]  # role -> {"name", "sha256"}
    versions: dict[str, str]  # of atelier, python, torch and their company
    device: str
    picture: dict[str, Any]  # seed, score, rank (1 is best) and the pipeline's own facts
    created: str  # ISO 8601 with the offset of the place
    # see `environment_of`; empty before 0.2
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> str:
        """The record as JSON, in one line of ASCII. ValueError for numbers that JSON does not have, such as nan."""
        return json.dumps(asdict(self), allow_nan=False)


def record_of(
    *,
    pipeline: str,
    pack: str,
    device: str,
    models: dict[str, dict[str, str]],
    settings: Settings,
    picture: Picture,
    rank: int,
    environment: dict[str, str] | None = None,
) -> Record:
    """The record of a picture that was just made. `rank` counts from 1, the best; `environment` is the run's."""
    return Record(
        pipeline=pipeline,
        pack=pack,
        settings=settings.to_dict(),
        models=models,
        versions=versions(),
        device=device,
        picture={**picture.facts, "seed": picture.seed, "score": picture.score, "rank": rank},
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        environment=environment or {},
    )


@cache
def versions() -> dict[str, str]:
    """The versions of Atelier, Python and the libraries that determine pixels, by name. Imports none of them."""
    by_name = {"atelier": VERSION, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "tokenizers", "accelerate", "peft", "numpy", "pillow"):
        with suppress(metadata.PackageNotFoundError):
            by_name[name] = metadata.version(name)
    return by_name


# ------------------------------------------------------------------------------------------------------------ writing


def write_pictures(
    folder: Path, stem: str, *, pipeline: str, studio: StudioLike, result: Result
) -> Iterator[tuple[dict[str, Any], Record]]:
    """Write the pictures of a run with their records as `stem`-1.png, `stem`-2.png and so on, best first.

    Args:
        folder: Where to write them. It is made when it is missing.
        stem: The beginning of the files' names.
        pipeline: The name of the pipeline that made them.
        studio: The studio whose models made them.
        result: The end of the run.

    Yields:
        After each file its facts ("path", "score", "seed", "rank" and the pipeline's own) and its record.

    Raises:
        CannotSave: When a file cannot be written.
    """
    models = studio.models(pipeline)
    for rank, picture in enumerate(result.pictures, start=1):
        record = record_of(
            pipeline=pipeline,
            pack=studio.pack,
            device=result.device or studio.device,
            models=picture.models or models,
            settings=picture.settings or result.settings,
            picture=picture,
            rank=rank,
            environment=result.environment,
        )
        path = folder / f"{stem}-{rank}.png"
        write_png(path, picture.image, record)
        facts = {"path": str(path), "score": picture.score, "seed": picture.seed, "rank": rank}
        yield {**picture.facts, **facts}, record


def write_png(path: str | Path, image: Image.Image, record: Record) -> None:
    """Write a picture as PNG with its record inside, atomically. CannotSave when it cannot be written."""
    texts = PngInfo()
    texts.add_text("parameters", parameters_text(record, image.size))
    texts.add_text("atelier", record.to_json())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=texts)
    write_atomically(path, buffer.getvalue())


def without_pictures(source: str | Path | bytes) -> bytes:
    """A PNG with a record, without the pictures in its settings and without the tokens of a start picture.

    The record names the settings that were removed under `left_out` of its picture. Pixels and all other settings stay.
    Returns the file's bytes. BadInput when `source` is no PNG with a record.
    """
    data = read_bytes(source)
    texts = read_texts(data)
    record = record_from_json(texts.get("atelier", ""))
    left_out = [name for name, value in record.settings.items() if "data:image/" in str(value)]
    left_out += [name for name in ("tokens",) if record.settings.get(name)]
    settings = {name: "" if name in left_out else value for name, value in record.settings.items()}
    bare = replace(record, settings=settings, picture={**record.picture, "left_out": left_out})
    kept = PngInfo()
    kept.add_text("parameters", texts.get("parameters", ""))
    kept.add_text("atelier", bare.to_json() if left_out else record.to_json())
    buffer = io.BytesIO()
    open_untouched(data).save(buffer, "PNG", pnginfo=kept)
    return buffer.getvalue()


def check_complete(record: Record) -> None:
    """BadInput when pictures that the run needs were left out of the record, see `without_pictures`."""
    names = record.picture.get("left_out")
    if is_list(names) and names:
        listed = ", ".join(str(name)[:40] for name in names[:8])
        raise BadInput("core.pictures_left_out", settings=listed)


def parameters_text(record: Record, size: tuple[int, int]) -> str:
    """The text that other programs show and read: the prompt, a line break, then `Steps: 1, Seed: 7, ...`.

    `size` is (width, height) in pixels.
    """
    settings, picture = record.settings, record.picture
    first = next(iter(record.models.values()), {"name": record.pack, "sha256": ""})
    pairs = {
        "Steps": settings.get("steps", 1),
        "Sampler": record.pipeline,
        "CFG scale": settings.get("guidance", 1),
        "Seed": picture.get("seed", settings.get("seed", 0)),
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": first["sha256"][:10],
        "Model": first["name"],
        "Score": None if picture.get("score") is None else round(picture["score"], 4),
        "Version": f"Atelier {record.versions.get('atelier', VERSION)}",
    }
    line = ", ".join(f"{name}: {_quoted(value)}" for name, value in pairs.items() if value not in (None, ""))
    return f"{settings.get('prompt', '')}\n{line}"


def _quoted(value: Any) -> str:
    """A value as text, in double quotes when it holds a comma, a colon, a line break or a quote."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text


# ------------------------------------------------------------------------------------------------------------ reading


def read_record(source: str | Path | bytes, pipelines: Mapping[str, type[Pipeline[Any]]]) -> Record:
    """Read and check the record inside a PNG from an untrusted source.

    Args:
        source: A path, a data URI, or the file's bytes.
        pipelines: The pipeline classes by name. Settings are checked against the ranges of the pipeline's Settings.

    Returns:
        The record. Pictures in its settings are data URIs, never paths.

    Raises:
        BadInput: When there is no record, or one that Atelier could not have written.
    """
    text = read_texts(source).get("atelier")
    if text is None:
        raise BadInput("core.no_record")
    record = record_from_json(text)
    if record.pipeline not in pipelines:
        raise BadInput(
            "core.record_pipeline_unknown", pipeline=_shown(record.pipeline), known=", ".join(pipelines)
        )
    kind = pipelines[record.pipeline].Settings
    record = replace(record, settings=kind.recorded(record.settings, record.picture))
    settings = kind.from_dict(record.settings)
    # We always write the file itself. A path would make this machine open a file of the stranger's choice.
    if not all(source.startswith("data:") for source in settings.files()):
        raise BadInput("core.record_names_file")
    checked = settings.to_dict()  # in the settings' own types, which forms rely on
    return replace(record, settings={name: checked[name] for name in record.settings})


def record_from_json(text: str) -> Record:
    """A Record from its JSON. Its settings are not checked yet. BadInput when a part is missing or of the wrong type."""
    if len(text) > MAX_JSON:
        raise BadInput("core.record_too_long", count=len(text), most=MAX_JSON)
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadInput("core.record_not_json") from None
    if not is_dict(values) or _depth(values) > MAX_DEPTH or not _can_be_told(values):
        raise BadInput("core.record_foreign")
    values = {"environment": dict[str, Any](), **values}  # which earlier versions did not write
    names = [part.name for part in fields(Record)]
    if missing := [name for name in names if name not in values]:
        raise BadInput("core.record_lacks", field=missing[0])
    values = {name: values[name] for name in names}  # what a later version adds is not needed here
    for name in ("pipeline", "pack", "device", "created"):
        _expect(isinstance(values[name], str) and len(values[name]) <= 200, name)
    for name in ("settings", "picture"):
        _expect(isinstance(values[name], dict) and len(values[name]) <= 200, name)
    for name in ("versions", "models", "environment"):
        _expect(isinstance(values[name], dict) and len(values[name]) <= 50, name)
    for name, most in (("versions", 100), ("environment", 1000)):
        _expect(
            all(
                isinstance(text, str) and len(text) <= most for pair in values[name].items() for text in pair
            ),
            name,
        )
    for model in values["models"].values():
        _expect(is_dict(model) and set(model) == {"name", "sha256"}, "models")
        _expect(isinstance(model["name"], str) and len(model["name"]) <= 200, "models")
        _expect(
            isinstance(model["sha256"], str) and re.fullmatch("[0-9a-f]{0,64}", model["sha256"]), "models"
        )
    picture: dict[str, Any] = values["picture"]
    seed, score, rank = picture.get("seed"), picture.get("score"), picture.get("rank")
    _expect(isinstance(seed, int) and _is_number(seed, int) and 0 <= seed < 2**64, "picture.seed")
    _expect(score is None or (_is_number(score, int, float) and -1e6 < score < 1e6), "picture.score")
    _expect(isinstance(rank, int) and _is_number(rank, int) and 1 <= rank <= 100_000, "picture.rank")
    return Record(**cast(dict[str, Any], values))


def read_texts(source: str | Path | bytes) -> dict[str, str]:
    """The texts in a PNG by name, the first of each name. No pixel is decoded.

    Another program's text that is damaged, or unpacks to more than MAX_JSON bytes, is left out, and so is what exceeds
    MAX_TEXTS or MAX_UNPACKED. BadInput when a text of our own is so, or when it is no PNG, too large, damaged or cut off.
    """
    data = read_bytes(source)
    if picture_format(data) != "PNG":
        raise BadInput("core.not_a_png")
    texts: dict[str, str] = {}
    at, count, room = 8, 0, MAX_UNPACKED
    while at < len(data):
        count += 1
        head = data[at : at + 8]
        if len(head) < 8 or count > MAX_CHUNKS:
            raise BadInput("core.png_damaged")
        length, kind = struct.unpack(">I4s", head)
        if count == 1:
            if kind != b"IHDR" or length != 13 or len(data) < at + 25:
                raise BadInput("core.png_without_header")
            check_size(*struct.unpack_from(">II", data, at + 8))
        if at + 12 + length > len(data):
            raise BadInput("core.png_damaged")
        if kind == b"IEND":
            return texts
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            body = data[at + 8 : at + 8 + length]
            name = body.partition(b"\0")[0].decode("latin-1")
            if name not in texts and (name == OURS or (room > 0 and len(texts) <= MAX_TEXTS)):
                try:
                    if struct.unpack_from(">I", data, at + 8 + length)[0] != zlib.crc32(kind + body):
                        raise BadInput("core.png_checksum")
                    texts[name] = _text_of(kind, body, MAX_JSON if name == OURS else min(MAX_JSON, room))
                    room -= len(texts[name])
                except BadInput:
                    if name == OURS:
                        raise
                    room -= MAX_JSON  # which it may have taken to find out
        at += 12 + length
    raise BadInput("core.png_damaged")


def _text_of(kind: bytes, body: bytes, most: int) -> str:
    """The text of one text chunk of a PNG. BadInput when it does not unpack, or to more than `most` bytes.

    `kind` is tEXt, zTXt or iTXt. The first two are Latin-1 by the standard, but many programs write UTF-8 there.
    """
    _, _, rest = body.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]  # the method, always 0
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = b"".join(rest[2:].split(b"\0", 2)[2:])  # after the language and the translated name
    if packed:
        unpacker = zlib.decompressobj()
        try:
            rest = unpacker.decompress(rest, most)
        except zlib.error:
            raise BadInput("core.png_text_damaged") from None
        if unpacker.unconsumed_tail:
            raise BadInput("core.png_text_too_long", most=most)
    try:
        return rest.decode("utf-8")
    except UnicodeDecodeError:
        return rest.decode("utf-8", "replace") if kind == b"iTXt" else rest.decode("latin-1")


def _expect(good: Any, name: str) -> None:
    if not good:
        raise BadInput("core.record_field", field=name)


def _is_number(value: Any, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _can_be_told(values: dict[str, Any]) -> bool:
    """Whether the values can be written again: no infinity, which 1e999 gives, and no half of a character pair."""
    try:
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return True


def _depth(value: Any, limit: int = MAX_DEPTH) -> int:
    """How deep lists and dicts are nested, 1 for a plain value. Counts to `limit` + 2 at most."""
    inside: Iterable[Any] = value.values() if is_dict(value) else value if is_list(value) else ()
    return 1 + max((_depth(item, limit - 1) for item in inside), default=0) if limit >= 0 else 1


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
