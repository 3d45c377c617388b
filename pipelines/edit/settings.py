"""What Edit depends on: the picture, the two texts, how fast, how far, and where."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from pipelines.core.settings import Settings, knob
from pipelines.errors import BadInput

MODES = ("instant", "quick", "reusable", "paper")
LOSSES = ("log", "plain")
WEAKEST, STRONGEST = -1.0, 1.5
AFTERWARDS = ("strength", "strip", "automatic_mask", "until")  # settings that the learning does not see


@dataclass(frozen=True)
class Use:
    """One saved direction in use: its file (a path or a data URI), its strength, and the steps at which it acts."""

    file: str
    strength: float = 1.0
    window: tuple[int, int] = (1000, 0)  # from this noise level down to that one


@dataclass(frozen=True, kw_only=True)
class EditSettings(Settings):
    """`source` says what the picture shows, `prompt` what it should show. Without a picture one of
    the pack's is taken that fits the source."""

    subject: ClassVar[str] = "image"

    prompt: str = knob("an angry face", help="what it should show", kind="prompt", flag="target")
    source: str = knob("a face", help="what the picture shows now", kind="prompt")
    image: str = knob(
        "", help="the picture to edit; without one, an example that fits the source", kind="picture"
    )
    mode: str = knob(
        "quick",
        help="instant guides without learning, quick learns from this picture, reusable learns a direction for any, "
        "paper is the original recipe",
        choices=MODES,
    )
    strength: float = knob(
        1.0, WEAKEST, STRONGEST, help="how far; 0 gives the picture back, below 0 the opposite"
    )
    strip: int = knob(5, 1, 9, help="strengths shown side by side")
    mask: str = knob("", help="a picture, white where pixels may change", kind="picture")
    automatic_mask: bool = knob(False, help="keep what the edit hardly touches as it is")
    directions: str = knob(
        "",
        help="saved directions instead of the texts: FILE[:STRENGTH][@FROM-TO] | FILE ...",
        kind="directions",
        flag="direction",
    )
    return_step: int = knob(
        0, 0, 999, help="the noise level that the edit returns to, 0 to propose one", advanced=True
    )
    keep: float = knob(3.3, 0.0, 10.0, help="how strongly to stay with the picture (L1)", advanced=True)
    smooth: float = knob(1.0, 0.0, 10.0, help="how smooth the change is (total variation)", advanced=True)
    steps: int = knob(
        0, 0, 200, help="steps up the noise, and down again, 0 for what the mode needs", advanced=True
    )
    refine: int = knob(1, 0, 8, help="fixed-point refinements of each step up", advanced=True)
    guidance: float = knob(1.0, 0.1, 10.0, help="of the instant mode: how hard CLIP pushes", advanced=True)
    updates: int = knob(0, 0, 2000, help="of the learning, 0 for what the mode needs", advanced=True)
    until: int = knob(
        0, 0, 2000, help="use the direction as it was after so many updates, 0 for all", advanced=True
    )
    step_size: float = knob(2e-3, 1e-6, 1.0, help="of the learning (Adam)", advanced=True)
    rank: int = knob(4, 1, 64, help="of the adapter (LoRA)", advanced=True)
    loss: str = knob(
        "log", help="the directional loss: the official code's or the paper's", choices=LOSSES, advanced=True
    )
    chain: bool = knob(False, help="of the paper's recipe: one update through all six steps", advanced=True)
    learn_from: int = knob(50, 2, 640, help="pictures that a reusable direction learns from", advanced=True)
    examples: str = knob(
        "",
        help="pictures that show the target instead of its text: FILE | FILE ...",
        kind="pictures",
        advanced=True,
    )
    lessons: str = knob(
        "",
        help="your own pictures to learn a reusable direction from: FILE | FILE ...",
        kind="pictures",
        advanced=True,
    )
    purify: int = knob(
        0, 0, 20, help="first bring a drawing into the model's world, so many times", advanced=True
    )
    crop: str = knob("", help="edit only this part, X,Y,WIDTHxHEIGHT in pixels", advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.directions and not self.examples and _plain(self.source) == _plain(self.prompt):
            raise BadInput("edit.source_is_target", text=self.source[:60])
        if self.crop:
            self.box()
        self.uses()

    def box(self) -> tuple[int, int, int, int] | None:
        """`crop` as left, top, right, bottom; None for the whole picture."""
        if not self.crop:
            return None
        found = re.fullmatch(
            r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", self.crop
        )
        if not found or "0" in (found[3], found[4]):
            raise BadInput("edit.crop_form", crop=self.crop[:40])
        x, y, width, height = map(int, found.groups())
        return x, y, x + width, y + height

    def uses(self) -> list[Use]:
        """`directions`, read; BadInput when one is not FILE[:STRENGTH][@FROM-TO]."""
        return [_use(part) for part in split_list(self.directions)]

    def update_count(self) -> int:
        """How often the adapter is updated; 0 when nothing is learned."""
        if self.directions or self.mode == "instant":
            return 0
        return self.updates or {"quick": 40, "reusable": 60, "paper": 250}[self.mode]

    def changed(self, step: int, **fields: object) -> EditSettings:
        """These settings for a run that goes on from a snapshot: only what comes after the learning may differ."""
        if other := [name for name in fields if name not in AFTERWARDS]:
            raise BadInput("edit.cannot_change", setting=other[0], known=", ".join(AFTERWARDS))
        return replace(self, **fields)  # type: ignore[arg-type]

    def step_count(self) -> int:
        """Steps up the noise, and down again."""
        return self.steps or (10 if self.directions or self.mode == "instant" else 20)

    def map_pictures(self, change: Callable[[str], str]) -> EditSettings:
        """Also the pictures in lists."""
        fields = {name: getattr(self, name) for name in ("image", "mask") if getattr(self, name)}
        fields = {name: change(value) for name, value in fields.items()}
        for name in ("examples", "lessons"):
            fields[name] = " | ".join(change(one) for one in split_list(getattr(self, name)))
        return replace(self, **fields)

    def files(self) -> list[str]:
        """Pictures and directions."""
        return [*super().files(), *(one.file for one in self.uses())]

    def map_directions(self, change: Callable[[str], str]) -> EditSettings:
        """The settings with `change` applied to the file of every direction in use, a path or a data URI."""
        uses = [written(replace(one, file=change(one.file))) for one in self.uses()]
        return replace(self, directions=" | ".join(uses))


def split_list(text: str) -> list[str]:
    """The parts between bars, without the empty ones."""
    return [part.strip() for part in text.split("|") if part.strip()]


def written(use: Use) -> str:
    """As `directions` spells it."""
    window = "" if use.window == (1000, 0) else f"@{use.window[0]}-{use.window[1]}"
    strength = f"{use.strength:.6f}".rstrip("0").rstrip(".")
    return f"{use.file}:{strength}{window}"


def _use(part: str) -> Use:
    window = (1000, 0)
    if found := re.fullmatch(r"(.*\S)\s*@\s*(\d{1,4})\s*-\s*(\d{1,4})", part, re.DOTALL):
        part, window = found[1], (int(found[2]), int(found[3]))
        if not 1000 >= window[0] > window[1]:
            raise BadInput("edit.window_form", begin=window[0], end=window[1])
    strength = 1.0
    if found := re.fullmatch(r"(.*\S)\s*:\s*([-+]?\d*\.?\d+)", part, re.DOTALL):
        part, strength = found[1], float(found[2])
        if not WEAKEST <= strength <= STRONGEST:
            raise BadInput("edit.direction_strength", strength=strength, least=WEAKEST, most=STRONGEST)
    return Use(part, strength, window)


def _plain(text: str) -> str:
    return re.sub(r"^(an?|the) ", "", text.casefold().strip(" .!"))
