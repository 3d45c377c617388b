"""What Generate draws, judged: do its pictures show their names, all their parts, many things, and are they copies?

Three judges look at the samples. CLIP, which also picked the best, so its verdict flatters; the critic, which neither
picked nor taught the generator; and pixels, the things of the nearest training pictures at 16 x 16. The first two rank the
prompt among all English names of the data (`judges.Book`: 3,794 texts, other names included), where names of the same
thing are no rivals.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.core.pipeline import Picture, Result, run
from pipelines.evaluation.compositions import Composition, paint
from pipelines.evaluation.judges import (
    Book,
    Training,
    likeness,
    nearest,
    prefers,
    share_within,
    thumbnails,
    usual_distance,
)
from pipelines.generate.pipeline import Generate
from pipelines.generate.settings import GenerateSettings
from pipelines.io.files import write_atomically
from pipelines.io.images import to_tensor
from pipelines.models.base import Clip
from pipelines.training.clip.retrieval import encode_pictures
from pipelines.training.data.emoji import Emoji, on_background
from pipelines.training.data.icons import VALIDATION_STYLE, concept
from pipelines.training.report import image_grid


def common_names(emoji: Emoji, count: int) -> list[str]:
    """Plain names that at least four icon sets draw, `count` of them, evenly spread over the alphabet."""
    styles: dict[str, set[str]] = {}
    for icon in emoji.icons:
        styles.setdefault(icon.name, set()).add(icon.style)
    names = sorted(name for name, drawn in styles.items() if len(drawn) >= 4)
    return [names[k] for k in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]


def draw(pipeline: Generate, prompt: str, candidates: int) -> list[Picture]:
    """All candidates with default settings, best first."""
    *_, result = run(pipeline, GenerateSettings(prompt=prompt, candidates=candidates, keep=candidates))
    assert isinstance(result, Result)
    return result.pictures


def drawn(pipeline: Generate, prompts: list[str], candidates: int) -> Iterator[list[Picture]]:
    """`draw` for each prompt, telling now and then how far it is."""
    for done, prompt in enumerate(prompts, start=1):
        yield draw(pipeline, prompt, candidates)
        if done % 10 == 0 or done == len(prompts):
            print(f"drew {done} of {len(prompts)} prompts", file=sys.stderr, flush=True)


def generation(
    pipeline: Generate, critic: Clip, emoji: Emoji, names: list[str], candidates: int
) -> tuple[dict[str, float], list[Image.Image]]:
    """Accuracy of the best of 1, 4, 16, ... candidates by all judges, and diversity; and the best picture of each name."""
    book, training = Book(emoji.icons), Training(emoji)
    shows = {icon.name: concept(icon) for icon in emoji.icons}
    models = {"critic": critic, "CLIP": pipeline.clip}
    words = {who: model.encode_text(book.texts) for who, model in models.items()}
    steps = [n for n in (1, 4, 16, 64) if n <= candidates]
    ranks: dict[tuple[str, int], list[int]] = {(who, n): [] for n in steps for who in (*models, "pixels")}
    alike, best = [], []
    for name, pictures in zip(names, drawn(pipeline, names, candidates), strict=True):
        pixels = np.stack([np.asarray(picture.image) for picture in pictures])
        vectors = {who: encode_pictures(model, pixels) for who, model in models.items()}
        for n in steps:  # pictures come best first, so the first of the first n candidates is the best of n
            k = next(k for k, picture in enumerate(pictures) if picture.facts["candidate"] < n)
            for who in models:
                scores = (words[who] @ vectors[who][k]).cpu()
                ranks[who, n].append(book.rank(name, scores))
            concepts = training.concepts(thumbnails(to_tensor([pictures[k].image])), 5)[0]
            ranks["pixels", n].append(
                concepts.index(shows[name]) if shows[name] in concepts else len(concepts)
            )
        alike.append(likeness(vectors["critic"]))
        best.append(pictures[0].image)
    figures = {
        f"{who} top-{top}, best of {n}": share_within(places, top)
        for (who, n), places in ranks.items()
        for top in (1, 5)
    }
    figures["likeness of a prompt's candidates, mean cosine by the critic"] = sum(alike) / len(alike)
    return figures, best


def composed(
    pipeline: Generate, critic: Clip, emoji: Emoji, asked: list[Composition], candidates: int
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
        for pictures in drawn(pipeline, [composition.prompt for composition in asked], candidates)
    ]
    figures = right(np.stack([np.asarray(image) for image in best]))
    icons = {icon.name: emoji.rgba[k] for k, icon in enumerate(emoji.icons) if icon.style == VALIDATION_STYLE}
    true = right(np.stack([paint(composition, icons) for composition in asked]))
    return figures | {f"{kind}, true pictures": share for kind, share in true.items()}


def copies(critic: Clip, emoji: Emoji, samples: list[Image.Image], sheet: Path | None) -> dict[str, float]:
    """Whether samples are nearer to a training picture than training pictures of different styles usually are.

    By the critic's vectors and by pixels. The sheet shows each sample, then its nearest picture by either, four to a row.
    """
    images = to_tensor(samples)
    own = {
        "critic": encode_pictures(critic, np.stack([np.asarray(sample) for sample in samples])).cpu(),
        "pixels": thumbnails(images),
    }
    columns: list[list[Image.Image]] = [samples]
    figures = {}
    for who, training in (("critic", Training(emoji, critic)), ("pixels", Training(emoji))):
        distance, index = nearest(own[who], training.vectors)
        usual = usual_distance(training.vectors, [icon.style for icon in training.icons])
        figures[f"share nearer than two styles usually are, {who}"] = (distance < usual).float().mean().item()
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
