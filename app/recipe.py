"""Recipe: the settings of a run as a text short enough for a link, so that they outlive the disk.

The text is base64url of deflated JSON: the pipeline's name, the settings that differ from their defaults, and the names
of those that stay behind. A recipe in a link is a stranger's: everything in it is checked before it is believed.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.core.pipeline import Pipeline
from pipelines.core.settings import HasTimeline, Knob, Settings
from pipelines.errors import BadInput

MAX_CHARACTERS = 1_500  # characters of the text
# bytes of its JSON: two prompts of the longest kind, in any script, and all numbers
MAX_UNPACKED_BYTES = 20_000

Kinds = Mapping[str, type[Pipeline[Any]]]


@dataclass(frozen=True)
class Recipe:
    """What a link says: a pipeline, its settings, and the names of those that a link cannot carry."""

    pipeline: str
    settings: Settings
    left_out: tuple[str, ...] = ()

    def text(self) -> str:
        """As `?r=` has it. BadInput when it is too long for a link."""
        changed = {
            knob.name: value
            for knob in self.settings.knobs()
            if (value := getattr(self.settings, knob.name)) != knob.default
        }
        parts = [self.pipeline, changed, list(self.left_out)] if self.left_out else [self.pipeline, changed]
        plain = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(plain.encode("utf-8", "replace")) + packer.flush()
        text = base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")
        if len(text) > MAX_CHARACTERS:
            raise BadInput("app.settings_too_long", count=len(text), most=MAX_CHARACTERS)
        return text


def travels(knob: Knob, value: Any) -> bool:
    """Whether a setting can go into a link: not pictures, not directions, not what a run itself has written."""
    if knob.kind == "targets":
        return "data:" not in str(value)
    return knob.kind in (None, "prompt", "seed") and knob.name != "until"


def recipe_of(pipeline: str, settings: Mapping[str, Any], kinds: Kinds | None = None) -> Recipe:
    """The recipe of a run made here. A run that changed on the way is told as it stood at its end.

    `kinds` is what names are looked up in, PIPELINES unless given. BadInput when they are no settings any more.
    """
    kind = _kind_of(pipeline, kinds)
    now = kind.current_names(dict(settings))
    if changes := now.get("changes"):
        whole = kind.from_dict(now)
        if not isinstance(whole, HasTimeline):
            raise BadInput("app.link_foreign")
        now = whole.timeline()[-1][1].to_dict() | {"changes": changes}
    # the device decides the batch
    knobs = [
        knob
        for knob in kind.knobs()
        if knob.name != "batch" and now.get(knob.name, knob.default) != knob.default
    ]
    carried = {knob.name: now[knob.name] for knob in knobs if travels(knob, now[knob.name])}
    return Recipe(
        pipeline, kind.from_dict(carried), tuple(knob.name for knob in knobs if knob.name not in carried)
    )


def read_recipe(text: str, kinds: Kinds | None = None) -> Recipe:
    """The recipe that a link carries, every part of it checked. BadInput in one sentence when it is none."""
    if len(text) > MAX_CHARACTERS:
        raise BadInput("app.recipe_too_long", count=len(text), most=MAX_CHARACTERS)
    values = _unpacked(text)
    if not isinstance(values, list) or len(values) not in (2, 3):
        raise BadInput("app.link_foreign")
    name, settings, left_out = [*values, []][:3]
    if not (isinstance(name, str) and isinstance(settings, dict) and isinstance(left_out, list)):
        raise BadInput("app.link_foreign")
    kind = _kind_of(name, kinds)
    settings, checked = kind.current_names(settings), kind.from_dict(settings)
    known = {knob.name: knob for knob in kind.knobs()}
    if checked.files():
        raise BadInput("app.recipe_names_file")
    if not all(travels(known[key], getattr(checked, key)) for key in settings):
        raise BadInput("app.link_foreign")
    if not all(isinstance(key, str) for key in left_out):
        raise BadInput("app.link_foreign")
    left_out = [kind.aliases.get(name, name) for name in left_out]
    if not known.keys() >= set(left_out):
        raise BadInput("app.link_foreign")
    return Recipe(name, checked, tuple(left_out))


def _unpacked(text: str) -> Any:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise BadInput("app.link_damaged")
    unpacker = zlib.decompressobj(-15)
    try:
        plain = unpacker.decompress(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), MAX_UNPACKED_BYTES
        )
        if not unpacker.eof:  # cut off, or larger than anything that is written here
            raise BadInput("app.link_damaged")
        return json.loads(plain)
    except BadInput:
        raise
    except (ValueError, zlib.error, RecursionError):
        raise BadInput("app.link_damaged") from None


def _kind_of(name: str, kinds: Kinds | None) -> type[Settings]:
    if kinds is None:
        from pipelines.studio import PIPELINES as kinds
    if name not in kinds:
        raise BadInput("app.link_pipeline_unknown", pipeline=name[:40], known=", ".join(kinds))
    return kinds[name].Settings
