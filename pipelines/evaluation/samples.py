"""What Generate and Diffuse draw, judged: do pictures show their names and all their parts, and are they copies?

CLIP also picked the best, so its verdict flatters. The critic neither picked nor taught what draws. Pixels are the things
of the nearest training pictures at 16 x 16. Nothing is chosen by the judge, which looks on where its file is given. CLIP
and critic rank the prompt among all English names of the data (`judges.Book`); names of the same thing are no rivals;
the judge among all things.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from pipelines.core.execute import run
from pipelines.core.pipeline import Picture, Pipeline, Result
from pipelines.evaluation.compositions import Composition, paint
from pipelines.evaluation.judges import (
    NameJudge,
    Training,
    likeness,
    nearest,
    prefers,
    share_within,
    thumbnails,
    usual_distance,
)
from pipelines.io.files import write_atomically
from pipelines.io.images import to_tensor
from pipelines.models.base import Clip
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.data.dataset import Dataset, on_background
from pipelines.training.data.icons import VALIDATION_STYLE
from pipelines.training.report import image_grid


def common_names(emoji: Dataset, count: int) -> list[str]:
    """Plain names that at least four icon sets draw, `count` of them, evenly spread over the alphabet."""
    styles: dict[str, set[str]] = {}
    for icon in emoji.icons:
        styles.setdefault(icon.name, set()).add(icon.style)
    names = sorted(name for name, drawn in styles.items() if len(drawn) >= 4)
    return [names[k] for k in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]


def draw(pipeline: Pipeline[Any], prompt: str, candidates: int, **fields: Any) -> list[Picture]:
    """All candidates with default settings but for `fields`, best first."""
    settings = pipeline.Settings.from_dict(
        {"prompt": prompt, "candidates": candidates, "keep": candidates, **fields}
    )
    *_, result = run(pipeline, settings)
    assert isinstance(result, Result)
    return result.pictures


@dataclass(frozen=True)
class Drawer:
    """A pipeline that draws candidates, and the settings in which it is measured."""

    pipeline: Pipeline[Any]
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

    def each(self, prompts: list[str], candidates: int) -> Iterator[list[Picture]]:
        """`draw` for each prompt, telling now and then how far it is."""
        for done, prompt in enumerate(prompts, start=1):
            yield draw(self.pipeline, prompt, candidates, **self.fields)
            if done % 10 == 0 or done == len(prompts):
                print(f"drew {done} of {len(prompts)} prompts", file=sys.stderr, flush=True)


@dataclass
class Drawn:
    """The candidates of some names as judges rank them."""

    # judge -> for each name the rank of each candidate, in order of its number
    places: dict[str, list[list[int]]]
    order: list[list[int]]  # for each name the candidates' numbers, best first by CLIP
    alike: list[float]  # for each name the mean cosine of its candidates, by the critic
    best: list[Image.Image]  # CLIP's choice of each name

    def choice(self, who: str, count: int) -> list[int]:
        """For each name the rank, by a judge, of CLIP's choice among the first `count` candidates."""
        chosen = [next(k for k in order if k < count) for order in self.order]
        return [ranks[k] for ranks, k in zip(self.places[who], chosen, strict=True)]

    def figures(self) -> dict[str, float]:
        """Accuracy of the best of 1, 4, 16, ... by all judges; what the best choice and chance would reach; diversity."""
        candidates = len(self.order[0])
        figures = {
            f"{who} top-{top}, best of {count}": share_within(self.choice(who, count), top)
            for count in (1, 4, 16, 64)
            if count <= candidates
            for who in self.places
            for top in (1, 5)
        }
        if "judge" in self.places:
            ranks = self.places["judge"]
            for top in (1, 5):
                possible = share_within([min(row) for row in ranks], top)
                figures[f"judge top-{top}, mean of all"] = share_within(
                    [k for row in ranks for k in row], top
                )
                figures[f"judge top-{top}, best possible choice"] = possible
            chosen = share_within(self.choice("judge", candidates), 1)
            possible = figures["judge top-1, best possible choice"]
            figures["of the best possible choice, CLIP's gets"] = chosen / possible if possible else 0.0
        figures["likeness of a prompt's candidates, mean cosine by the critic"] = float(np.mean(self.alike))
        return figures


def judged(
    drawer: Drawer, critic: Clip, judges: dict[str, NameJudge], names: list[str], candidates: int
) -> Drawn:
    """Draw the candidates of each name and have them ranked by every judge."""
    drawn = Drawn({who: [] for who in judges}, [], [], [])
    for name, pictures in zip(names, drawer.each(names, candidates), strict=True):
        drawn.order.append([picture.facts["candidate"] for picture in pictures])
        by_number = sorted(pictures, key=lambda picture: picture.facts["candidate"])
        pixels = np.stack([np.asarray(picture.image) for picture in by_number])
        for who, judge in judges.items():
            drawn.places[who].append(judge.ranks(name, pixels))
        drawn.alike.append(likeness(encode_pictures(critic, pixels)))
        drawn.best.append(pictures[0].image)
    return drawn


def time_beside(one: Drawer, other: Drawer, names: list[str], candidates: int) -> float:
    """The median over names of the processor time that one takes, in shares of the other's, by turns."""

    def seconds(drawer: Drawer, name: str) -> float:
        begin = time.process_time()
        draw(drawer.pipeline, name, candidates, **drawer.fields)
        return time.process_time() - begin

    return float(np.median([seconds(one, name) / seconds(other, name) for name in names]))


def composed(
    drawer: Drawer, critic: Clip, emoji: Dataset, asked: list[Composition], candidates: int
) -> dict[str, float]:
    """The share of prompts whose best picture the critic prefers to call by the prompt than by any of its contrasts.

    The same of true pictures, made of icons of the validation style, says how far the critic itself can be trusted here.
    """
    texts = [critic.encode_text(composition.texts) for composition in asked]

    def right(pictures: np.ndarray) -> dict[str, float]:
        verdicts: dict[str, list[bool]] = {"all": []}
        for composition, vector, words in zip(asked, encode_pictures(critic, pictures), texts, strict=True):
            verdict = prefers(vector, words)
            verdicts["all"].append(verdict)
            verdicts.setdefault(composition.kind, []).append(verdict)
        return {kind: sum(answers) / len(answers) for kind, answers in verdicts.items()}

    best = [
        pictures[0].image
        for pictures in drawer.each([composition.prompt for composition in asked], candidates)
    ]
    figures = right(np.stack([np.asarray(image) for image in best]))
    icons = {icon.name: emoji.rgba[k] for k, icon in enumerate(emoji.icons) if icon.style == VALIDATION_STYLE}
    true = right(np.stack([paint(composition, icons) for composition in asked]))
    return figures | {f"{kind}, true pictures": share for kind, share in true.items()}


def copies(critic: Clip, emoji: Dataset, samples: list[Image.Image], sheet: Path | None) -> dict[str, float]:
    """Whether samples are nearer to a training picture than training pictures of different styles usually are.

    By the critic's vectors and by pixels, beside real icons of the style that nobody learned from. The sheet shows each
    sample, then its nearest picture by either, four to a row.
    """

    def vectors(pictures: np.ndarray) -> dict[str, Tensor]:
        shown = to_tensor([Image.fromarray(pixels) for pixels in pictures])
        return {"critic": encode_pictures(critic, pictures).cpu(), "pixels": thumbnails(shown)}

    own = vectors(np.stack([np.asarray(sample) for sample in samples]))
    unseen = vectors(on_background(emoji.rgba[emoji.validation]))
    columns: list[list[Image.Image]] = [samples]
    figures = {}
    for who, training in (("critic", Training(emoji, critic)), ("pixels", Training(emoji))):
        distance, index = nearest(own[who], training.vectors)
        usual = usual_distance(training.vectors, [icon.style for icon in training.icons])
        figures[f"share nearer than two styles usually are, {who}"] = (distance < usual).float().mean().item()
        near = nearest(unseen[who], training.vectors)[0] < usual
        figures[f"the same of real icons of a style never seen, {who}"] = near.float().mean().item()
        figures[f"distance to the nearest, {who}"] = distance.median().item()
        figures[f"distance of two styles, {who}"] = usual
        chosen = on_background(emoji.rgba[emoji.train[index.numpy()]])
        columns.append([Image.fromarray(pixels).resize(samples[0].size) for pixels in chosen])
    if sheet is not None:
        write_sheet(sheet, [image for row in zip(*columns, strict=True) for image in row], 12)
    return figures


def write_sheet(path: Path, pictures: list[Image.Image], columns: int) -> None:
    """Pictures of one size, row by row, as one PNG."""
    file = io.BytesIO()
    image_grid(to_tensor(pictures), columns).save(file, "PNG")
    write_atomically(path, file.getvalue())
