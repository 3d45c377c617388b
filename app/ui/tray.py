"""What lies on the tab See: pictures, those that labels are taught from, and what was asked. One visitor's, in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from app.ui.context import STEERING
from app.ui.pictures import preview_uri
from pipelines.core.prompts import parse_scenes
from pipelines.core.record import read_record
from pipelines.errors import BadInput
from pipelines.io.images import open_picture, picture_to_uri
from pipelines.see.pictures import on_square

MOST_SHOWN = 24
MOST_TAUGHT, MOST_LABELS = 32, 20  # pictures a label, and labels
LARGE, SMALL = 480, 120  # pixels of a picture as it is shown
LEARNED = 224  # pixels of one that is taught from
MODES = ("name", "why", "teach", "score")


@dataclass(frozen=True)
class Shown:
    """A picture as CLIP sees it, a square, and what its record says of it. Pictures are data URIs.

    `ranked` is its rank, the number of candidates and that of those within noise of the best; empty when it has no rank.
    """

    uri: str  # what CLIP is shown
    large: str
    small: str
    name: str  # of its file
    prompt: str = ""
    ranked: tuple[int, ...] = ()

    @property
    def image(self) -> Image.Image:
        return open_picture(self.uri)


@dataclass(frozen=True)
class Question:
    """What was asked: in which mode, about which picture, with which words."""

    mode: str = "name"
    at: int = 0
    labels: str = ""
    templates: str = ""
    prompt: str = ""
    label: str = ""
    taught: str = ""  # the name of a label set that was taught
    language: str = "en"  # of the page

    @classmethod
    def read(cls, values: str) -> Question:
        """The form as the script tells it, as JSON. Anything that does not fit is left at its default."""
        try:
            given = json.loads(values)
        except (ValueError, RecursionError):
            given = {}
        given = given if isinstance(given, dict) else {}
        texts = {
            name: str(given.get(name) or "")[:20_000]
            for name in ("labels", "templates", "prompt", "label", "taught")
        }
        at = given.get("at")
        mode = given.get("mode")
        language = "zh" if given.get("language") == "zh" else "en"
        at = at if type(at) is int and at >= 0 else 0
        return cls(mode if mode in MODES else "name", at, **texts, language=language)


@dataclass(frozen=True)
class Tray:
    """Pictures in order; for each label the pictures it is taught from; and the question that waits for its answer."""

    pictures: tuple[Shown, ...] = ()
    groups: dict[str, tuple[Shown, ...]] = field(default_factory=dict)
    asked: Question | None = None

    def at(self, place: int) -> int:
        """The place of a picture that is there, as near as can be."""
        return min(place, len(self.pictures) - 1)

    def with_pictures(self, added: list[Shown], *, first: bool = False) -> Tray:
        """More pictures, at the end or in front; the oldest make room."""
        kept = [one for one in self.pictures if one.uri not in {each.uri for each in added}]
        both = [*added, *kept][:MOST_SHOWN] if first else [*kept, *added][-MOST_SHOWN:]
        return replace(self, pictures=tuple(both))

    def without(self, place: int) -> Tray:
        """One picture less."""
        return replace(self, pictures=self.pictures[:place] + self.pictures[place + 1 :])

    def taught(self, label: str, added: list[Shown]) -> Tray:
        """More pictures of a label. BadInput when there are too many labels."""
        lighter = [replace(picture, uri=preview_uri(picture.image, LEARNED), large="") for picture in added]
        pictures = dict.fromkeys((*self.groups.get(label, ()), *lighter))
        groups = {**self.groups, label: tuple(pictures)[:MOST_TAUGHT]}
        if len(groups) > MOST_LABELS:
            raise BadInput("see.too_many_labels", count=len(groups), most=MOST_LABELS)
        return replace(self, groups=groups)

    def without_label(self, label: str) -> Tray:
        """One label less."""
        return replace(self, groups={name: group for name, group in self.groups.items() if name != label})


def shown(
    source: str | Path | Image.Image, name: str, prompt: str = "", ranked: tuple[int, ...] = ()
) -> Shown:
    """A picture for the tray. BadInput when it cannot be opened."""
    image = on_square(source if isinstance(source, Image.Image) else open_picture(source))
    large, small = (preview_uri(image, pixels) for pixels in (LARGE, SMALL))
    return Shown(picture_to_uri(image), large, small, name[:80], prompt, ranked)


def shown_file(path: str | Path, name: str, kinds: Any) -> Shown:
    """A file for the tray, with what its record says where it has one. BadInput when it cannot be opened."""
    try:
        record = read_record(path, kinds)
    except BadInput:
        return shown(path, name)
    places = [record.picture.get(key) for key in ("rank", "candidates", "tied")]
    numbers = tuple(place for place in places if type(place) is int and place > 0)
    prompt = prompt_of(record.pipeline, record.settings)
    return shown(path, name, prompt, numbers if len(numbers) == len(places) else ())


def prompt_of(pipeline: str, settings: dict[str, Any]) -> str:
    """The prompt of settings as one sentence: of Optimize's grammar the wanted targets of the last scene."""
    prompt = str(settings.get("prompt", ""))
    if pipeline not in STEERING:
        return prompt
    targets = [target.text for target in parse_scenes(prompt)[-1].targets if target.weight > 0]
    return ", ".join(targets) or prompt
