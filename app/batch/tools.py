"""What is done with a row: a run of a pipeline, or a score. A tool can be pickled, as what it is asked and answers can."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from app.batch.rows import Row
from pipelines.core.execute import result_of
from pipelines.core.explain import explain
from pipelines.core.pipeline import Result
from pipelines.core.settings import Settings, clean_prompt, spelled
from pipelines.errors import BadInput, CannotSave, Message
from pipelines.io.files import home_path
from pipelines.io.formats import picture_format
from pipelines.io.images import read_bytes
from pipelines.see.score import Score, score_pairs
from pipelines.studio import PIPELINES

SCORE = "score"
PAIRS_AT_ONCE = 64  # that CLIP sees in two batches

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A row that was checked: what the tool is asked, and a key that is the same as long as it asks for the same."""

    row: Row
    key: str
    asked: Any


class Tool(Protocol):
    """A thing to do with rows."""

    @property
    def at_once(self) -> int:
        """How many rows are given to a worker together."""
        ...

    def columns(self) -> set[str]:
        """The names that columns may have."""
        ...

    def ask(self, values: dict[str, Any], folder: Path) -> Any:
        """What is asked by a row's values; paths are relative to `folder`. BadInput when it cannot be done."""
        ...

    def load(self, studio: Any) -> None:
        """Load the models. BadInput when they are missing."""
        ...

    def work(self, studio: Any, asked: Sequence[Any]) -> list[Any]:
        """The answer to each, or the Message that says why there is none."""
        ...


@dataclass(frozen=True)
class Draw:
    """Runs of a pipeline: a Result a row. `common` are settings of all rows that do not give their own."""

    pipeline: str
    common: dict[str, Any] = field(default_factory=dict[str, Any])
    at_once: int = 1

    @property
    def kind(self) -> type[Settings]:
        return PIPELINES[self.pipeline].Settings

    def columns(self) -> set[str]:
        return {knob.name for knob in self.kind.knobs()} | set(self.kind.aliases)

    def ask(self, values: dict[str, Any], folder: Path) -> Settings:
        """Checked settings with whole paths. BadInput for a wrong value, for no picture, or without a prompt.

        Only a second stage needs none.
        """
        knobs = {knob.name: knob for knob in self.kind.knobs()}
        given = self.kind.current_names(self.common) | self.kind.current_names(values)
        if given.get("prior"):
            given.setdefault("prompt", "")
        if "prompt" not in given:
            raise BadInput("batch.prompt_missing")
        for name, value in given.items():
            if name in knobs and isinstance(value, str):
                given[name] = spelled(knobs[name], value)
        settings = self.kind.from_dict(given).map_pictures(lambda source: _beside(source, folder))
        for source in settings.files():
            picture_format(read_bytes(source))
        return settings

    def load(self, studio: Any) -> None:
        studio.pipeline(self.pipeline)

    def work(self, studio: Any, asked: Sequence[Settings]) -> list[Result | Message]:
        pipeline = studio.pipeline(self.pipeline)

        def drawn(settings: Settings) -> Result:
            return replace(result_of(pipeline, settings), device=studio.device)

        return [_answer(partial(drawn, settings)) for settings in asked]


@dataclass(frozen=True)
class Judge:
    """Scores of pictures for prompts: a Score a row, of the columns `image` and `prompt`."""

    common: dict[str, Any] = field(default_factory=dict[str, Any])
    at_once: int = PAIRS_AT_ONCE

    def columns(self) -> set[str]:
        return {"image", "prompt"}

    def ask(self, values: dict[str, Any], folder: Path) -> tuple[str, str]:
        """A picture's whole path and a prompt. BadInput when one is missing or wrong."""
        given = self.common | values
        source, prompt = given.get("image", ""), given.get("prompt", "")
        if not (isinstance(source, str) and isinstance(prompt, str) and source and prompt):
            raise BadInput("batch.score_needs")
        if unknown := set(given) - self.columns():
            raise BadInput("settings.unknown", setting=min(unknown)[:40], known="image, prompt")
        source = _beside(source, folder)
        picture_format(read_bytes(source))
        return source, clean_prompt(prompt)

    def load(self, studio: Any) -> None:
        studio.clip()
        studio.critic()

    def work(self, studio: Any, asked: Sequence[tuple[str, str]]) -> list[Score | Message]:
        scores = _answer(lambda: score_pairs(studio.clip(), studio.critic(), list(asked)))
        if isinstance(scores, Message):
            return [scores] * len(asked)
        return [score if score.problem is None else score.problem.message for score in scores]


def tool_of(name: str, common: dict[str, Any]) -> Draw | Judge:
    """The tool of a name: "score", or a pipeline's."""
    return Judge(common) if name == SCORE else Draw(name, common)


def checked(
    tool: Draw | Judge, rows: Sequence[Row], folder: Path, models: str
) -> tuple[list[Task], list[tuple[Row, Message]]]:
    """The rows that can be done, and those that cannot with the reasons.

    `models` names the models; other models make other keys, as other pictures in the rows do. Equal rows have different
    keys, by how many come before; so a row keeps its key when rows are added elsewhere in the file.
    """
    tasks: list[Task] = []
    bad: list[tuple[Row, Message]] = []
    before: dict[str, int] = {}
    for row in rows:
        if row.problem:
            bad.append((row, row.problem))
            continue
        try:
            asked = tool.ask(row.values, folder)
        except (BadInput, CannotSave) as problem:
            bad.append((row, problem.message))
            continue
        content = _content(tool, row, asked, models)
        before[content] = before.get(content, -1) + 1
        key = hashlib.sha256(f"{content}/{before[content]}".encode()).hexdigest()[:20]
        tasks.append(Task(row, key, asked))
    return tasks, bad


def _content(tool: Draw | Judge, row: Row, asked: Any, models: str) -> str:
    """A hash of what a row asks for: its values, those of all rows, its pictures' bytes and the models."""
    files = asked.files() if isinstance(asked, Settings) else [asked[0]]
    pictures = [hashlib.sha256(read_bytes(file)).hexdigest() for file in files]
    name = tool.pipeline if isinstance(tool, Draw) else SCORE
    told = [name, models, tool.common, row.values, pictures]
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _beside(source: str, folder: Path) -> str:
    return source if source.startswith("data:") else str(folder / home_path(source))


def _answer(work: Any) -> Any:
    """What `work` returns, or why it failed: one row's failure is no other's."""
    try:
        return work()
    except Exception as problem:
        if not isinstance(problem, (BadInput, CannotSave)):
            log.exception("a row failed")
        return explain(problem)
