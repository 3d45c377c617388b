"""Scores of pictures for texts, by CLIP and the critic, as tables: for pictures that other tools made."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.clip.ranking import text_vector
from pipelines.core.settings import clean_prompt
from pipelines.errors import BadInput
from pipelines.io.files import home_path
from pipelines.models.base import Clip
from pipelines.models.typed import floats
from pipelines.see.pictures import Progress, quiet, see_all

MOST_PAIRS = 200_000
HEAD = ("file", "prompt", "clip", "critic", "problem")


@dataclass(frozen=True)
class Score:
    """One picture's cosines with a prompt, by CLIP and the critic. None without a critic, or when `problem` says why."""

    file: str
    prompt: str
    clip: float | None = None
    critic: float | None = None
    problem: BadInput | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        problem = None if self.problem is None else {"text": str(self.problem), **self.problem.to_json()}
        return {**vars(self), "problem": problem}


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """Pairs of a picture's path and a prompt, from a csv of two columns; a first row "file,prompt" is its head.

    Paths are relative to the csv's folder. BadInput when it cannot be read, has no pairs or more than MOST_PAIRS.
    """
    file = home_path(path)
    try:
        rows = list(csv.reader(io.StringIO(file.read_text("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise BadInput("see.csv_unreadable", file=str(path)[:80]) from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    head = [cell.strip().casefold() for cell in rows[0]] if rows else []
    places = (0, 1)
    if "file" in head and "prompt" in head:
        places, rows = (head.index("file"), head.index("prompt")), rows[1:]
    if not rows or len(rows) > MOST_PAIRS:
        raise BadInput("see.csv_size", file=file.name[:60], count=len(rows), most=MOST_PAIRS)
    pairs: list[tuple[str, str]] = []
    for number, row in enumerate(rows, start=1):
        if len(row) <= max(places):
            raise BadInput("see.csv_row", file=file.name[:60], row=number)
        pairs.append((str(file.parent / row[places[0]].strip()), clean_prompt(row[places[1]])))
    return pairs


@torch.no_grad()
def score_pairs(
    clip: Clip, critic: Clip | None, pairs: Sequence[tuple[str, str]], progress: Progress = quiet
) -> list[Score]:
    """The score of each pair of a picture (path or data URI) and a prompt, in order; broken pictures have a problem.

    BadInput when no picture can be opened.
    """
    sources = list(dict.fromkeys(source for source, _ in pairs))
    prompts = list(dict.fromkeys(prompt for _, prompt in pairs))
    by_clip = _cosines(clip, sources, prompts, pairs, progress)
    by_critic = {} if critic is None else _cosines(critic, sources, prompts, pairs, progress)
    rows: list[Score] = []
    for number, (source, prompt) in enumerate(pairs):
        near = by_clip[number]
        if isinstance(near, BadInput):
            rows.append(Score(source, prompt, problem=near))
        else:
            other = by_critic.get(number)
            rows.append(Score(source, prompt, near, other if isinstance(other, float) else None))
    return rows


def _cosines(
    clip: Clip, sources: list[str], prompts: list[str], pairs: Sequence[tuple[str, str]], progress: Progress
) -> dict[int, float | BadInput]:
    """The cosine of every pair by its number, or why there is none."""
    seen = see_all(clip, sources, progress)
    texts = torch.stack([text_vector(clip, prompt) for prompt in prompts])
    rows, columns, broken = seen.place(), {prompt: k for k, prompt in enumerate(prompts)}, dict(seen.broken)
    good = [number for number, (source, _) in enumerate(pairs) if source in rows]
    pictures: Tensor = seen.vectors[[rows[pairs[number][0]] for number in good]]
    near = floats((pictures * texts[[columns[pairs[number][1]] for number in good]]).sum(1))
    found: dict[int, float | BadInput] = dict(zip(good, near, strict=True))
    return found | {number: broken[source] for number, (source, _) in enumerate(pairs) if source not in rows}


def to_csv(scores: Sequence[Score]) -> str:
    """The scores as csv with a head; cosines have four decimals."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(HEAD)
    for row in scores:
        figures = ["" if value is None else f"{value:.4f}" for value in (row.clip, row.critic)]
        writer.writerow([row.file, row.prompt, *figures, "" if row.problem is None else str(row.problem)])
    return table.getvalue()
