"""Settings of runs that are steered step by step: scenes over time, and changes that were made on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from pipelines.core.prompt_notes import Grammar, prompt_notes
from pipelines.core.prompts import (
    READ,
    check_targets,
    map_list,
    map_regions,
    of_first_grammar,
    parse_story,
    parse_targets,
)
from pipelines.core.settings import Settings, knob
from pipelines.errors import BadInput, Message
from pipelines.io.values import is_dict

# fmt: off
SHARED: dict[str, dict[str, Any]] = {  # what `knob` is given for settings that steered runs have alike
    "prompt": {
        "default": "a red heart", "label": ("prompt", "提示词"), "kind": "prompt",
        "help": "where to steer: TEXT[:WEIGHT[:STOP]], several between |, scenes over time between ^",
        "help_zh": "往哪里引导：文字[:权重[:停止]]，多个用 | 分开，先后的场景用 ^ 分开",
    },
    "size": {
        "default": "", "label": ("size", "尺寸"),
        "help": "width x height, such as 192x128; empty for the start picture's or the model's own",
        "help_zh": "宽x高，例如 192x128；留空则与起始图片或模型一致",
    },
    "image": {
        "default": "", "label": ("start picture", "起始图片"), "kind": "picture",
        "help": "a picture to start from", "help_zh": "从哪张图片开始",
    },
    "image_prompts": {
        "default": "", "label": ("picture to steer to", "图片提示"), "kind": "targets", "advanced": True,
        "help": "pictures to steer to: FILE[:WEIGHT[:STOP]], several between |", "help_zh": "让画面靠近这张图片",
    },
    "cutout_size": {
        "default": "small", "label": ("view size", "视图大小"), "advanced": True,
        "choices": {"small": ("small", "小"), "full": ("full", "完整")},
        "help": "small views are faster, full ones as large as CLIP can see",
        "help_zh": "小视图更快；完整视图与 CLIP 能看到的一样大",
    },
    "until": {
        "default": 0, "lo": 0, "label": ("where it stopped", "停在哪里"), "advanced": True,
        "help": "stop after this step; 0 to go on to the end", "help_zh": "到哪一步为止；0 表示到最后",
    },
    "changes": {
        "default": "", "label": ("changes on the way", "途中的修改"), "kind": "changes", "advanced": True,
        "help": "JSON: step -> settings that change there", "help_zh": "运行途中改了什么",
    },
}
# fmt: on


def steered_knob(name: str, hi: float | None = None) -> Any:
    """The field of one of SHARED, with `hi` as the largest value where it is a number."""
    return knob(**SHARED[name], hi=hi)


class SteeredSettings(Settings):
    """Settings with a prompt of scenes and a timeline. Subclasses define the fields `steps`, `until` and `changes`.

    `changes` holds what was changed during the run as JSON, step -> settings that change there, so that the run can be
    replayed. The fields in `fixed` cannot change on the way.
    """

    fixed: ClassVar[tuple[str, ...]] = ()
    grammar: ClassVar[Grammar] = "scenes"

    steps: int
    until: int
    changes: str

    def length(self) -> int:
        """How many steps the whole run has."""
        return self.steps

    def story(self) -> list[tuple[int, str]]:
        """The scenes of the prompt: (first step, prompt) in order. BadInput when it does not follow the grammar."""
        return parse_story(self.prompt, self.length())

    def scene_at(self, step: int) -> str:
        """The prompt of the scene at a step."""
        return next(words for begin, words in reversed(self.story()) if begin <= step)

    def notes_on_prompt(self) -> list[Message]:
        """Also scenes and changes after the run's last step."""
        course = self.timeline()
        steps = course[-1][1].length()
        notes = [
            note for _, settings in course for note in prompt_notes(settings.prompt, self.grammar, steps)
        ]
        late = [step for step, _ in course if step >= steps and step]
        notes += [Message("core.change_beyond", {"step": step, "steps": steps}) for step in late[:1]]
        return [note for k, note in enumerate(notes) if note not in notes[:k]]

    def check_steering(self) -> None:
        """BadInput when a scene has no target to go to, or when `changes` is not valid."""
        for _, scene in self.story():
            check_targets(parse_targets(scene))
        if self.changes:
            self.timeline()

    @classmethod
    def recorded(cls, values: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
        """The settings of a record by present names, their prompts in the present grammar."""
        values = super().recorded(values, picture)
        if READ in picture or not isinstance(values.get("prompt"), str):
            return values
        return {**values, "prompt": of_first_grammar(values["prompt"])}

    @classmethod
    def current_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Also inside `changes`, whose text stays as it is when no name in it is a former one."""
        rename = super().current_names
        values = rename(values)
        try:
            changes = json.loads(values.get("changes") or "{}")
        except (TypeError, ValueError, RecursionError):
            return values  # `changes_by_step` says what is wrong with it
        if not is_dict(changes):
            return values
        current = {step: rename(fields) if is_dict(fields) else fields for step, fields in changes.items()}
        return values if current == changes else {**values, "changes": json.dumps(current)}

    def timeline(self) -> list[tuple[int, Self]]:
        """(step, the settings in force from it on), from step 0. BadInput when `changes` is not valid."""
        steps: list[tuple[int, Self]] = [(0, replace(self, changes=""))]
        for step, fields in self.changes_by_step():
            steps.append((step, replace(steps[-1][1], **fields)))
        return steps

    def changed(self, step: int, **fields: Any) -> Self:
        """These settings with fields changed from `step` on. Earlier entries of `changes` for later steps are dropped."""
        past = {str(when): entry for when, entry in self.changes_by_step() if when < step}
        current = next(settings for when, settings in reversed(self.timeline()) if when <= step)
        same_step = dict(self.changes_by_step()).get(step, {})
        news = {name: value for name, value in fields.items() if value != getattr(current, name)}
        if step == 0:
            return replace(self, **{**news, "changes": ""})
        if same_step or news:
            past[str(step)] = same_step | news
        return replace(self, changes=json.dumps(past) if past else "")

    def map_pictures(self, change: Callable[[str], str]) -> Self:
        """The settings with `change` applied to every picture, also in lists of targets and in `changes`."""
        names = {setting.name for setting in self.knobs()} & set(PICTURES)
        fields = map_pictures_in({name: getattr(self, name) for name in sorted(names)}, change)
        if self.changes:
            changed = {str(step): map_pictures_in(entry, change) for step, entry in self.changes_by_step()}
            fields["changes"] = json.dumps(changed)
        return replace(self, **fields)

    def changes_by_step(self) -> list[tuple[int, dict[str, Any]]]:
        """`changes` as (step, changed fields), in order of steps. BadInput when it is not valid."""
        if not self.changes:
            return []
        try:
            changes = json.loads(self.changes)
        except (ValueError, RecursionError):
            changes = None
        if not is_dict(changes):
            raise BadInput("optimize.changes_form")
        names = {setting.name for setting in self.knobs()} - set(self.fixed)
        steps: list[tuple[int, dict[str, Any]]] = []
        for key, fields in changes.items():
            if not re.fullmatch(r"[1-9]\d{0,4}", key) or not is_dict(fields):
                raise BadInput("optimize.changes_step", step=key[:20])
            for name in fields:
                if name not in names:
                    raise BadInput(
                        "optimize.changes_setting", setting=name[:40], known=", ".join(sorted(names))
                    )
            steps.append((int(key), fields))
        return sorted(steps, key=lambda pair: pair[0])


PICTURES = ("image", "mask", "regions", "image_prompts")  # fields that are pictures, or hold some


def map_pictures_in(fields: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The fields with `change` applied to every picture in them."""
    mapped = dict(fields)
    for name in ("image", "mask"):
        if mapped.get(name):
            mapped[name] = change(mapped[name])
    if mapped.get("regions"):
        mapped["regions"] = map_regions(mapped["regions"], change)
    if mapped.get("image_prompts"):
        mapped["image_prompts"] = map_list(mapped["image_prompts"], change)
    return mapped


def scenes_until(timeline: Sequence[tuple[int, SteeredSettings]], end: int) -> list[tuple[int, str]]:
    """(first step, prompt) of every scene up to step `end`, over all changes of the settings."""
    scenes: list[tuple[int, str]] = []
    bounds = [*(step for step, _ in timeline[1:]), end + 1]
    for (since, settings), until in zip(timeline, bounds, strict=True):
        story = settings.story()
        for k, (begin, words) in enumerate(story):
            ends = story[k + 1][0] if k + 1 < len(story) else until
            if begin < until and ends > since and (not scenes or scenes[-1][1] != words):
                scenes.append((max(begin, since), words))
    return scenes
