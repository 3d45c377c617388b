"""Optimize, Guide and Edit, measured run by run: slow, so only when asked for. And the round trip of Edit's UNet."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.clip.ranking import text_vector
from pipelines.core.execute import run
from pipelines.core.journal import Journal
from pipelines.core.pipeline import Result
from pipelines.edit.pipeline import Edit
from pipelines.edit.settings import EditSettings
from pipelines.evaluation.judges import NameJudge, PlainNames, TextJudge, share_within
from pipelines.evaluation.samples import common_names, write_sheet
from pipelines.guide.pipeline import Guide
from pipelines.guide.settings import GuideSettings
from pipelines.io.images import open_picture, picture_to_uri, to_pil
from pipelines.models.base import Clip
from pipelines.optimize.pipeline import Optimize
from pipelines.optimize.settings import OptimizeSettings
from pipelines.studio import Studio
from pipelines.training.data.compositing import to_images
from pipelines.training.data.dataset import Dataset, on_background

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


def optimization(studio: Studio, emoji: Dataset, count: int, sheet: Path | None) -> dict[str, float]:
    """Optimize by the critic's eyes: is the prompt among the first names of all the validation style's?

    From a splash, and from a picture that the prior drew. "last" is the last step, "best" the one that the critic chose,
    so its verdict on that one flatters; CLIP's verdict, which steered, flatters most.
    """
    optimize = studio.pipeline("optimize")
    assert isinstance(optimize, Optimize)
    book, names = book_and_names(emoji, count)
    judges = name_judges({"critic": optimize.critic, "CLIP": optimize.clip}, book)
    ranks: dict[str, list[int]] = {}
    shown = []

    def note(what: str, image: Image.Image, name: str) -> None:
        _rank(ranks, judges, what, image, name)
        shown.append(image)

    for index, name in enumerate(names):
        for start in ("splash", "drawn"):
            settings = optimize.prepare(OptimizeSettings(prompt=name, start=start))
            if settings.image:
                note("what was drawn", open_picture(settings.image), name)
            *_, result = run(optimize, settings)
            assert isinstance(result, Result)
            note(f"last, from {start}", max(result.pictures, key=lambda p: p.facts["step"]).image, name)
            note(f"best, from {start}", result.pictures[0].image, name)
        if index % 5 == 4:
            sofar = "  ".join(f"{what} {share_within(r, 5):.2f}" for what, r in ranks.items())
            print(f"optimized {index + 1} of {len(names)} names; top-5: {sofar}", file=sys.stderr, flush=True)
    if sheet is not None:
        write_sheet(sheet, shown, 15)
    return _shares(ranks)


GUIDED = {  # what is compared -> settings
    "text and CLIP": {},
    "text alone": {"clip_guidance_scale": "0"},
    "CLIP alone": {"guidance": 0.0},
    "neither": {"guidance": 0.0, "clip_guidance_scale": "0"},
}


def guiding(
    studio: Studio, emoji: Dataset, count: int, sheet: Path | None, more: dict[str, NameJudge]
) -> dict[str, float]:
    """Guide by the eyes of the critic and of CLIP, which steered, on the last step's picture, from noise in 60 steps.

    The model reads the text or none, and CLIP guides it or not. `optimization` says what is counted. `more` are judges
    that look on.
    """
    guide = studio.pipeline("guide")
    assert isinstance(guide, Guide)
    book, names = book_and_names(emoji, count)
    judges = name_judges({"critic": guide.critic, "CLIP": guide.clip}, book) | more
    ranks: dict[str, list[int]] = {}
    shown: list[Image.Image] = []
    for index, name in enumerate(names):
        for what, fields in GUIDED.items():
            *_, result = run(guide, replace(GuideSettings(prompt=name, steps=60), **fields))
            assert isinstance(result, Result)
            shown.append(result.pictures[0].image)
            _rank(ranks, judges, what, shown[-1], name)
        if index % 5 == 4:
            sofar = "  ".join(f"{what} {share_within(r, 5):.2f}" for what, r in ranks.items())
            print(f"guided {index + 1} of {len(names)} names; top-5: {sofar}", file=sys.stderr, flush=True)
    if sheet is not None:
        write_sheet(sheet, shown, 4 * len(GUIDED))
    figures = _shares(ranks)
    for who in judges:
        gain = figures[f"{who}, CLIP alone: top-5"] - figures[f"{who}, neither: top-5"]
        figures[f"{who}, what CLIP adds without a text: top-5"] = gain
    return figures


def book_and_names(emoji: Dataset, count: int) -> tuple[list[str], list[str]]:
    """All names of the validation style's pictures, and `count` of the common ones among them, evenly spread."""
    book = list(dict.fromkeys(emoji.icons[k].name for k in emoji.validation))
    names = [name for name in common_names(emoji, len(emoji.icons)) if name in set(book)]
    return book, [names[k] for k in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]


def name_judges(clips: dict[str, Clip], book: list[str]) -> dict[str, NameJudge]:
    """CLIPs that choose among all names of a book."""
    return {who: TextJudge(clip, PlainNames(book)) for who, clip in clips.items()}


def _rank(
    ranks: dict[str, list[int]], judges: dict[str, NameJudge], what: str, image: Image.Image, name: str
) -> None:
    """Add how many names a picture rather shows than `name`, by each judge, to the ranks of what it is."""
    pixels = np.array(image.convert("RGB"))[None]
    for who, judge in judges.items():
        ranks.setdefault(f"{who}, {what}", []).extend(judge.ranks(name, pixels))


def _shares(ranks: dict[str, list[int]]) -> dict[str, float]:
    """The share of ranks among the first one and the first five, by what was ranked."""
    return {
        f"{what}: top-{top}": share_within(places, top) for what, places in ranks.items() for top in (1, 5)
    }


def editing(
    studio: Studio, emoji: Dataset, count: int, sheet: Path | None, mode: str = "reusable"
) -> dict[str, float]:
    """Edit on validation pictures of its own size: EDIT_PAIRS, each on the ten pictures that fit its source text best.

    By reusable directions, learned once a pair, or instantly. "won": the critic ranks the target above the source
    afterwards.
    """
    edit = studio.pipeline("edit")
    assert isinstance(edit, Edit)
    pictures = validation_pictures(emoji, edit.unet.config.image_size)
    vectors = torch.cat([edit.clip.encode_image(x.to(edit.clip.device)).cpu() for x in pictures.split(128)])
    rows: list[dict[str, float]] = []
    shown: list[Image.Image] = []
    for source, target in EDIT_PAIRS[:count]:
        text = text_vector(edit.clip, source).cpu()
        images = to_pil(pictures[(vectors @ text).topk(10).indices.tolist()])
        settings = EditSettings(source=source, prompt=target, mode=mode, strip=1)
        if mode == "reusable":
            settings = replace(settings, directions=_learned(edit, settings, images[0]))
        edited: list[Image.Image] = []
        for image in images:
            *_, result = run(edit, replace(settings, image=picture_to_uri(image)))
            assert isinstance(result, Result)
            facts = result.pictures[0].facts
            rows.append({
                "won": facts["critic target"] > facts["critic source"],
                "won before the edit": facts["critic target before"] > facts["critic source before"],
                "SSIM": facts["SSIM"],
                "critic direction": facts["critic direction"],
            })  # fmt: skip
            edited.append(result.pictures[0].image)
        shown += [*images[:5], *edited[:5]]
        rate, like = (np.mean([row[name] for row in rows[-10:]]) for name in ("won", "SSIM"))
        print(f"{source} -> {target}, {mode}: won {rate:.1f}, SSIM {like:.2f}", file=sys.stderr, flush=True)
    if sheet is not None:
        write_sheet(sheet, shown, 10)
    return {"pictures": float(len(rows))} | {
        name: float(np.mean([row[name] for row in rows])) for name in rows[0]
    }


def _learned(edit: Edit, settings: EditSettings, image: Image.Image) -> str:
    """The direction that a run with these settings learns, as a data URI."""
    journal = Journal()
    *_, learned = run(edit, replace(settings, image=picture_to_uri(image)), journal)
    assert isinstance(learned, Result) and isinstance(learned.settings, EditSettings)
    return edit.direction(learned.settings, journal).to_uri()


def editing_outside(
    studio: Studio,
    pictures: Mapping[str, Image.Image],
    edits: Sequence[tuple[str, str]],
    judges: Mapping[str, NameJudge],
    sheet: Path | None,
) -> dict[str, float]:
    """Edit pictures, each under its name, to other names, instantly, one each: pairs of a name and the one to become.

    "won": a judge prefers the target to the source afterwards. SSIM is that of the result with the picture.
    """
    edit = studio.pipeline("edit")
    assert isinstance(edit, Edit)
    rows: list[dict[str, float]] = []
    shown: list[Image.Image] = []
    for source, target in edits:
        before = pictures[source].convert("RGB")
        settings = EditSettings(
            source=source, prompt=target, mode="instant", strip=1, image=picture_to_uri(before)
        )
        *_, result = run(edit, settings)
        assert isinstance(result, Result)
        after = result.pictures[0].image
        row: dict[str, float] = {}
        for when, image in (("won", after), ("won before the edit", before)):
            pixels = np.array(image.convert("RGB"))[None]
            for who, judge in judges.items():
                row[f"{who}, {when}"] = judge.ranks(target, pixels)[0] < judge.ranks(source, pixels)[0]
        rows.append(row | {"SSIM": result.pictures[0].facts["SSIM"]})
        shown += [before, after]
    if sheet is not None:
        write_sheet(sheet, shown, 12)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def validation_pictures(emoji: Dataset, size: int) -> Tensor:
    """The validation pictures on white, (n, 3, size, size) in [-1, 1]."""
    pictures = to_images(on_background(emoji.rgba[emoji.validation]))
    return F.interpolate(pictures, (size, size), mode="area")


def round_trip(edit: Edit, pictures: Tensor, return_step: int = 600, steps: int = 40) -> dict[str, float]:
    """PSNR (dB) of pictures walked up the noise and down again, nothing added back, without and with refinement.

    They are compared with the pictures as the denoiser decodes them, so that what a codec loses does not count.
    """
    figures = {}
    for refine, name in enumerate(("PSNR", "PSNR, refined once")):
        psnr = []
        for x in pictures.to(edit.clip.device).split(32):
            settings = EditSettings(return_step=return_step, steps=steps, inversion_iterations=refine)
            again = edit.round_trip(settings, x)
            with torch.no_grad():
                once = edit.unet.decode(edit.unet.encode(x)).clamp(-1, 1)
            psnr.append(-10 * ((again - once) / 2).square().mean((1, 2, 3)).clamp(min=1e-10).log10())
        figures[name] = torch.cat(psnr).mean().item()
    return figures
