"""The grammar of prompts: targets with weights and stops, scenes over time, regions of the canvas.

    a castle | fog:0.5 | blur:-0.3 | a moon:1:0.7      several targets, TEXT[:WEIGHT[:STOP]]
    a castle ^ a ruin @80                              scenes; each begins at its step, or all share the run evenly
    a sun @ top | a boat:0.5 @ mask.png                regions, TARGET @ WHERE

Weights are read from the right, so a colon inside a sentence is only a colon.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import BadInput

MAX_WEIGHT = (
    10.0  # the largest weight; a larger number after a colon is part of the sentence, as in "at 10:30"
)
NUMBER = re.compile(r"-?(?:0|[1-9]\d?)?(?:\.\d+)?")
SIDES = ("left", "right", "top", "bottom", "centre")


@dataclass(frozen=True)
class Target:
    """A target of the loss. `text` is words, the path or data URI of a picture, or a number, depending on its list.

    A `weight` below zero maximizes the distance. `stop` is a great-circle distance (theta^2 / 2) below which there is no
    gradient, or for a negative weight above which there is none. None means no limit.
    """

    text: str
    weight: float = 1.0
    stop: float | None = None


@dataclass(frozen=True)
class Scene:
    """One scene as it was written. `targets` are all of `words`, those of weight 0 too.

    `step` holds the digits after `@`, the empty text where there are none.
    """

    words: str
    step: str
    targets: list[Target]


@dataclass(frozen=True)
class Region:
    """A target for a part of the canvas: `where` is one of SIDES or a mask picture, white in the region."""

    target: Target
    where: str


def parse_target(text: str) -> Target:
    """Parse `TEXT[:WEIGHT[:STOP]]` from the right; the weight is 1 when there is none."""
    text = text.strip()
    head, last = _split_number(text)
    if last is None:
        return Target(text)
    first, weight = _split_number(head)
    if weight is not None:
        return Target(first, weight, abs(last))
    return Target(head, last)


def _split_number(text: str) -> tuple[str, float | None]:
    head, colon, tail = text.rpartition(":")
    tail = tail.strip()
    if not colon or not head.strip() or not any(map(str.isdigit, tail)) or not NUMBER.fullmatch(tail):
        return text, None
    number = float(tail)
    return (head.strip(), number) if abs(number) <= MAX_WEIGHT else (text, None)


def parse_targets(text: str) -> list[Target]:
    """Parse targets separated by bars; empty ones and those of weight 0 are dropped."""
    return [target for target in _written_targets(text) if target.weight != 0]


def _written_targets(text: str) -> list[Target]:
    return [parse_target(part) for part in text.split("|") if part.strip()]


def check_targets(targets: list[Target]) -> None:
    """BadInput when no target has a positive weight, or when the weights sum to zero."""
    if not any(target.weight > 0 for target in targets):
        raise BadInput("optimize.no_positive_weight")
    if abs(sum(target.weight for target in targets)) < 1e-6:
        raise BadInput("optimize.weights_cancel", target=targets[0].text)


def parse_scenes(text: str) -> list[Scene]:
    """Scenes between carets as they were written, also empty ones and steps that do not grow. Raises nothing."""
    scenes: list[Scene] = []
    for part in map(str.strip, text.split("^")):
        match = re.fullmatch(r"(.*\S)\s*@\s*(\d{1,6})", part, re.DOTALL)
        words, step = (match[1], match[2]) if match else (part, "")
        scenes.append(Scene(words, step, _written_targets(words)))
    return scenes


def parse_story(text: str, steps: int) -> list[tuple[int, str]]:
    """Parse scenes separated by carets: (first step, prompt) in order; the first begins at step 0.

    Scene k of n without `@STEP` begins at k * steps / n. BadInput for an empty scene, or when the steps do not increase.
    """
    scenes = parse_scenes(text)
    if any(not scene.words for scene in scenes):
        raise BadInput("optimize.scene_empty")
    story: list[tuple[int, str]] = []
    for k, scene in enumerate(scenes):
        begin = int(scene.step) if scene.step else k * steps // len(scenes)
        if k == 0 and begin != 0:
            raise BadInput("optimize.first_scene_late", step=begin)
        if story and begin <= story[-1][0]:
            raise BadInput("optimize.scene_out_of_order", scene=k + 1, step=begin)
        story.append((begin, scene.words))
    return story


def parse_regions(text: str) -> list[Region]:
    """Parse regions `TARGET @ WHERE` separated by bars. BadInput when one has no target or no place."""
    regions: list[Region] = []
    for part in text.split("|"):
        if not part.strip():
            continue
        words, at, where = part.rpartition("@")
        where = where.strip()
        if not at or not words.strip() or not where:
            raise BadInput("optimize.region_without_place", region=part.strip()[:40], places=", ".join(SIDES))
        regions.append(Region(parse_target(words), where))
    return regions


def map_targets(text: str, change: Callable[[str], str]) -> str:
    """The list of targets with `change` applied to every text; weights and stops are kept."""
    return " | ".join(
        _written(Target(change(target.text), target.weight, target.stop)) for target in parse_targets(text)
    )


def map_regions(text: str, change: Callable[[str], str]) -> str:
    """The list of regions with `change` applied to every mask picture; named sides are kept."""
    return " | ".join(
        f"{_written(region.target)} @ {region.where if region.where in SIDES else change(region.where)}"
        for region in parse_regions(text)
    )


def _written(target: Target) -> str:
    stop = "" if target.stop is None else f":{target.stop:g}"
    return f"{target.text}:{target.weight:g}{stop}"


def parse_palette(text: str) -> list[list[float]]:
    """Parse 1 to 32 `#rrggbb` colours, separated by spaces or commas -> rows (r, g, b) in [-1, 1]. BadInput for others."""
    colours = text.replace(",", " ").split()
    for colour in colours:
        if not re.fullmatch(r"#?[0-9a-fA-F]{6}", colour):
            raise BadInput("optimize.not_a_colour", colour=colour[:20])
    if not 1 <= len(colours) <= 32:
        raise BadInput("optimize.palette_size", count=len(colours))
    plain = [colour.removeprefix("#") for colour in colours]
    return [[int(digits[k : k + 2], 16) / 127.5 - 1 for k in (0, 2, 4)] for digits in plain]
