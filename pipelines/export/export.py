"""The door: pictures and a place where they go -> files that keep to what is asked of them there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.core.record import read_texts
from pipelines.errors import BadInput
from pipelines.export.files import Texts, check, encoded, has_clear
from pipelines.export.framing import box_of, framed, together
from pipelines.export.naming import file_names
from pipelines.export.presets import Form, Preset
from pipelines.export.transparent import cut_out
from pipelines.io.images import open_picture, read_bytes
from pipelines.io.video import STRIP, VERMILION, read_frames
from pipelines.models.matting.network import Matting

FILMS = (".mp4", ".mov", ".webm")
MOST_FRAMES = 300
MOST_PICTURES = 500
NEAR = 72  # levels by which the strip's line may be of another colour after it was compressed
RECORD = ("atelier", "parameters")  # texts of a PNG


@dataclass(frozen=True)
class Given:
    """A picture to export, or the frames of a moving one, all of one size."""

    frames: list[Image.Image]
    prompt: str = ""
    fallback: str = ""  # a name where the prompt gives none
    texts: Texts = field(default_factory=dict[str, str])  # its record

    @property
    def name(self) -> str:
        """What it is called where something is told of it."""
        return (self.prompt or self.fallback)[:60]

    @property
    def moves(self) -> bool:
        """Whether it has several frames."""
        return len(self.frames) > 1


@dataclass(frozen=True)
class Exported:
    """One file: its name, its bytes, and what was read back out of them."""

    name: str
    data: bytes
    size: tuple[int, int]
    form: Form
    record: bool  # whether the picture's record is inside
    clear: bool  # whether some of it is clear

    def to_json(self) -> dict[str, object]:
        """Name, bytes, width, height, and whether it moves and has its record."""
        facts = {"name": self.name, "bytes": len(self.data), "width": self.size[0], "height": self.size[1]}
        return {**facts, "moves": self.form.moves, "record": self.record}


def read_given(source: str | Path) -> Given:
    """A picture or a film from an untrusted file. BadInput when it is neither."""
    path = Path(source)
    if path.suffix.lower() in FILMS:
        frames = [without_strip(frame) for frame in read_frames(path, limit=MOST_FRAMES, longest=1024)]
        return Given(frames, fallback=path.stem)
    data = read_bytes(source)
    return given_of(data, path.stem)


def given_of(data: bytes, fallback: str) -> Given:
    """A picture from the bytes of its file; its record comes along. BadInput when it is no picture."""
    picture = open_picture(data)
    try:
        texts = {name: text for name, text in read_texts(data).items() if name in RECORD}
    except BadInput:  # no PNG
        texts = {}
    return Given([picture], _prompt(texts), fallback, texts)


def in_motion(given: Sequence[Given]) -> Given:
    """Pictures as the frames of one that moves, forth and back again. BadInput for fewer than two, or unequal sizes."""
    frames = [frame for each in given for frame in each.frames]
    if len(frames) < 2:
        raise BadInput("export.one_frame")
    if len(frames) > MOST_FRAMES:
        raise BadInput("export.too_many_frames", count=len(frames), most=MOST_FRAMES)
    return Given([*frames, *frames[-2:0:-1]], given[0].prompt, given[0].fallback)


@dataclass(frozen=True)
class Planned:
    """A file that is to be made: of which picture, in which form, under which name."""

    given: Given
    form: Form
    name: str
    others: tuple[Given, ...] = ()  # that are in the same file


def plan(given: Sequence[Given], preset: Preset) -> list[Planned]:
    """The files that pictures become, in order, those of one picture after one another.

    All that can be wrong with a set is told here: BadInput when a place does not take it, or when frames differ in size.
    """
    if len(given) > MOST_PICTURES:
        raise BadInput("export.too_many", place=preset.name, count=len(given), most=MOST_PICTURES)
    preset.check(len(given), any(each.moves for each in given))
    for each in given:
        sizes = sorted({frame.size for frame in each.frames})
        if len(sizes) > 1:
            listed = ", ".join(f"{width} x {height}" for width, height in sizes[:4])
            raise BadInput("export.unequal_frames", sizes=listed)
    names = file_names([each.prompt for each in given], [each.fallback for each in given], preset.joint)
    files: list[Planned] = []
    for each, name in zip(given, names, strict=True):
        for form in preset.moving if each.moves else preset.still:
            whole = preset.joint.join(filter(None, (name, form.ending)))
            files.append(Planned(each, form, whole + form.suffix))
    for form in preset.once:
        first = given[1:] if form.together else ()
        files.append(Planned(given[0], form, form.ending + form.suffix, tuple(first)))
    return files


def exported(
    files: Sequence[Planned], preset: Preset, matting: Matting, *, outline: bool = False
) -> Iterator[Exported]:
    """Planned files, made one after the other, each checked as it was read back.

    BadInput when nothing is found in a picture, or when it cannot be made to fit.
    """
    before, cut, box = None, list[Image.Image](), (0, 0, 1, 1)
    for file in files:
        if file.given is not before:  # files of one picture follow one another
            before, cut = file.given, cut_out(file.given.frames, matting, file.given.name)
            box = box_of(cut)
        shown = cut if file.form.moves else cut[:1]
        frames = [framed(frame, box, file.form, outline or file.form.together) for frame in shown]
        for other in file.others:
            (thing,) = cut_out(other.frames[:1], matting, other.name)
            frames.append(framed(thing, box_of([thing]), file.form, outline=True))
        frames = [together(frames)] if file.form.together else frames
        texts = file.given.texts if preset.keeps_record else {}
        data = encoded(frames, file.form, texts, file.given.prompt)
        clear = file.form.suffix == ".webm" or any(has_clear(frame.convert("RGBA")) for frame in frames)
        yield Exported(file.name, data, check(data, file.form, clear), file.form, bool(texts), clear)


def without_strip(frame: Image.Image) -> Image.Image:
    """A frame of one of our films without the strip of progress below it; any other as it is."""
    line = np.asarray(frame.convert("RGB"))[-STRIP + 2 : -2, :2].astype(np.int64)
    if frame.height <= STRIP or np.abs(line - np.array(VERMILION)).max() > NEAR:
        return frame
    return frame.crop((0, 0, frame.width, frame.height - STRIP))


def _prompt(texts: Texts) -> str:
    """The prompt in a record, or in the lines of another program. "" where there is none."""
    try:
        settings = json.loads(texts.get("atelier", "{}")).get("settings", {})
        if str(settings.get("prompt", "")).strip():
            return str(settings["prompt"])
    except (ValueError, AttributeError, RecursionError):
        pass
    return texts.get("parameters", "").split("\n")[0]
