"""`python launch.py evaluate`: the project's own figures, on a style that was never trained on, and on samples.

Two judges look at the samples. CLIP itself, which also picked them, so its verdict flatters; and pixels: which training
pictures are nearest at 16 x 16, a judge that knows nothing of CLIP.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.arguments import Parser, number
from pipelines.base import Picture, Result, run
from pipelines.clip import text_vector
from pipelines.dalle import Generate, GenerateSettings
from pipelines.diffusion_clip import Edit
from pipelines.edit_settings import EditSettings
from pipelines.images import picture_to_uri, to_pil, to_tensor
from pipelines.journal import Journal
from pipelines.models.clip import Clip
from pipelines.optimize_settings import OptimizeSettings
from pipelines.studio import Studio
from pipelines.training.clip import encode_pictures, retrieval, thing
from pipelines.training.data import DATA_FILE, Emoji, on_background
from pipelines.training.fit import sheet_of
from pipelines.training.vqgan import reconstruction
from pipelines.vqgan_clip import Optimize

EDIT_PAIRS = (
    ("face", "angry face"),
    ("face", "crying face"),
    ("smiling face", "nauseated face"),
    ("face", "alien"),
    ("cat", "lion"),
    ("cat", "dog"),
    ("dog", "fox"),
    ("dog", "panda"),
    ("bear", "polar bear"),
    ("apple", "green apple"),
    ("orange", "lemon"),
    ("heart", "green heart"),
    ("heart", "purple heart"),
    ("flower", "rose"),
    ("tree", "christmas tree"),
    ("house", "house at night"),
    ("sun", "moon"),
    ("car", "taxi"),
    ("bird", "parrot"),
    ("fish", "tropical fish"),
)


def main(argv: list[str]) -> int:
    """Print one table (or, with --json, one object); returns the exit code."""
    parser = Parser(prog="launch.py evaluate", description="Measure the models of the tiny pack.")
    parser.add_argument(
        "--names",
        type=number(int, 0, 10_000),
        default=200,
        help="common names to generate (default 200; 0 for none)",
    )
    parser.add_argument(
        "--candidates", type=number(int, 1, 64), default=16, help="candidates a name (default 16, at most 64)"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_FILE, help=f"made by launch.py data (default {DATA_FILE})"
    )
    parser.add_argument("--sheet", type=Path, help="also write the best picture of each name to this PNG")
    parser.add_argument(
        "--optimize", type=number(int, 0, 10_000), default=0, help="names to optimize, 40 s each (default 0)"
    )
    parser.add_argument(
        "--optimize-sheet", type=Path, help="from codes, draft, from draft: three pictures a name"
    )
    parser.add_argument(
        "--edit", type=number(int, 0, 20), default=0, help="text pairs to edit ten pictures by (default 0)"
    )
    parser.add_argument("--edit-sheet", type=Path, help="before and after, a row a pair")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(argv)
    try:
        emoji, studio = Emoji(options.data), Studio("tiny")
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    figures = evaluate(studio, emoji, options.names, options.candidates, options.sheet)
    if options.optimize:
        with torch.no_grad():
            figures["optimize"] = optimization(studio, emoji, options.optimize, options.optimize_sheet)
    if options.edit:
        with torch.no_grad():
            figures["edit"] = editing(studio, Emoji(options.data, size=64), options.edit, options.edit_sheet)
    if options.json:
        print(json.dumps(figures))
        return 0
    for part, rows in figures.items():
        for name, value in rows.items():
            print(f"{part:10} {name:36} {value:.4g}")
    return 0


def evaluate(studio: Studio, emoji: Emoji, names: int, candidates: int, sheet: Path | None) -> dict[str, Any]:
    """{"clip": ..., "vqgan": ..., "dalle": ...}, each a flat dict of figures."""
    pipeline = studio.pipeline("generate")
    assert isinstance(pipeline, Generate)
    figures: dict[str, Any] = {}
    with torch.no_grad():
        pictures = torch.from_numpy(on_background(emoji.rgba[emoji.validation])).permute(0, 3, 1, 2)
        pictures = pictures.to(studio.torch_device).float().div(127.5).sub(1)
        figures["clip"] = retrieval(pipeline.clip, emoji)
        figures["critic"] = retrieval(studio.load("tiny-critic"), emoji)
        figures["vqgan"] = reconstruction(pipeline.vqgan, pictures)
    if names:
        figures["dalle"] = generation(pipeline, emoji, common_names(emoji, names), candidates, sheet)
    return figures


def common_names(emoji: Emoji, count: int) -> list[str]:
    """Plain names that at least four icon sets draw, `count` of them, evenly spread over the alphabet."""
    styles: dict[str, set[str]] = {}
    for icon in emoji.icons:
        styles.setdefault(icon.name, set()).add(icon.style)
    names = sorted(name for name, drawn in styles.items() if len(drawn) >= 4)
    return [names[k] for k in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]


class PixelJudge:
    """Which things do the nearest training pictures show, at 16 x 16 pixels on white?"""

    def __init__(self, emoji: Emoji):
        self.things = [thing(emoji.icons[k]) for k in emoji.train]
        self.vectors = _thumbnails(on_background(emoji.rgba[emoji.train]))

    def nearest(self, pictures: Tensor, count: int) -> tuple[list[list[str]], Tensor]:
        """(n, 3, h, w) in [-1, 1] -> the nearest `count` things of each, and the distance to the nearest picture."""
        vectors = F.adaptive_avg_pool2d(pictures, 16).flatten(1)
        distance, order = torch.cdist(vectors, self.vectors).topk(count * 8, largest=False)
        things = [list(dict.fromkeys(self.things[k] for k in row))[:count] for row in order.tolist()]
        return things, distance[:, 0] / vectors.shape[1] ** 0.5


def _thumbnails(pictures: np.ndarray) -> Tensor:
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    chunks = [F.adaptive_avg_pool2d(c.float().div(127.5).sub(1), 16).flatten(1) for c in images.split(256)]
    return torch.cat(chunks)


def generation(
    pipeline: Generate, emoji: Emoji, names: list[str], candidates: int, sheet: Path | None
) -> dict[str, float]:
    """Accuracy of the best of 1, 4, 16, ... candidates by both judges, diversity, and distance to training pictures."""
    known = {icon.name: thing(icon) for icon in emoji.icons}
    book = sorted(set(known.values()))
    english = {known[icon.name]: icon.name for icon in emoji.icons}
    words = pipeline.clip.encode_text([english[name] for name in book])
    judge = PixelJudge(emoji)
    steps = [n for n in (1, 4, 16, 64) if n <= candidates]
    hits = {(which, top, n): 0 for n in steps for which in ("CLIP", "pixels") for top in (1, 5)}
    alike, copied, best_pictures = [], [], []
    for index, name in enumerate(names):
        pictures = draw(pipeline, name, candidates)
        images = to_tensor([picture.image for picture in pictures])
        vectors = encode_pictures(pipeline.clip, np.stack([np.asarray(p.image) for p in pictures]))
        ranked = (vectors @ words.T).topk(5).indices.tolist()
        things, distance = judge.nearest(images, 5)
        for n in steps:  # pictures come best first, so the first of the first n candidates is the best of n
            k = next(k for k, picture in enumerate(pictures) if picture.facts["candidate"] < n)
            for top in (1, 5):
                hits["CLIP", top, n] += known[name] in [book[j] for j in ranked[k][:top]]
                hits["pixels", top, n] += known[name] in things[k][:top]
        cosines = vectors @ vectors.T
        alike.append(((cosines.sum() - len(vectors)) / max(len(vectors) * (len(vectors) - 1), 1)).item())
        copied.append(distance[0].item())
        best_pictures.append(pictures[0].image)
        if index % 10 == 9:
            print(f"generated {index + 1} of {len(names)} names", file=sys.stderr, flush=True)
    figures = {f"{w} top-{top}, best of {n}": hit / len(names) for (w, top, n), hit in hits.items()}
    figures["mean cosine of candidates"] = sum(alike) / len(alike)
    figures["distance to nearest training"] = sum(copied) / len(copied)
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet_of(to_tensor(best_pictures), 20).save(sheet)
    return figures


def optimization(studio: Studio, emoji: Emoji, count: int, sheet: Path | None) -> dict[str, float]:
    """Optimize by the critic's eyes: is the prompt among the first names of all the validation style's?

    From random codes in 150 steps, and from Generate's best of 16 in 30. "last" is the last step, "best" the one that
    the critic chose, so its verdict on that one flatters; CLIP's verdict, which steered, flatters most.
    """
    optimize, generate = studio.pipeline("optimize"), studio.pipeline("generate")
    assert isinstance(optimize, Optimize) and isinstance(generate, Generate)
    book = list(dict.fromkeys(emoji.icons[k].name for k in emoji.validation))
    names = [name for name in common_names(emoji, len(emoji.icons)) if name in set(book)]
    names = [names[k] for k in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]
    ranks: dict[str, list[int]] = {}
    shown = []

    def note(what: str, judge: Clip, image: Image.Image, name: str) -> None:
        vector = encode_pictures(judge, np.array(image)[None])[0]
        scores = judge.encode_text(book) @ vector
        ranks.setdefault(what, []).append(int((scores > scores[book.index(name)]).sum()))

    def follow(start: str, settings: OptimizeSettings) -> Image.Image:
        *_, result = run(optimize, settings)
        assert isinstance(result, Result)
        last = max(result.pictures, key=lambda one: one.facts["step"]).image
        for judge, which, image in (
            ("critic", "last", last),
            ("critic", "best", result.pictures[0].image),
            ("CLIP", "last", last),
        ):
            model = optimize.critic if judge == "critic" else optimize.clip
            note(f"{judge}, {which}, from {start}", model, image, settings.prompt)
        return result.pictures[0].image

    for index, name in enumerate(names):
        start = OptimizeSettings(prompt=name, steps=1, step_size=0.001)
        *_, untouched = run(optimize, start)
        assert isinstance(untouched, Result)
        note("critic, the random codes", optimize.critic, untouched.pictures[-1].image, name)
        shown.append(follow("codes", OptimizeSettings(prompt=name)))
        draft = draw(generate, name, 16)[0]
        note("critic, the draft", optimize.critic, draft.image, name)
        tokens = " ".join(map(str, draft.facts["tokens"]))
        shown.append(draft.image)
        shown.append(follow("draft", OptimizeSettings(prompt=name, steps=30, tokens=tokens)))
        if index % 5 == 4:
            sofar = "  ".join(f"{what} {np.mean(np.array(r) < 5):.2f}" for what, r in ranks.items())
            print(f"optimized {index + 1} of {len(names)} names; top-5: {sofar}", file=sys.stderr, flush=True)
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet_of(to_tensor(shown), 18).save(sheet)
    figures = {}
    for what, found in ranks.items():
        for top in (1, 5):
            figures[f"{what}: top-{top}"] = sum(rank < top for rank in found) / len(found)
    return figures


def editing(studio: Studio, emoji: Emoji, count: int, sheet: Path | None) -> dict[str, float]:
    """Edit on validation pictures of its own size: the round trip, and reusable directions of EDIT_PAIRS, each on the ten
    pictures that fit its source text best. "won": the critic ranks the target above the source afterwards."""
    edit = studio.pipeline("edit")
    assert isinstance(edit, Edit)
    rgb = on_background(emoji.rgba[emoji.validation])
    pictures = torch.from_numpy(rgb).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    figures = round_trip(edit, pictures[:: -(-len(pictures) // 32)])
    vectors = encode_pictures(edit.clip, rgb)
    won, before, likeness, directions, shown = [], [], [], [], []
    for source, target in EDIT_PAIRS[:count]:
        text = text_vector(edit.clip, source)
        rows = (vectors @ text).topk(10).indices.tolist()
        images = to_pil(pictures[rows])
        settings = EditSettings(source=source, prompt=target, mode="reusable", strip=1)
        journal = Journal()
        *_, learned = run(edit, replace(settings, image=picture_to_uri(images[0])), journal)
        assert isinstance(learned, Result) and isinstance(learned.settings, EditSettings)
        uri = edit.direction(learned.settings, journal).to_uri()
        edited = []
        for image in images:
            *_, result = run(edit, replace(settings, image=picture_to_uri(image), directions=uri))
            assert isinstance(result, Result)
            facts = result.pictures[0].facts
            won.append(facts["critic target"] > facts["critic source"])
            before.append(facts["critic target before"] > facts["critic source before"])
            likeness.append(facts["SSIM"])
            directions.append(facts["critic direction"])
            edited.append(result.pictures[0].image)
        shown += [*images[:5], *edited[:5]]
        rate, like = np.mean(won[-10:]), np.mean(likeness[-10:])
        print(f"{source} -> {target}: won {rate:.1f}, SSIM {like:.2f}", file=sys.stderr, flush=True)
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet_of(to_tensor(shown), 10).save(sheet)
    return figures | {
        "pictures": float(len(won)),
        "won": float(np.mean(won)),
        "won before the edit": float(np.mean(before)),
        "SSIM": float(np.mean(likeness)),
        "critic direction": float(np.mean(directions)),
    }


def round_trip(edit: Edit, pictures: Tensor, return_step: int = 600, steps: int = 40) -> dict[str, float]:
    """PSNR (dB) of pictures walked up the noise and down again, nothing added back, with and without refinement."""
    figures = {}
    for refine in (0, 1):
        psnr = []
        for x in pictures.to(edit.clip.device).split(32):
            settings = EditSettings(return_step=return_step, steps=steps, refine=refine)
            again = edit.round_trip(settings, x)
            psnr.append(-10 * ((again - x) / 2).square().mean((1, 2, 3)).clamp(min=1e-10).log10())
        figures[f"round trip PSNR, refine {refine}"] = torch.cat(psnr).mean().item()
    return figures


def draw(pipeline: Generate, name: str, candidates: int) -> list[Picture]:
    """All candidates with default settings, best first."""
    settings = GenerateSettings(prompt=name, candidates=candidates, keep=candidates)
    result = None
    for event in run(pipeline, settings):
        result = event
    assert isinstance(result, Result)
    return result.pictures
